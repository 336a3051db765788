//! Disks that go when nobody needs them any more.

use std::fs;
use std::path::{Path, PathBuf};

use blockdev_chain::Chain;
use blockdev_core::Result;

use crate::{CloneOptions, CreateBase, Existing, OpenDisk, clone_disk, create_base, place};

/// A disk in a file that is deleted when this is dropped, unless it is [kept](Self::keep).
///
/// The file that has the name then is the one that goes, also when it is no longer the one that was
/// made: a disk that was [forked](crate::fork) is the new child.
///
/// # Example
///
/// ```
/// use diskweave::{CreateBase, OwnedDisk};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("scratch.qcow2");
/// let scratch = OwnedDisk::create(&path, 1 << 30, &CreateBase::new())?;
/// assert!(path.exists());
/// drop(scratch);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OwnedDisk {
    path: PathBuf,
    /// The external data file that was made with it.
    data_path: Option<PathBuf>,
    persistent: bool,
}

impl OwnedDisk {
    /// Takes over the disk at `path`; its data file, if it has one, stays.
    #[must_use]
    pub fn adopt(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            data_path: None,
            persistent: false,
        }
    }

    /// Makes an empty disk, as [`create_base`] does. One that was there already and will do
    /// ([`Existing::Keep`]) is persistent.
    ///
    /// # Errors
    /// As [`create_base`].
    pub fn create(path: impl Into<PathBuf>, size: u64, wanted: &CreateBase) -> Result<Self> {
        let mut disk = Self::adopt(path);
        // Until it is known to be made, what is there is somebody else's.
        disk.persistent = true;
        let data_file = wanted.image.as_ref().and_then(|image| image.data_file());
        let data_path = data_file.map(|name| place::data_path(&disk.path, name));
        let made = create_base(&disk.path, size, wanted)?;
        if made {
            disk.data_path = data_path.transpose()?;
        }
        disk.persistent = !made && wanted.existing == Existing::Keep;
        Ok(disk)
    }

    /// Makes a child of the disk at `base`, as [`clone_disk`] does.
    ///
    /// # Errors
    /// As [`clone_disk`].
    pub fn clone_of(
        base: impl AsRef<Path>,
        child: impl AsRef<Path>,
        open: &OpenDisk,
        options: &CloneOptions,
    ) -> Result<Self> {
        clone_disk(base, child.as_ref(), open, options)?;
        Ok(Self::adopt(child.as_ref()))
    }

    /// The same, deleted in the end or not.
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// True when it is not deleted in the end.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it as `open` says.
    ///
    /// # Errors
    /// As [`OpenDisk::open`].
    pub fn open(&self, open: &OpenDisk) -> Result<Chain> {
        open.open(&self.path)
    }

    /// Leaves the files where they are, for good.
    pub fn keep(mut self) -> PathBuf {
        self.persistent = true;
        std::mem::take(&mut self.path)
    }

    /// Deletes the files now, persistent or not, and tells what is in the way.
    ///
    /// # Errors
    /// [`Io`](blockdev_core::ErrorKind::Io).
    pub fn delete(mut self) -> Result<()> {
        self.persistent = true;
        self.remove()
    }

    /// The image first: a data file without it is no harm, an image without its data is one.
    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path)?;
        if let Some(data) = &self.data_path {
            fs::remove_file(data)?;
        }
        Ok(())
    }
}

impl Drop for OwnedDisk {
    fn drop(&mut self) {
        if !self.persistent {
            // There is nobody to tell; whoever wants to know calls `delete`.
            let _ = self.remove();
        }
    }
}
