//! Children: disks that read as another one until they are written to.

use std::path::{Path, PathBuf};

use blockdev_chain::Chain;
use blockdev_core::locate::ChainPolicy;
use blockdev_core::{BlockDevice, Error, ErrorKind, Result};

use crate::convert::new_files;
use crate::place::{Keep, place};
use crate::{NewImage, OpenDisk, OwnedDisk, registry};

/// What image a child is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each image that is made"
)]
pub enum ChildImage {
    /// Of the base's own format; a qcow2 over a base that is raw.
    #[default]
    LikeBase,
    /// Of the format called so.
    Format(String),
    /// This one. Where it names no backing file or parent, it is made to name the base: a VHDX then
    /// has the base's sector sizes and identity of the disk, whatever it says. One that names a
    /// parent already is taken as it is.
    Image(NewImage),
}

/// By what a child names its base where its format has room for one name (qcow2). A VHDX names it by
/// both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Naming {
    /// From the child's directory where the base is in or below that, which is where the default
    /// policy for reading it looks; else from the root.
    #[default]
    Fitting,
    /// From the child's directory: the name stays right when both move together.
    Relative,
    /// From the root of the file system: the name stays right when the child moves.
    Absolute,
}

/// How to make a child.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloneOptions {
    /// What image it is.
    pub image: ChildImage,
    /// By what it names its base.
    pub naming: Naming,
    /// Replace a file that is there. Default no.
    pub overwrite: bool,
    /// Do not wait until it is on stable storage: for disks that are not needed after a crash, for it
    /// may then be anything. Default no.
    pub volatile: bool,
}

impl CloneOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for this image.
    #[must_use]
    pub fn image(mut self, image: ChildImage) -> Self {
        self.image = image;
        self
    }

    /// The same with another name of the base.
    #[must_use]
    pub fn naming(mut self, naming: Naming) -> Self {
        self.naming = naming;
        self
    }

    /// The same, replacing a file that is there or not.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// The same, waiting for stable storage or not.
    #[must_use]
    pub fn volatile(mut self, volatile: bool) -> Self {
        self.volatile = volatile;
        self
    }
}

/// Makes the file `child` a disk that reads as the one at `base` until it is written to. That takes
/// the same time for any disk: no byte of `base` is read beyond its own tables.
///
/// `open` says how `base` is opened, and its format where that is not to be guessed; the child
/// declares the format. No file that `base` names is opened, unless one is to be overwritten, which
/// must be none of them: then `base`'s chain must be readable to its end under the policy of `open`.
///
/// From then on `base` must not be written to: the children would change with it.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when `child` is there already (unless it may be overwritten), is one of
/// the base's files, or when its format cannot say where the base is; [`ErrorKind::Unsupported`] for a
/// format that has no parents; [`ErrorKind::Locked`] when another process writes to `base`; those of
/// opening it, and of the host. `child` is then as it was.
///
/// # Example
///
/// ```no_run
/// use diskweave::{CloneOptions, OpenDisk, clone_disk};
///
/// clone_disk("images/base.vhdx", "vm1/disk.vhdx", &OpenDisk::new(), &CloneOptions::new())?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn clone_disk(
    base: impl AsRef<Path>,
    child: impl AsRef<Path>,
    open: &OpenDisk,
    options: &CloneOptions,
) -> Result<()> {
    let (path, child) = (base.as_ref(), child.as_ref());
    let replaced = options.overwrite && child.symlink_metadata().is_ok();
    let base = open_base(path, open, replaced)?;
    let image = child_image(&base, path, child, options)?;
    let size = base.size();
    if replaced {
        return new_files(&[&base], child, None, |files| image.empty(size, files));
    }
    let keep = match options.volatile {
        false => Keep::Durable,
        true => Keep::Volatile,
    };
    place(child, None, keep, |files| image.empty(size, files))
}

/// Makes a child of each base, as [`clone_disk`] does, or none: those that were made are removed when
/// a later one fails. A crash can leave some of them.
///
/// # Errors
/// Those of the first that failed; [`ErrorKind::InvalidInput`] when files are to be overwritten, which
/// could not be undone.
///
/// # Example
///
/// ```no_run
/// use diskweave::{CloneOptions, OpenDisk, clone_all};
///
/// let pairs = [("base.qcow2", "vm1/container.qcow2"), ("guest.qcow2", "vm1/guest.qcow2")];
/// clone_all(&pairs, &OpenDisk::new(), &CloneOptions::new())?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn clone_all<B: AsRef<Path>, C: AsRef<Path>>(
    pairs: &[(B, C)],
    open: &OpenDisk,
    options: &CloneOptions,
) -> Result<()> {
    if options.overwrite {
        let text = "several are made all or none, and what was overwritten could not be had back";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let mut made = Vec::with_capacity(pairs.len());
    for (base, child) in pairs {
        made.push(OwnedDisk::clone_of(base, child, open, options)?);
    }
    for disk in made {
        disk.keep();
    }
    Ok(())
}

/// `base` alone, or with its whole chain.
fn open_base(base: &Path, open: &OpenDisk, whole: bool) -> Result<Chain> {
    if !whole {
        return open.clone().policy(ChainPolicy::Deny).open(base);
    }
    let chain = open.open(base)?;
    if chain.is_detached() {
        let text = "what is overwritten could be one of the files the base is read from, which are \
                    not all known under this policy";
        return Err(Error::new(ErrorKind::Policy, text));
    }
    Ok(chain)
}

/// The image that `options` ask for over `base`, which is at `path`.
fn child_image(
    base: &Chain,
    path: &Path,
    child: &Path,
    options: &CloneOptions,
) -> Result<NewImage> {
    let image = registry::child_image(base, &named(path)?, child, &options.image, options.naming)?;
    if image.data_file().is_some() {
        let text = "a child with a data file is made by `create`";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(image)
}

/// The name of the base that a child finds it by from anywhere.
fn named(base: &Path) -> Result<PathBuf> {
    Ok(std::fs::canonicalize(base)?)
}
