//! Clients that press a server hard, or say what no client should.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{find, run};

/// fio's engine for NBD, which checks what it has written.
#[derive(Debug, Clone)]
pub struct Fio(PathBuf);

/// libnbd's shell, by which requests can be sent that libnbd itself would refuse.
#[derive(Debug, Clone)]
pub struct Nbdsh(PathBuf);

impl Fio {
    /// The tool of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        find(&["fio"], "fio").map(Self)
    }

    /// Writes `size` bytes at random places of the disk at `uri` and reads them back, many requests at
    /// once; in `dir`.
    ///
    /// # Errors
    /// What it complained of, as when it reads something else.
    pub fn verify(&self, dir: &Path, uri: &str, size: usize) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.current_dir(dir).args([
            "--name=verify",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--bsrange=512-64k",
            "--bs_unaligned",
            "--norandommap",
            "--iodepth=32",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--serialize_overlap=1",
            "--fsync=64",
        ]);
        command.args([format!("--uri={uri}"), format!("--size={size}")]);
        run(&mut command).ok().map(drop)
    }
}

impl Nbdsh {
    /// The tool of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        find(&["nbdsh"], "python3-libnbd").map(Self)
    }

    /// What `script` prints, which finds the disk at `uri` as `h`.
    ///
    /// # Errors
    /// What it complained of.
    pub fn run(&self, uri: &str, script: &str) -> Result<String, String> {
        // The package serves the system's own interpreter, whatever else comes first in the path.
        let path = "/usr/bin:/bin";
        let mut command = Command::new(&self.0);
        command.env("PATH", path).args(["-u", uri, "-c", script]);
        let stdout = run(&mut command).ok()?;
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}
