//! Whoever is compared, behind one pair of traits.

mod imago;
mod ours;
mod plain;
mod qcow2_rs;

use std::path::Path;

use crate::Outcome;

/// An open disk.
pub(crate) trait Disk {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome;
    fn write(&self, buf: &[u8], offset: u64) -> Outcome;
    /// Returns when everything written is stable.
    fn flush(&self) -> Outcome;
}

/// How many threads may use a disk.
pub(crate) enum Opened {
    Shared(Box<dyn Disk + Sync>),
    Alone(Box<dyn Disk>),
}

/// One who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Ours,
    Imago,
    Qcow2Rs,
    QemuImg,
    /// The same requests to a plain file: what the host allows.
    Plain,
}

pub(crate) const ALL: [Engine; 5] = [
    Engine::Ours,
    Engine::Imago,
    Engine::Qcow2Rs,
    Engine::QemuImg,
    Engine::Plain,
];

impl Engine {
    /// Opens the file at `path` for reading and writing; `None` for who is a program of its own.
    pub(crate) fn open(self, path: &Path) -> Outcome<Option<Opened>> {
        let opened = match self {
            Self::Ours => Opened::Shared(Box::new(ours::open(path)?)),
            Self::Imago => Opened::Shared(Box::new(imago::open(path)?)),
            Self::Qcow2Rs => Opened::Alone(Box::new(qcow2_rs::open(path)?)),
            Self::QemuImg => return Ok(None),
            Self::Plain => Opened::Shared(Box::new(plain::open(path)?)),
        };
        Ok(Some(opened))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
