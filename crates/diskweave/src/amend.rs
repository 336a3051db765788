//! What an image is, changed without touching what its disk reads.

use std::path::Path;

use blockdev_core::Result;

use crate::{OpenDisk, registry};

/// What is to be changed of an image, of one of the formats that can be changed so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Amend {
    /// Version, refcounts and names of a qcow2.
    #[cfg(feature = "qcow2")]
    Qcow2(qcow2_format::Amendment),
    /// Whether a VHDX without parent has all its space set aside.
    #[cfg(feature = "vhdx")]
    Vhdx {
        /// Fixed, or dynamic.
        fixed: bool,
    },
}

/// Changes the image at `path`, by itself: no other file is opened, and names that it is given are taken as
/// they are ([`relink`](crate::relink()) looks at what a parent's leads to). A crash leaves it as it was or with some of
/// the changes made, each of them whole.
///
/// # Errors
/// [`InvalidInput`](blockdev_core::ErrorKind::InvalidInput) for an image of another format and for what this one
/// cannot be, and those of opening and writing.
///
/// # Example
///
/// ```no_run
/// use diskweave::{Amend, OpenDisk, amend, qcow2};
///
/// let mut change = qcow2::Amendment::default();
/// change.refcount_order = Some(6);
/// amend("disk.qcow2", &OpenDisk::new(), &Amend::Qcow2(change))?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn amend(path: impl AsRef<Path>, open: &OpenDisk, change: &Amend) -> Result<()> {
    let open = open.clone().writable();
    let file = open.open_file(path.as_ref())?;
    registry::amend(file, open.core_options(), change)
}
