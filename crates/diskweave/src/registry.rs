//! The formats that this build knows: the one place that asks about features.

use blockdev_core::{FormatDriver, RawDriver, Result, Storage};

use crate::foreign;

/// Every format, raw last.
static DRIVERS: &[&dyn FormatDriver] = &[
    #[cfg(feature = "vhdx")]
    &vhdx_format::VhdxDriver,
    #[cfg(feature = "qcow2")]
    &qcow2_format::Qcow2Driver,
    &RawDriver,
];

/// Every format this build knows.
#[must_use]
pub fn drivers() -> &'static [&'static dyn FormatDriver] {
    DRIVERS
}

/// The format called `name`: `raw`, `vhdx`, `qcow2`.
#[must_use]
pub fn driver(name: &str) -> Option<&'static dyn FormatDriver> {
    DRIVERS.iter().find(|driver| driver.name() == name).copied()
}

/// The format whose mark the file bears; `None` when it bears none, which makes it no raw image:
/// that is for the caller to say.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn probe(storage: &dyn Storage) -> Result<Option<&'static dyn FormatDriver>> {
    blockdev_core::probe(storage, DRIVERS)
}

/// Names the format that a disk beginning with `head` would be taken for, by this library or by
/// another program.
pub(crate) fn taken_for(head: &[u8]) -> Option<&'static str> {
    let input = blockdev_core::ProbeInput {
        head,
        tail: &[],
        len: head.len() as u64,
    };
    DRIVERS
        .iter()
        .find(|driver| driver.probe(&input))
        .map(|driver| driver.name())
        .or_else(|| foreign::mark_in(head))
}
