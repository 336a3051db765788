//! How much space an image will take, before it is made.

use crate::{BlockDevice, ExtentKind, Extents, Result, align_down, align_up};

/// Lengths of the file that an image of some disk takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// Enough for the image as it is made.
    pub required: u64,
    /// Enough for the image once every byte of the disk has been written to.
    pub fully_allocated: u64,
}

/// Counts the units of `unit` bytes, a power of two, in which `device` stores anything, by its own
/// word: stored zeros count, what is known to be zeros does not.
///
/// # Errors
/// Those of [`block_status`](BlockDevice::block_status);
/// [`NeedsParent`](crate::ErrorKind::NeedsParent) where a parent is missing that might store
/// something.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{LoneLayer, MemoryStorage, RawLayer, stored_units};
///
/// let storage = Arc::new(MemoryStorage::from(vec![7; 100_000]));
/// let disk = LoneLayer::new(Box::new(RawLayer::open(storage)?));
/// assert_eq!(stored_units(&disk, 65_536)?, 2);
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub fn stored_units(device: &dyn BlockDevice, unit: u64) -> Result<u64> {
    let mut count = 0;
    // Everything before this byte is counted.
    let mut counted = 0;
    for run in Extents::new(device, 0, device.size()) {
        let (start, extent) = run?;
        match extent.kind {
            ExtentKind::Zero => {}
            ExtentKind::Absent => device.read_at(&mut [0], start)?,
            ExtentKind::Data | ExtentKind::Compressed => {
                let from = align_down(start, unit).max(counted);
                let end = start + extent.len;
                let to = align_up(end, unit).unwrap_or(end);
                count += to.saturating_sub(from).div_ceil(unit);
                counted = counted.max(to);
            }
        }
    }
    Ok(count)
}
