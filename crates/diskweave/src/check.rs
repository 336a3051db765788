//! Checking one image.

use std::path::Path;

use blockdev_core::{CheckReport, Result};

use crate::{OpenDisk, registry};

/// A check of the image at a path: its format, and the findings where it has any to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Name of the image's format.
    pub format: &'static str,
    /// What was found; `None` for formats that have nothing to check.
    pub report: Option<CheckReport>,
}

/// What a repair found, and what it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Name of the image's format.
    pub format: &'static str,
    /// The check before.
    pub before: CheckReport,
    /// The check after.
    pub after: CheckReport,
    /// What was made right, as far as the format tells.
    pub mended: CheckReport,
}

/// Repairs the image at `path`, by itself, where that takes no guess; with `leaks_only` nothing but
/// space to which nothing refers.
///
/// # Errors
/// [`Unsupported`](blockdev_core::ErrorKind::Unsupported) for formats that are not repaired, as
/// [`check`], and those of writing. What could not be repaired is in [`Repaired::after`].
pub fn repair(path: impl AsRef<Path>, open: &OpenDisk, leaks_only: bool) -> Result<Repaired> {
    let writable = open.clone().writable();
    let file = writable.open_file(path.as_ref())?;
    let format = file.driver.name();
    let options = writable.core_options();
    let (before, after, mended) = registry::repair(format, file.storage, options, leaks_only)?;
    Ok(Repaired {
        format,
        before,
        after,
        mended,
    })
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
