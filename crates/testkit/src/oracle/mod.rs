//! Other people's tools, asked for their opinion.
//!
//! Each wrapper's `find` gives `None` and says so loudly where the tool is not installed, and fails
//! where `CI` is `true`: an oracle that nobody asks proves nothing. `cargo xtask setup` installs
//! them all.

mod certificates;
mod libvhdi;
mod nbd;
mod qemu_img;
mod qemu_io;
mod seven_zip;
mod stress;
mod turns;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use certificates::Certtool;
pub use libvhdi::{Libvhdi, VhdiInfo};
pub use nbd::{NbdServer, NbdTools, nbd_uri};
pub use qemu_img::{Checked, QemuImg};
pub use qemu_io::{Held, QemuIo};
pub use seven_zip::SevenZip;
pub use stress::{Fio, Nbdsh};
pub use turns::{Qemu, rounds, same_disk};

/// What a finished tool said.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output, or the complaint of a tool that failed.
    ///
    /// # Errors
    /// Standard error, when the exit code is not 0.
    pub fn ok(self) -> Result<Vec<u8>, String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            code => Err(format!("exit code {code:?}: {}", self.stderr.trim())),
        }
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// When it cannot be started.
fn run(command: &mut Command) -> Ran {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The first of `programs` in the search path; none is a matter for
/// [`missing`](crate::env::missing).
fn find(programs: &[&str], package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = programs.iter().find_map(|program| {
        std::env::split_paths(&path)
            .map(|dir| dir.join(program))
            .find(|file| file.is_file())
    });
    if found.is_none() {
        crate::env::missing(&format!(
            "no {}: install the package {package}, or run `cargo xtask setup`",
            programs.join(" or ")
        ));
    }
    found
}

/// The file's folder and its name there, for tools that look for neighbours.
fn split(path: &Path) -> (&Path, &Path) {
    let name = path.file_name().map_or(path, Path::new);
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    (dir, name)
}

#[cfg(test)]
mod tests;
