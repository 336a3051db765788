//! 7-Zip, which reads VHDX as an archive of one file: the disk.
//!
//! It replays no logs, and finds parents only beside the image and under the recorded name.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{find, run, split};

/// The `7zz` (or `7z`) tool.
#[derive(Debug, Clone)]
pub struct SevenZip(PathBuf);

impl SevenZip {
    /// The tool of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        find(&["7zz", "7z"], "7zip").map(Self)
    }

    /// Writes the content of the VHDX `image` to the raw file `to`.
    ///
    /// # Errors
    /// What it complained of.
    pub fn to_raw(&self, image: &Path, to: &Path) -> Result<(), String> {
        let out = File::create(to).map_err(|error| error.to_string())?;
        let (dir, name) = split(image);
        let mut command = Command::new(&self.0);
        command.current_dir(dir).stdout(Stdio::from(out));
        // `output` would take standard output away from the file.
        command.stderr(Stdio::piped());
        command.args(["e", "-so", "-tvhdx"]).arg(name);
        let child = command.spawn().map_err(|error| error.to_string())?;
        let output = child
            .wait_with_output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The properties it lists for the VHDX `image`, as text.
    ///
    /// # Errors
    /// What it complained of.
    pub fn list(&self, image: &Path) -> Result<String, String> {
        let (dir, name) = split(image);
        let mut command = Command::new(&self.0);
        command.current_dir(dir).args(["l", "-slt", "-tvhdx"]);
        let stdout = run(command.arg(name)).ok()?;
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}
