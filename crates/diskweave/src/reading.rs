//! What an image is of and over, in one call.

use std::path::Path;

use blockdev_core::locate::ChainPolicy;
use blockdev_core::{BlockDevice, FileRef, FileRole, Result};

use crate::{ImageInfo, OpenDisk};

/// Size in bytes of the disk in the image at `path`. No file that it names is opened.
///
/// # Errors
/// As [`backing_of`].
pub fn virtual_size(path: impl AsRef<Path>, open: &OpenDisk) -> Result<u64> {
    Ok(open.clone().policy(ChainPolicy::Deny).open(path)?.size())
}

/// The parent (backing file) of the image at `path`, as the image names it; `None` where it has none,
/// as raw images have. No file that it names is opened.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io), caused by a `NotFound` where there is no such file;
/// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) for one that bears a format's mark and is too short
/// or makes no sense; [`NotRecognised`](blockdev_core::ErrorKind::NotRecognised) for one that is said
/// to be of a format ([`OpenDisk::format`]) and does not bear its mark;
/// [`Locked`](blockdev_core::ErrorKind::Locked) where another process writes to it.
///
/// # Example
///
/// ```no_run
/// use diskweave::{OpenDisk, backing_of};
///
/// match backing_of("disk.qcow2", &OpenDisk::new())? {
///     Some(parent) => println!("over {:?}, a {:?}", parent.names, parent.format),
///     None => println!("stands alone"),
/// }
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn backing_of(path: impl AsRef<Path>, open: &OpenDisk) -> Result<Option<FileRef>> {
    let chain = open.clone().policy(ChainPolicy::Deny).open(path)?;
    let mut refs = chain.top().file_refs().iter();
    Ok(refs.find(|file| file.role == FileRole::Parent).cloned())
}

/// Tells about every image below the one at `path`, its parent first, as far as the policy of `open`
/// lets them be opened, and no deeper than its limit.
///
/// # Errors
/// As [`OpenDisk::open`] and [`ImageInfo::of_chain`].
pub fn parents_of(path: impl AsRef<Path>, open: &OpenDisk) -> Result<Vec<ImageInfo>> {
    let mut images = ImageInfo::of_chain(&open.open(path)?)?;
    images.remove(0);
    Ok(images)
}
