//! The number of a process, in a file for whoever looks after it.

use std::fs::OpenOptions;
use std::io::Write;
use std::process;

/// Writes this process's number to the file at `path`, which stays, as `qemu-nbd`'s does.
pub(crate) fn write(path: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(path)
        .and_then(|mut file| writeln!(file, "{}", process::id()));
    written.map_err(|error| {
        format!(
            "Could not create '{path}': {}",
            crate::compat::reason(&error)
        )
    })
}
