//! A file of differences, written into a disk.

use std::path::Path;

use blockdev_chain::check_parent;
use blockdev_core::{BlockDevice, Error, ErrorKind, Result};

use crate::relink::parent_of;
use crate::{OpenDisk, Progress, registry};

/// Writes what the image at `difference` holds, and nothing of its parents, into the disk at `path`, which
/// is made longer where it is too short; it is stable when this returns. Gives how many bytes were written.
///
/// Such a file is any child: [`convert_over`](crate::convert_over) makes one of two disks. The disk must be
/// one that it can be the child of: a VHDX knows its parent by the content, which must be that of the disk,
/// unless `open` does not ask for that ([`OpenDisk::verify_linkage`]); a qcow2 knows nothing of the kind.
///
/// An interrupted run leaves a disk that is in part what it was and in part what it is to be; the image
/// `difference` over it reads as what it is to be all along (a VHDX does not know it again by itself, though:
/// [`OpenDisk::verify_linkage`]). Another run finishes it.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for an image without parent, and when `progress` cancels;
/// [`ParentMismatch`](ErrorKind::ParentMismatch) for another disk; those of opening, reading and writing.
///
/// # Example
///
/// ```no_run
/// use diskweave::{NoProgress, OpenDisk, apply};
///
/// apply("monday.qcow2", &OpenDisk::new(), "copy.raw", &OpenDisk::new().format("raw"), &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn apply(
    difference: impl AsRef<Path>,
    open_difference: &OpenDisk,
    path: impl AsRef<Path>,
    open: &OpenDisk,
    progress: &dyn Progress,
) -> Result<u64> {
    let (difference, path) = (difference.as_ref(), path.as_ref());
    if open_difference.identity_of(difference)?.is_some_and(|own| {
        let disk = open.identity_of(path).ok().flatten();
        disk == Some(own)
    }) {
        let text = "an image is not applied to itself";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let difference = open_difference.open_top(difference)?;
    let reference = parent_of(&*difference)?;
    let mut disk = open.clone().writable().open(path)?;
    let (info, verify) = (difference.info(), open.verifies_linkage());
    if !(verify && registry::was_applied(&*difference, disk.top())) {
        check_parent(reference, info, disk.top(), verify)?;
    }
    registry::announce_applying(&*difference, &mut disk)?;
    if disk.size() < info.size {
        registry::resize(&mut disk, info.size)?;
    }
    let chain = disk.under(difference);
    let written = chain.merge(0, 1, progress)?;
    chain.close()?;
    Ok(written)
}
