//! Unpacking once, however many test processes start together.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Makes sure that all images of `format` lie below `to`.
pub(super) fn unpack(source: &Path, to: &Path, format: &str) {
    static DONE: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let done = done.get_or_insert_default();
    if done.contains(format) {
        return;
    }
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    // Other processes wait here until the first has finished, and then find its mark.
    let lock = File::create(to.join(".lock")).expect("a lock file can be made");
    lock.lock().expect("the lock file can be locked");
    let mark = to.join(format!(".done-{format}"));
    if !mark.exists() {
        let script = source.join("unpack.py");
        let output = Command::new("python3")
            .arg(&script)
            .arg(to)
            .args(["--format", format])
            .output()
            .unwrap_or_else(|error| panic!("python3 (Debian package python3): {error}"));
        assert!(
            output.status.success(),
            "{} --format {format}: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        File::create(&mark).expect("a mark can be made");
    }
    done.insert(format.to_owned());
}
