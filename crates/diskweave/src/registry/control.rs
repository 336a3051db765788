//! What changes an image as a whole.

use std::sync::Arc;

use blockdev_chain::Chain;
#[cfg(any(feature = "qcow2", feature = "vhdx"))]
use blockdev_core::FormatDriver;
use blockdev_core::{Below, CheckReport, Error, ErrorKind, Layer, OpenOptions, Result, Storage};

use super::not_by;
use crate::open::OpenFile;
use crate::{Amend, Progress};

/// Makes `disk`, opened for writing, `size` bytes long. New bytes read as zeros; bytes beyond a new
/// end are lost. Parents are not changed.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for formats that cannot do it,
/// [`ReadOnly`](ErrorKind::ReadOnly), and those of the format.
pub fn resize(disk: &mut Chain, size: u64) -> Result<()> {
    let (top, below, below_size) = disk.top_mut();
    resize_layer(top, size, &below, below_size)
}

/// The same of a layer that is over `below`, which is so many bytes long.
pub(crate) fn resize_layer(
    layer: &mut dyn Layer,
    size: u64,
    below: &dyn Below,
    below_size: u64,
) -> Result<()> {
    let format = layer.info().format;
    let layer = layer.as_any_mut();
    if let Some(raw) = layer.downcast_mut::<blockdev_core::RawLayer>() {
        return raw.resize(size);
    }
    #[cfg(feature = "qcow2")]
    if let Some(image) = layer.downcast_mut::<qcow2_format::Qcow2Image>() {
        return image.resize(size, below, below_size);
    }
    #[cfg(feature = "vhdx")]
    if let Some(image) = layer.downcast_mut::<vhdx_format::VhdxImage>() {
        return image.resize(size, below_size);
    }
    let _ = (below, below_size);
    Err(not_by(format, "another size"))
}

/// Makes the image in `file`, opened for writing, what `change` says.
pub(crate) fn amend(file: OpenFile, options: &OpenOptions, change: &Amend) -> Result<()> {
    let format = file.driver.name();
    #[cfg(feature = "qcow2")]
    if let Amend::Qcow2(change) = change
        && format == qcow2_format::Qcow2Driver.name()
    {
        return qcow2_format::amend(file.storage, options, change);
    }
    #[cfg(feature = "vhdx")]
    if let Amend::Vhdx { fixed } = change
        && format == vhdx_format::VhdxDriver.name()
    {
        let mut image = vhdx_format::VhdxImage::open(file.storage, options)?;
        if *fixed {
            image.make_fixed()?;
        } else {
            image.make_dynamic()?;
        }
        return Box::new(image).close();
    }
    let _ = (file.storage, options);
    let text = format!("{change:?} is not for an image of format {format}");
    Err(Error::new(ErrorKind::InvalidInput, text))
}

/// What compacting an image came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Blocks that held nothing but zeros, and are without space now.
    pub dropped_blocks: u64,
    /// Blocks that lie elsewhere in the file now.
    pub moved_blocks: u64,
    /// Length of the file in bytes before.
    pub old_length: u64,
    /// Length of the file in bytes now.
    pub new_length: u64,
}

/// Makes the file of the top image of `disk`, opened for writing, as short as it can be, in place;
/// what the disk reads stays the same.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for formats that are not compacted,
/// [`InvalidInput`](ErrorKind::InvalidInput) when `progress` cancels,
/// [`ReadOnly`](ErrorKind::ReadOnly), and those of the format.
pub fn compact(disk: &mut Chain, progress: &dyn Progress) -> Result<Compacted> {
    let (top, ..) = disk.top_mut();
    let format = top.info().format;
    #[cfg(feature = "vhdx")]
    if let Some(image) = top.as_any_mut().downcast_mut::<vhdx_format::VhdxImage>() {
        let done = image.compact(progress)?;
        return Ok(Compacted {
            dropped_blocks: done.dropped_blocks,
            moved_blocks: done.moved_blocks,
            old_length: done.old_length,
            new_length: done.new_length,
        });
    }
    let _ = progress;
    Err(not_by(format, "compacting"))
}

/// What is done with an internal snapshot, by its name; one that is there already also by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotChange {
    /// Keep the disk as it is now.
    Create(String),
    /// Make the disk what it was.
    Apply(String),
    /// Forget it.
    Delete(String),
}

/// Takes, applies or deletes an internal snapshot of the top image of `disk`, opened for writing.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for formats that have none,
/// [`InvalidInput`](ErrorKind::InvalidInput) for a name that is taken or unknown,
/// [`ReadOnly`](ErrorKind::ReadOnly), and those of the format.
pub fn change_snapshot(disk: &mut Chain, change: &SnapshotChange) -> Result<()> {
    let (top, ..) = disk.top_mut();
    let format = top.info().format;
    #[cfg(feature = "qcow2")]
    if let Some(image) = top.as_any_mut().downcast_mut::<qcow2_format::Qcow2Image>() {
        return match change {
            SnapshotChange::Create(name) => {
                let new = qcow2_format::NewSnapshot::now(name);
                image.create_snapshot(&new).map(drop)
            }
            SnapshotChange::Apply(name) => image.apply_snapshot(name),
            SnapshotChange::Delete(name) => image.delete_snapshot(name),
        };
    }
    let _ = change;
    Err(not_by(format, "an internal snapshot"))
}

/// Repairs what can be repaired without a guess; `leaks_only` leaves everything else as it is. Gives
/// the checks before and after, and what was made right as far as the format tells.
pub(crate) fn repair(
    format: &str,
    storage: Arc<dyn Storage>,
    options: &OpenOptions,
    leaks_only: bool,
) -> Result<(CheckReport, CheckReport, CheckReport)> {
    #[cfg(feature = "qcow2")]
    if format == qcow2_format::Qcow2Driver.name() {
        let what = if leaks_only {
            qcow2_format::Repair::Leaks
        } else {
            qcow2_format::Repair::All
        };
        let repaired = qcow2_format::repair(storage, options, what)?;
        return Ok((repaired.before, repaired.after, repaired.mended));
    }
    #[cfg(feature = "vhdx")]
    if format == vhdx_format::VhdxDriver.name() {
        if leaks_only {
            // Every block that is not in the BAT is free, so nothing leaks.
            let report = vhdx_format::check(storage, options)?;
            return Ok((report.clone(), report, CheckReport::default()));
        }
        let repaired = vhdx_format::repair(storage, options)?;
        return Ok((repaired.before, repaired.after, CheckReport::default()));
    }
    let _ = (storage, options, leaks_only);
    Err(not_by(format, "repair"))
}
