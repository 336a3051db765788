//! An empty disk where there may be one already.

use std::fs;
use std::path::Path;

use blockdev_core::locate::ChainPolicy;
use blockdev_core::{BlockDevice, Error, ErrorKind, FileRole, LockMode, Result};

use crate::convert::new_files;
use crate::place::{self, Keep, directory_of, is_already_there, place};
use crate::{NewImage, OpenDisk, registry};

/// What is done where a file has the name of a new one already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and that is an error.
    #[default]
    Refuse,
    /// It stays, and will do, if it is an image of the format wanted, has no parent, and its disk is
    /// at least as large; else it stays, and that is an error.
    Keep,
    /// It is replaced when the new one is whole.
    Replace,
}

/// How to make an empty disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateBase {
    /// The image. Default: a qcow2, or what else this build writes where it knows none.
    pub image: Option<NewImage>,
    /// Make the directories that lead there. Default no.
    pub directories: bool,
    /// What is done with a file that is there. Default: it is refused.
    pub existing: Existing,
}

impl CreateBase {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for this image.
    #[must_use]
    pub fn image(mut self, image: NewImage) -> Self {
        self.image = Some(image);
        self
    }

    /// The same, with the directories that lead there.
    #[must_use]
    pub fn with_directories(mut self) -> Self {
        self.directories = true;
        self
    }

    /// The same with another answer to a file that is there.
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }
}

/// Makes the file `path` an empty disk of `size` bytes, rounded up to whole sectors; tells whether it
/// made one, which it did not where one that will do was there ([`Existing::Keep`]).
///
/// The image and its name are durable then; the names of directories that were made on the way are
/// left to the host.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a file that is there and may not be replaced, or will not do, and
/// with an option that the format does not allow; [`ErrorKind::Locked`] when another process uses
/// what is to be replaced; [`ErrorKind::NoSpace`], [`ErrorKind::Io`]. The file is then as it was.
///
/// # Example
///
/// ```
/// use diskweave::{CreateBase, Existing, create_base};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("disks/root.qcow2");
/// let wanted = CreateBase::new().with_directories().existing(Existing::Keep);
/// assert!(create_base(&path, 10 << 30, &wanted)?);
/// assert!(!create_base(&path, 10 << 30, &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn create_base(path: impl AsRef<Path>, size: u64, wanted: &CreateBase) -> Result<bool> {
    let path = path.as_ref();
    let image = wanted.image.clone().unwrap_or_else(registry::usual_image);
    if image.has_backing() {
        let text = "a disk over a backing file is no empty one";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    if wanted.directories {
        fs::create_dir_all(directory_of(path))?;
    }
    let fill = |files| image.empty(size, files);
    if wanted.existing == Existing::Replace {
        new_files(&[], path, image.data_file(), fill)?;
        return Ok(true);
    }
    match place(path, image.data_file(), Keep::Durable, fill) {
        Ok(()) => Ok(true),
        Err(error)
            if wanted.existing == Existing::Keep
                && is_already_there(&error)
                && fs::symlink_metadata(path).is_ok() =>
        {
            will_do(path, size, image.format()).map(|()| false)
        }
        Err(error) => Err(error),
    }
}

/// Checks that the file at `path` is an image of `format` with a disk of at least `size` bytes of its
/// own.
fn will_do(path: &Path, size: u64, format: &str) -> Result<()> {
    // Whoever uses it already is no reason against it.
    let open = OpenDisk::new().lock(LockMode::Unprotected);
    let there = open.policy(ChainPolicy::Deny).open(path)?;
    let info = there.info();
    let mut refs = there.top().file_refs().iter();
    let why = if info.format != format {
        format!("it is {}, not {format}", info.format)
    } else if info.size < size {
        format!("its disk is {} bytes long, not {size}", info.size)
    } else if refs.any(|file| file.role == FileRole::Parent) {
        "it has a parent".into()
    } else {
        return Ok(());
    };
    let error = place::already_there(path);
    let text = format!("{}, and will not do: {why}", error.message());
    Err(Error::new(ErrorKind::InvalidInput, text).caused_by(error))
}
