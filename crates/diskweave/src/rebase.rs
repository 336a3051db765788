//! Another disk below an image, which reads the same over it.
//!
//! ```text
//!   1   what the image has from its parents and would not have from the new ones is written into it
//!   ── barrier ──
//!   2   it refers to the new parent       at one instant
//! ```
//!
//! Before 2 the image is over the old parents, after it over the new ones, and reads the same over either.
//! An interrupted run has left some of 1, which another finds there and does not do again.

use std::path::{Path, PathBuf};

use blockdev_chain::{Chain, check_parent};
use blockdev_core::locate::Opener;
use blockdev_core::{Error, ErrorKind, FileRef, FileRole, Layer, Result};

use crate::names::ParentName;
use crate::open::OpenFile;
use crate::relink::refuse_ring;
use crate::{OpenDisk, Progress, names, registry};

/// Puts the disk `parent`, which is called `name`, below the image at `child` in place of what is there now;
/// with no parent the image stands alone then. The disk that it is the top of reads the same. `name` is an
/// absolute path, or starts from the directory of the child, or is what the opener of `open` knows as no path
/// of the host. Gives how many bytes had to be copied.
///
/// Old and new parents may be of any format. `open` says how the old ones are found and opened.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a parent that is a child of this image, when the format
/// cannot say `name`, and when `progress` cancels; [`NeedsParent`](ErrorKind::NeedsParent) and others where
/// the old parents cannot be opened ([`relink`](crate::relink()) asks for none);
/// [`ParentMismatch`](ErrorKind::ParentMismatch) for a parent of other sectors;
/// [`Unsupported`](ErrorKind::Unsupported) for formats without parents, and for an image with internal
/// snapshots, which would not read the same; and those of reading and writing. Until the image refers to the new parent it refers to the old one.
///
/// # Example
///
/// ```no_run
/// use diskweave::core::locate::ChainPolicy;
/// use diskweave::{NoProgress, OpenDisk, rebase};
///
/// let open = OpenDisk::new().policy(ChainPolicy::Beneath("images".into()));
/// let base = open.open("images/new-base.vhdx")?;
/// rebase("images/child.qcow2", &open, Some((&base, "new-base.vhdx".as_ref())), &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn rebase(
    child: impl AsRef<Path>,
    open: &OpenDisk,
    parent: Option<(&Chain, &Path)>,
    progress: &dyn Progress,
) -> Result<u64> {
    let path = child.as_ref();
    if let Some((parent, _)) = parent {
        refuse_ring(path, open, parent)?;
    }
    let open = open.clone().writable();
    let opener = open.current_opener();
    let (file, chain) = open_child(path, &open)?;
    if let Some((_, name)) = parent {
        registry::check_name(file.driver.name(), ParentName::of(name, &*opener))?;
    }
    if parent.is_some() || chain.layer_count() > 1 {
        registry::refuse_snapshots(chain.top())?;
    }
    if let Some((parent, _)) = parent {
        check_sectors(chain.top(), parent.top())?;
    }
    let taken = chain.pull(parent.map(|(parent, _)| parent.whole()), progress)?;
    match parent {
        Some((parent, name)) => {
            chain.close()?;
            let name = ParentName::of(name, &*opener);
            registry::set_parent(file, open.core_options(), parent, name)?;
        }
        None if chain.layer_count() == 1 => chain.close()?,
        None => registry::forget_parent(chain, file, open.core_options())?,
    }
    Ok(taken)
}

