//! libnbd's tools, and servers: clients and servers that nobody here wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{find, run};

/// `nbdinfo` and `nbdcopy`.
#[derive(Debug, Clone)]
pub struct NbdTools {
    info: PathBuf,
    copy: PathBuf,
}

/// What names the export `export` of the server at the unix socket `socket`.
#[must_use]
pub fn nbd_uri(socket: &Path, export: &str) -> String {
    format!("nbd+unix:///{export}?socket={}", socket.display())
}

/// A server of NBD that nobody here wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NbdServer {
    /// nbdkit.
    Nbdkit,
    /// QEMU's.
    QemuNbd,
}

impl NbdServer {
    /// The server of this machine.
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Self::Nbdkit => find(&["nbdkit"], "nbdkit"),
            Self::QemuNbd => find(&["qemu-nbd"], "qemu-utils"),
        }
    }
}

impl NbdTools {
    /// The tools of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        Some(Self {
            info: find(&["nbdinfo"], "libnbd-bin")?,
            copy: find(&["nbdcopy"], "libnbd-bin")?,
        })
    }

    /// What it tells of the exports at `uri`.
    ///
    /// # Errors
    /// What it complained of.
    pub fn info(&self, uri: &str) -> Result<Value, String> {
        self.json(&["--json", uri])
    }

    /// What it tells of all exports of the server at `uri`.
    ///
    /// # Errors
    /// What it complained of.
    pub fn list(&self, uri: &str) -> Result<Value, String> {
        self.json(&["--json", "--list", uri])
    }

    /// The runs of `context` at `uri`: start, length and status of each.
    ///
    /// # Errors
    /// What it complained of.
    ///
    /// # Panics
    /// When its answer is no list of runs.
    pub fn map(&self, context: &str, uri: &str) -> Result<Vec<(u64, u64, u64)>, String> {
        let map = self.json(&["--json", &format!("--map={context}"), uri])?;
        let runs = map.as_array().expect("a list of runs").iter();
        let number = |run: &Value, key| run[key].as_u64().expect("a number");
        Ok(runs
            .map(|run| {
                (
                    number(run, "offset"),
                    number(run, "length"),
                    number(run, "type"),
                )
            })
            .collect())
    }

    /// Copies `from` to `to`, each a file's path or an address, by several connections where it may.
    ///
    /// # Errors
    /// What it complained of.
    pub fn copy(&self, from: &str, to: &str) -> Result<(), String> {
        run(Command::new(&self.copy).args([from, to]))
            .ok()
            .map(drop)
    }

    fn json(&self, args: &[&str]) -> Result<Value, String> {
        let stdout = run(Command::new(&self.info).args(args)).ok()?;
        serde_json::from_slice(&stdout).map_err(|error| error.to_string())
    }
}
