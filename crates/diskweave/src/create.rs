//! Making an image that holds nothing yet.

use std::path::Path;

use blockdev_chain::Chain;
use blockdev_core::{BlockDevice, Error, ErrorKind, Result};

use crate::NewImage;
use crate::convert::new_files;

/// Makes the file `destination` an image that holds nothing: a disk of zeros, or one that reads as
/// `backing`, the disk that the backing file which `image` names is the top of. `size` is that of the
/// disk in bytes, rounded up to whole sectors; if not given, it is that of `backing`.
///
/// A regular file at `destination` is replaced when the new one is whole.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] with an option that the format does not allow, when neither size nor
/// backing is given, and when the destination is one of the files that `backing` is read from;
/// [`ErrorKind::Unsupported`] when it is no regular file, [`ErrorKind::Locked`] when another process
/// uses it; [`ErrorKind::NoSpace`], [`ErrorKind::Io`]. The destination is then as it was.
///
/// # Example
///
/// ```no_run
/// use diskweave::{NewImage, create};
///
/// let image = NewImage::Qcow2(diskweave::qcow2::CreateOptions::new(0));
/// create("disk.qcow2", &image, Some(64 << 30), None)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn create(
    destination: impl AsRef<Path>,
    image: &NewImage,
    size: Option<u64>,
    backing: Option<&Chain>,
) -> Result<()> {
    let Some(size) = size.or(backing.map(BlockDevice::size)) else {
        let text = "the size of the new disk is not said";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    };
    let read: Vec<&Chain> = backing.into_iter().collect();
    let data_file = image.data_file();
    new_files(&read, destination.as_ref(), data_file, |files| {
        image.empty(size, files)
    })
}
