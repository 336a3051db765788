//! A parent that has moved, or is another file with the same content.

use std::path::Path;

use blockdev_chain::{Chain, check_parent};
use blockdev_core::{Error, ErrorKind, FileRole, Result};

use crate::{NewImage, OpenDisk, registry, vhdx_child};

/// Has the VHDX child at `child` refer to `parent`, which is called `name`: by an absolute path, or from
/// the directory of the child. Both names are recorded, as far as a VHDX can say them.
///
/// The parent must be the one that the child was made from, unless `open` does not ask for that
/// ([`OpenDisk::verify_linkage`]): then the child is linked to it as it is now, and the caller answers
/// for its content. No other file that the child names is opened.
///
/// # Errors
/// [`ParentMismatch`](ErrorKind::ParentMismatch) for another parent;
/// [`InvalidInput`](ErrorKind::InvalidInput) for an image without parent, and when a VHDX cannot say
/// `name`; [`Unsupported`](ErrorKind::Unsupported) for formats other than VHDX; and those of opening
/// and writing.
///
/// # Example
///
/// ```no_run
/// use diskweave::core::locate::ChainPolicy;
/// use diskweave::{OpenDisk, relink};
///
/// let parent = OpenDisk::new().policy(ChainPolicy::Any).open("moved/base.vhdx")?;
/// relink("images/child.vhdx", &OpenDisk::new(), &parent, "../moved/base.vhdx")?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn relink(
    child: impl AsRef<Path>,
    open: &OpenDisk,
    parent: &Chain,
    name: impl AsRef<Path>,
) -> Result<()> {
    let path = child.as_ref();
    let writable = open.clone().writable();
    let file = writable.open_file(path)?;
    let mut child = file.driver.open(file.storage, writable.core_options())?;
    let mut refs = child.file_refs().iter();
    let Some(reference) = refs.find(|file| file.role == FileRole::Parent) else {
        let text = "the image refers to no parent";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    };
    let verify = open.verifies_linkage();
    check_parent(reference, child.info(), parent.top(), verify)?;
    let link = NewImage::Vhdx(vhdx_child(parent, name, path)?);
    registry::relink(&mut *child, &link)?;
    child.close()
}
