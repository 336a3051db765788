//! Which file of the host a path leads to.

use std::path::Path;

use blockdev_core::{FileId, Result};

/// The identity of the file at `path`, that of a link itself where `path` is one.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io) when there is none.
pub(crate) fn of_entry(path: &Path) -> Result<Option<FileId>> {
    identity(path, &path.symlink_metadata()?)
}

/// The identity of the file that `path` leads to. It is not opened where the host can tell otherwise.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io) when there is none.
pub(crate) fn of_target(path: &Path) -> Result<Option<FileId>> {
    identity(path, &path.metadata()?)
}

#[cfg(unix)]
fn identity(_: &Path, metadata: &std::fs::Metadata) -> Result<Option<FileId>> {
    use std::os::unix::fs::MetadataExt;
    Ok(Some(FileId {
        space: metadata.dev(),
        file: metadata.ino(),
    }))
}

#[cfg(not(unix))]
fn identity(path: &Path, _: &std::fs::Metadata) -> Result<Option<FileId>> {
    use blockdev_core::{FileOptions, FileStorage, LockMode, Storage};
    let unlocked = FileOptions::read_only().with_lock(LockMode::None);
    Ok(FileStorage::open(path, unlocked)?.identity())
}
