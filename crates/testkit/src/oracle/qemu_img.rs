//! `qemu-img`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Ran, find, run};

/// QEMU's image tool.
#[derive(Debug, Clone)]
pub struct QemuImg(PathBuf);

/// What `qemu-img check` found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// 0 clean, 1 could not check, 2 corruptions, 3 leaks, 63 nothing to check in this format.
    pub code: i32,
    /// Its JSON, where it wrote any.
    pub report: Option<Value>,
    /// What it complained of.
    pub stderr: String,
}

impl QemuImg {
    /// The tool of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        find(&["qemu-img"], "qemu-utils").map(Self)
    }

    /// Runs it with any arguments.
    #[must_use]
    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Ran {
        run(Command::new(&self.0).args(args))
    }

    /// Runs it in `dir`, from which it resolves relative names that some images give.
    #[must_use]
    pub fn run_in<A: AsRef<OsStr>>(&self, dir: &Path, args: &[A]) -> Ran {
        run(Command::new(&self.0).current_dir(dir).args(args))
    }

    /// Converts `from` to the raw file `to`.
    ///
    /// # Errors
    /// What it complained of.
    pub fn to_raw(&self, format: &str, from: &Path, to: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.args(["convert", "-f", format, "-O", "raw"]);
        run(command.arg(from).arg(to)).ok().map(drop)
    }

    /// `info`, as JSON.
    ///
    /// # Errors
    /// What it complained of.
    pub fn info(&self, format: &str, image: &Path) -> Result<Value, String> {
        self.json(&["info", "-f", format, "--output=json"], image)
    }

    /// `map`, as JSON. Of a VHDX it calls everything data: QEMU 10.0.2's driver does not tell.
    ///
    /// # Errors
    /// What it complained of.
    pub fn map(&self, format: &str, image: &Path) -> Result<Value, String> {
        self.json(&["map", "-f", format, "--output=json"], image)
    }

    /// `check`, which changes nothing.
    ///
    /// # Panics
    /// When a signal ended it.
    #[must_use]
    pub fn check(&self, format: &str, image: &Path) -> Checked {
        self.checked(&["check", "-f", format, "--output=json"], image)
    }

    /// `check -r all`: repairs the image in place, a VHDX's log included. Only for copies.
    ///
    /// # Panics
    /// When a signal ended it.
    #[must_use]
    pub fn repair(&self, format: &str, image: &Path) -> Checked {
        self.checked(
            &["check", "-f", format, "-r", "all", "--output=json"],
            image,
        )
    }

    /// True when both disks have the same content.
    ///
    /// # Errors
    /// What it complained of.
    pub fn same(&self, a: (&str, &Path), b: (&str, &Path)) -> Result<bool, String> {
        let mut command = Command::new(&self.0);
        command
            .args(["compare", "-f", a.0, "-F", b.0])
            .args([a.1, b.1]);
        let ran = run(&mut command);
        match ran.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(ran.stderr),
        }
    }

    /// Makes an image of `size` bytes; `options` are those of `-o`, comma-separated, or empty.
    ///
    /// # Errors
    /// What it complained of.
    pub fn create(
        &self,
        format: &str,
        image: &Path,
        size: u64,
        options: &str,
    ) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.args(["create", "-q", "-f", format]);
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        run(command.arg(image).arg(size.to_string())).ok().map(drop)
    }

    fn json(&self, args: &[&str], image: &Path) -> Result<Value, String> {
        let stdout = run(Command::new(&self.0).args(args).arg(image)).ok()?;
        serde_json::from_slice(&stdout).map_err(|error| error.to_string())
    }

    fn checked(&self, args: &[&str], image: &Path) -> Checked {
        let ran = run(Command::new(&self.0).args(args).arg(image));
        Checked {
            code: ran.code.expect("qemu-img ended by itself"),
            report: serde_json::from_slice(&ran.stdout).ok(),
            stderr: ran.stderr,
        }
    }
}
