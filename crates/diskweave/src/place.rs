//! New files that take their names whole, and never another file's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_core::{
    Error, ErrorKind, FileId, FileOptions, FileStorage, HostExtent, LockMode, Result, Storage,
    SyncKind,
};

use crate::convert::NewFiles;

/// Whether a new file is to outlive a crash of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Its bytes and its name are on stable storage when it is made.
    Durable,
    /// The host writes it when it likes.
    Volatile,
}

/// The directory that `path` is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Has the names in `directory` outlive a crash.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    let _ = directory;
    Ok(())
}

/// The error for a file that is there already.
pub(crate) fn already_there(path: &Path) -> Error {
    let text = format!("{path:?} is there already");
    Error::new(ErrorKind::InvalidInput, text)
        .caused_by(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// True for [`already_there`].
pub(crate) fn is_already_there(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let cause = source.and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::AlreadyExists)
}

/// Has `fill` make the image `destination`, and the data file that it is to name by `data_file` if
/// any, where neither is there yet. The data file has its name before the image has.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when one of them is there; those of `fill`; [`ErrorKind::Io`]. Nothing
/// is left then.
pub(crate) fn place(
    destination: &Path,
    data_file: Option<&str>,
    keep: Keep,
    fill: impl FnOnce(NewFiles) -> Result<()>,
) -> Result<()> {
    let Some(name) = data_file else {
        return place_one(destination, keep, |image| {
            fill(NewFiles { image, data: None })
        });
    };
    let data_path = data_path(destination, name)?;
    let mut placed = false;
    let made = place_one(destination, keep, |image| {
        place_one(&data_path, keep, |data| {
            let data = Some(data);
            fill(NewFiles { image, data })
        })?;
        placed = true;
        Ok(())
    });
    if made.is_err() && placed {
        // It is nobody's without its image.
        let _ = fs::remove_file(&data_path);
    }
    made
}

/// Where the data file called `name` by the image at `image` is.
pub(crate) fn data_path(image: &Path, name: &str) -> Result<PathBuf> {
    let path = directory_of(image).join(name);
    if name.is_empty() || path.file_name() == image.file_name() && path.parent() == image.parent() {
        let text = "the data file must be another file than the image";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(path)
}

fn place_one(
    destination: &Path,
    keep: Keep,
    fill: impl FnOnce(Arc<dyn Storage>) -> Result<()>,
) -> Result<()> {
    // Told before the work is done; the name is taken below only if this still holds.
    if fs::symlink_metadata(destination).is_ok() {
        return Err(already_there(destination));
    }
    let directory = directory_of(destination);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".diskweave-").suffix(".partial");
    #[cfg(unix)]
    {
        // As any new file: what the process's mask leaves of reading and writing for all.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let partial = builder.tempfile_in(directory)?;
    fill(storage(
        partial.as_file().try_clone()?,
        partial.path(),
        keep,
    )?)?;
    partial
        .persist_noclobber(destination)
        .map_err(|refused| match refused.error.kind() {
            io::ErrorKind::AlreadyExists => already_there(destination),
            _ => refused.error.into(),
        })?;
    match keep {
        Keep::Durable => sync_directory(directory),
        Keep::Volatile => Ok(()),
    }
}

/// `file`, open for writing at `path`, as a format's writer wants it; nobody else knows it yet.
pub(crate) fn storage(file: File, path: &Path, keep: Keep) -> Result<Arc<dyn Storage>> {
    let unlocked = FileOptions::read_write().with_lock(LockMode::None);
    let file = FileStorage::from_file(file, path, unlocked)?;
    Ok(match keep {
        Keep::Durable => Arc::new(file),
        Keep::Volatile => Arc::new(Unsynced(file)),
    })
}

/// A file that is not waited for: for disks that are not needed after a crash.
#[derive(Debug)]
struct Unsynced(FileStorage);

impl Storage for Unsynced {
    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.0.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self, _: SyncKind) -> Result<()> {
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.0.punch_hole(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.0.zero_range(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.0.allocate(offset, len)
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        self.0.next_extent(offset)
    }

    fn identity(&self) -> Option<FileId> {
        self.0.identity()
    }

    fn allocated_len(&self) -> Result<u64> {
        self.0.allocated_len()
    }

    fn as_file(&self) -> Option<&File> {
        self.0.as_file()
    }
}
