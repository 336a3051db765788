//! A parent that has moved, or is another file with the same content.

use std::path::Path;

use blockdev_chain::{Chain, check_parent};
use blockdev_core::{Error, ErrorKind, FileRef, FileRole, Layer, Result};

use crate::names::ParentName;
use crate::{OpenDisk, registry};

/// Has the child at `child` refer to `parent`, which is called `name`: by an absolute path, or from the
/// directory of the child. A VHDX records both names, as far as it can say them, a qcow2 the one that
/// was given. Nothing is read or copied.
///
/// A VHDX knows the parent that it was made from, which must be this one, unless `open` does not ask for
/// that ([`OpenDisk::verify_linkage`]): then the child is linked to it as it is now, and the caller answers
/// for its content, as always for that of a qcow2's. No other file that the child names is opened.
///
/// # Errors
/// [`ParentMismatch`](ErrorKind::ParentMismatch) for another parent;
/// [`InvalidInput`](ErrorKind::InvalidInput) for an image without parent, for a parent that is below the
/// child already, being a child of it, and when the format cannot say `name`;
/// [`Unsupported`](ErrorKind::Unsupported) for formats without parents; and those of opening and writing.
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
    refuse_ring(path, open, parent)?;
    let writable = open.clone().writable();
    let file = writable.open_file(path)?;
    let options = writable.core_options();
    let child = file.driver.open(file.storage.clone(), options)?;
    let reference = parent_of(&*child)?;
    let verify = open.verifies_linkage();
    check_parent(reference, child.info(), parent.top(), verify)?;
    child.close()?;
    let opener = open.current_opener();
    let name = ParentName::of(name.as_ref(), &*opener);
    registry::set_parent(file, options, parent, name)
}

/// Has the image at `child` refer to no parent any more: what it had from there is zeros then. Nothing is
/// copied; [`rebase`](crate::rebase()) to no parent does that first.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for an image without parent, and those of opening and writing.
pub fn forget_parent(child: impl AsRef<Path>, open: &OpenDisk) -> Result<()> {
    let writable = open.clone().writable();
    let file = writable.open_file(child.as_ref())?;
    let options = writable.core_options();
    let child = file.driver.open(file.storage.clone(), options)?;
    parent_of(&*child)?;
    let nothing_below = Chain::from_layers(vec![child])?;
    registry::forget_parent(nothing_below, file, options)
}

/// The reference of an image to its parent.
pub(crate) fn parent_of(child: &dyn Layer) -> Result<&FileRef> {
    let mut refs = child.file_refs().iter();
    let parent = refs.find(|file| file.role == FileRole::Parent);
    parent.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the image refers to no parent"))
}

/// Refuses a parent that has the image at `child` among its own, and one that no name leads to: a snapshot.
pub(crate) fn refuse_ring(child: &Path, open: &OpenDisk, parent: &Chain) -> Result<()> {
    if !parent.is_of_file() {
        let text = "a parent is an image as it is now, not as a snapshot has it";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    match open.identity_of(child)? {
        Some(identity) if parent.depth_of(identity).is_some() => {
            let text = "an image cannot be its own parent, nor that of its parent";
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
        _ => Ok(()),
    }
}
