//! The one place where a path becomes an open file.

use std::path::Path;
use std::sync::Arc;

use super::beneath;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
use crate::UringStorage;
use crate::{FileOptions, FileStorage, Result, Storage};

/// Opens host files by path. Tests put a counting one in its place.
pub trait Opener: Send + Sync {
    /// Opens `path` as the host understands it.
    ///
    /// # Errors
    /// As [`FileStorage::open`].
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>>;

    /// Opens `name`, a relative path without `..`, so that no component of it can lead out of
    /// `root`: no symbolic link is followed below `root`, and only a regular file is opened.
    ///
    /// # Errors
    /// As [`FileStorage::open`], and [`ErrorKind::Policy`](crate::ErrorKind::Policy) where a link
    /// stands in the way.
    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>>;

    /// True when [`open`](Self::open) takes `name` for no path of the host, but for what says by itself
    /// where to go: the URI of a server. Such a name is joined to no directory and has none, and it is
    /// followed from an image under [`ChainPolicy::Any`](super::ChainPolicy::Any) alone. Default: never.
    fn is_remote(&self, name: &Path) -> bool {
        let _ = name;
        false
    }
}

/// Opens files of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostOpener;

impl Opener for HostOpener {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(FileStorage::open(path, options)?))
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(file_beneath(root, name, options)?))
    }
}

/// Opens files of the host past its page cache, as [`FileOptions::with_direct`] does: all of a chain.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirectOpener;

impl Opener for DirectOpener {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        HostOpener.open(path, options.with_direct(true))
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        HostOpener.open_beneath(root, name, options.with_direct(true))
    }
}

/// Opens files of the host as [`UringStorage`]: the parts of a request are read at once.
#[cfg(all(target_os = "linux", feature = "io-uring"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct UringOpener {
    /// Past the page cache, where reading several parts at once gains most.
    pub direct: bool,
}

#[cfg(all(target_os = "linux", feature = "io-uring"))]
impl Opener for UringOpener {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        let file = FileStorage::open(path, options.with_direct(self.direct))?;
        Ok(Arc::new(UringStorage::new(file)))
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        let file = file_beneath(root, name, options.with_direct(self.direct))?;
        Ok(Arc::new(UringStorage::new(file)))
    }
}

fn file_beneath(root: &Path, name: &Path, options: FileOptions) -> Result<FileStorage> {
    let file = beneath::open(root, name, options)?;
    FileStorage::from_file(file, root.join(name), options)
}
