//! Checking one image.

use std::path::Path;

use blockdev_core::{CheckReport, Result};

use crate::OpenDisk;

/// A check of the image at a path: its format, and the findings where it has any to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Name of the image's format.
    pub format: &'static str,
    /// What was found; `None` for formats that have nothing to check.
    pub report: Option<CheckReport>,
}

/// Checks the image at `path`, by itself and without changing it.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io), [`Locked`](blockdev_core::ErrorKind::Locked),
/// [`NotRecognised`](blockdev_core::ErrorKind::NotRecognised); damage is in the report.
///
/// # Example
///
/// ```no_run
/// use diskweave::{OpenDisk, check};
///
/// let checked = check("disk.vhdx", &OpenDisk::new())?;
/// let damaged = checked.report.is_some_and(|report| report.corruptions > 0);
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn check(path: impl AsRef<Path>, open: &OpenDisk) -> Result<Checked> {
    let file = open.open_file(path.as_ref())?;
    let report = file.driver.check(file.storage, open.core_options())?;
    Ok(Checked {
        format: file.driver.name(),
        report,
    })
}
