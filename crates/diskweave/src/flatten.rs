//! A chain written out as one image.

use std::path::Path;

use blockdev_chain::Chain;
use blockdev_core::Result;

use crate::{ConvertOptions, NewImage, Progress, convert};

/// Writes what `disk` reads to the file `destination`, as an image that needs no other: [`convert`] with its
/// defaults. The chain stays as it is; [`stream`](crate::stream()) makes its top such an image in place.
///
/// # Errors
/// As [`convert`].
///
/// # Example
///
/// ```no_run
/// use diskweave::core::locate::ChainPolicy;
/// use diskweave::{NewImage, NoProgress, OpenDisk, flatten, qcow2};
///
/// let disk = OpenDisk::new().policy(ChainPolicy::Beneath("images".into())).open("images/child.vhdx")?;
/// let image = NewImage::Qcow2(qcow2::CreateOptions::new(0));
/// flatten(&disk, "whole.qcow2", &image, &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn flatten(
    disk: &Chain,
    destination: impl AsRef<Path>,
    image: &NewImage,
    progress: &dyn Progress,
) -> Result<()> {
    convert(
        disk,
        destination,
        image,
        &ConvertOptions::default(),
        progress,
    )
}