/// Has the image at `child` hold what it has from its parents, down to `base`, one of them, and refer to that
/// one; or what it has from all of them, and to none. The disk reads the same. Gives how many bytes had to be
/// copied.
///
/// # Errors
/// As [`rebase`], and [`InvalidInput`](ErrorKind::InvalidInput) when `base` is none of the parents.
///
/// # Example
///
/// ```no_run
/// use diskweave::core::locate::ChainPolicy;
/// use diskweave::{NoProgress, OpenDisk, stream};
///
/// let open = OpenDisk::new().policy(ChainPolicy::Beneath("images".into()));
/// stream("images/child.qcow2", &open, None, &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn stream(
    child: impl AsRef<Path>,
    open: &OpenDisk,
    base: Option<&Path>,
    progress: &dyn Progress,
) -> Result<u64> {
    let path = child.as_ref();
    let Some(base) = base else {
        return rebase(path, open, None, progress);
    };
    let open = open.clone().writable();
    let opener = open.current_opener();
    let (file, chain) = open_child(path, &open)?;
    let identity = open.identity_of(base)?;
    let depth = identity.and_then(|identity| chain.depth_of(identity));
    let Some(depth) = depth.filter(|depth| *depth > 0) else {
        let text = format!("{} is no parent of the image", base.display());
        return Err(Error::new(ErrorKind::InvalidInput, text));
    };
    let parent = if depth > 1 {
        registry::refuse_snapshots(chain.top())?;
        let found = Found::at(&chain, depth)?;
        let name = found.name_for(path, &*opener)?;
        registry::check_name(file.driver.name(), ParentName::of(&name, &*opener))?;
        Some((found, name))
    } else {
        None
    };
    if let Some(layer) = chain.layer(depth) {
        check_sectors(chain.top(), layer)?;
    }
    let taken = chain.pull(chain.view(depth), progress)?;
    if let Some((found, name)) = parent {
        chain.close()?;
        let parent = found.open(&open)?;
        let name = ParentName::of(&name, &*opener);
        registry::set_parent(file, open.core_options(), &parent, name)?;
    }
    Ok(taken)
}

/// Refuses a parent of other sectors than the format of `child` can have below it.
pub(crate) fn check_sectors(child: &dyn Layer, parent: &dyn Layer) -> Result<()> {
    let sectors = FileRef {
        role: FileRole::Parent,
        names: Vec::new(),
        format: None,
        expected: Vec::new(),
        logical_sector_size: Some(child.info().logical_sector_size),
    };
    check_parent(&sectors, child.info(), parent, false)
}

fn open_child(path: &Path, open: &OpenDisk) -> Result<(OpenFile, Chain)> {
    let file = open.open_file(path)?;
    let chain = open.open_on(&file)?;
    Ok((file, chain))
}

/// A layer of a chain that was found by a name, so that it can be found and named again.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    format: &'static str,
    /// It is called by an absolute name.
    is_absolute: bool,
}

impl Found {
    /// The layer at `depth`, which is not the top.
    pub(crate) fn at(chain: &Chain, depth: u32) -> Result<Self> {
        let link = chain.links().find(|link| link.depth == depth);
        let Some((link, path)) = link.and_then(|link| Some((link.clone(), link.path?))) else {
            let text = "a parent that was handed over has no path by which it can be named";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        let is_absolute = match link.found {
            blockdev_chain::FoundBy::Name(name) => {
                name.path.as_ref().is_some_and(|path| path.has_root())
            }
            _ => false,
        };
        Ok(Self {
            path: path.to_path_buf(),
            format: link.format,
            is_absolute,
        })
    }

    /// The name by which an image at `child` is to call it: as the image above it does, absolute or from its
    /// own directory; what `opener` knows as no path of the host, as it is.
    pub(crate) fn name_for(&self, child: &Path, opener: &dyn Opener) -> Result<PathBuf> {
        if opener.is_remote(&self.path) {
            return Ok(self.path.clone());
        }
        let absolute = std::fs::canonicalize(&self.path)?;
        if opener.is_remote(child) {
            return Ok(absolute);
        }
        let names = names::of(&absolute, child)?;
        Ok(match names.relative {
            Some(relative) if !self.is_absolute => relative,
            _ => names.absolute,
        })
    }

    /// Opens it again, with its own parents, for reading.
    pub(crate) fn open(&self, open: &OpenDisk) -> Result<Chain> {
        open.clone()
            .format(self.format)
            .open_layers(&self.path, &[])
    }
}
