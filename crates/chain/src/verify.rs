//! Is a file that was found the parent that was meant?

use blockdev_core::{
    DeviceInfo, Error, ErrorKind, FileId, FileRef, FormatDriver, Layer, Result, Storage,
    file_fingerprint, probe,
};

use crate::link::Link;

/// The file is none of the chain's own, under whatever name.
pub(crate) fn no_ring(links: &[Link], identity: Option<FileId>) -> Result<()> {
    let Some(identity) = identity else {
        // A storage without identity can only be stopped by the limit on depth.
        return Ok(());
    };
    match links.iter().find(|link| link.identity == Some(identity)) {
        None => Ok(()),
        Some(link) => Err(Error::new(
            ErrorKind::Corrupt,
            format!("the images form a ring: {link} is below itself"),
        )),
    }
}

/// The file does not bear another format's mark and lack the declared one's.
pub(crate) fn no_contradiction(
    storage: &dyn Storage,
    declared: &dyn FormatDriver,
    drivers: &[&dyn FormatDriver],
) -> Result<()> {
    if probe(storage, &[declared])?.is_some() {
        return Ok(());
    }
    match probe(storage, drivers)? {
        None => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::NotRecognised,
            format!(
                "declared to be {}, but it looks like {}",
                declared.name(),
                other.name()
            ),
        )),
    }
}

/// Is `parent` what the image described by `child` refers to by `reference`: in content, unless
/// `verify_linkage` is false, and in the size of its sectors?
///
/// # Errors
/// [`ParentMismatch`](ErrorKind::ParentMismatch) when it is not, and those of finding out.
pub fn check_parent(
    reference: &FileRef,
    child: &DeviceInfo,
    parent: &dyn Layer,
    verify_linkage: bool,
) -> Result<()> {
    if verify_linkage {
        linkage(reference, parent)?;
    }
    sector_size(reference, child, parent.info())
}

/// The content is what the child was made from: by the identity that the parent's format keeps of it,
/// or else by the fingerprint of its file.
fn linkage(reference: &FileRef, parent: &dyn Layer) -> Result<()> {
    let Some(wanted) = reference.expected.first() else {
        return Ok(());
    };
    let kept = parent.content_id();
    let id = match kept {
        None => file_fingerprint(parent)?,
        kept => kept,
    };
    let format = parent.info().format;
    let message = match id {
        Some(id) if reference.expected.contains(&id) => return Ok(()),
        Some(id) if kept.is_some() => {
            format!("its content is {id}, the child was made from {wanted}")
        }
        Some(id) => format!(
            "the {format} file was written to, or is another: its fingerprint is {id}, the child was \
             made from {wanted}"
        ),
        None => {
            format!("{format} images tell no content identity, the child was made from {wanted}")
        }
    };
    Err(Error::new(ErrorKind::ParentMismatch, message))
}

/// Both disks have the sector size that the child's format demands.
///
/// A format that gives a parent's sector size speaks of parents of its own kind; others (raw) have
/// no sector size of their own, and report a customary one.
fn sector_size(reference: &FileRef, child: &DeviceInfo, parent: &DeviceInfo) -> Result<()> {
    match reference.logical_sector_size {
        Some(wanted) if child.format == parent.format && wanted != parent.logical_sector_size => {
            Err(Error::new(
                ErrorKind::ParentMismatch,
                format!(
                    "its logical sectors are {} bytes, the child's {wanted}",
                    parent.logical_sector_size
                ),
            ))
        }
        _ => Ok(()),
    }
}
