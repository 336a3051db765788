//! Whoever is compared, behind one trait.

pub(crate) mod imago;
mod ours;
mod plain;
mod qcow2_rs;
pub(crate) mod vhdx_rs;
mod virtdisk;

use crate::Outcome;
use crate::place::Image;

pub(crate) use ours::DRIVERS;

/// An open disk.
pub(crate) trait Disk {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome;
    fn write(&self, buf: &[u8], offset: u64) -> Outcome;
    /// Returns when everything written is stable.
    fn flush(&self) -> Outcome;
}

/// How many threads may use a disk.
pub(crate) enum Opened<'a> {
    Shared(&'a (dyn Disk + Sync)),
    Alone(&'a dyn Disk),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Qcow2,
    Vhdx,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Vhdx => "vhdx",
        }
    }
}

/// One who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Ours,
    Imago,
    Qcow2Rs,
    VhdxRs,
    Virtdisk,
    QemuImg,
    /// The same requests to a plain file: what the host allows.
    Plain,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Imago => "imago",
            Self::Qcow2Rs => "qcow2-rs",
            Self::VhdxRs => "vhdx-rs",
            Self::Virtdisk => "virtdisk",
            Self::QemuImg => "qemu-img",
            Self::Plain => "plain",
        }
    }

    /// True when several threads may use one open disk.
    pub(crate) fn is_shared(self) -> bool {
        !matches!(self, Self::Qcow2Rs | Self::VhdxRs)
    }

    /// Opens `image`, for writing unless it is only read, and closes it when `work` has done with it.
    pub(crate) fn with<T>(
        self,
        format: Format,
        image: &Image,
        only_reads: bool,
        work: impl FnOnce(Opened<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        match self {
            Self::Ours => work(Opened::Shared(&ours::open(format, image, only_reads)?)),
            Self::Imago => work(Opened::Shared(&imago::open(&image.path)?)),
            Self::Qcow2Rs => work(Opened::Alone(&qcow2_rs::open(&image.path)?)),
            Self::VhdxRs => vhdx_rs::with(image, only_reads, |disk| work(Opened::Alone(disk))),
            Self::Virtdisk if only_reads => work(Opened::Shared(&virtdisk::reader(format, image)?)),
            Self::Virtdisk => work(Opened::Shared(&virtdisk::writer(format, image)?)),
            Self::QemuImg => Err("qemu-img is a program of its own".into()),
            Self::Plain => work(Opened::Shared(&plain::open(&image.path)?)),
        }
    }
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
