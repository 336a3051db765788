//! The one place where a path becomes an open file.

use std::path::Path;
use std::sync::Arc;

use super::beneath;
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
        let file = beneath::open(root, name, options)?;
        Ok(Arc::new(FileStorage::from_file(
            file,
            root.join(name),
            options,
        )?))
    }
}
