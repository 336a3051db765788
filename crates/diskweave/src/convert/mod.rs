//! Writing a disk out as another image.
//!
//! What the source knows to be zeros is neither read nor written. The result is made beside its
//! destination and takes its name when it is whole, so that nothing unfinished ever looks finished.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_chain::Chain;
use blockdev_core::{
    BulkOptions, Error, ErrorKind, FileOptions, FileStorage, LockMode, Result, Storage,
};

use crate::{NewImage, Progress};

mod disk;
pub(crate) mod raw;
mod source;

pub use raw::{RawOptions, RawPreallocation};
pub use source::Source;
use source::refuse_own_file;

/// How to write the result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// In a raw image, runs of zeros become holes where they are at least so many bytes long, and at
    /// least 512; 0 writes every byte. Default 4096.
    pub sparse_bytes: usize,
    /// Workers, of which no more are put to work than there is work for, and than 64. Default: one
    /// for each processor, at most 8.
    pub workers: NonZeroUsize,
    /// What exists already and is written into is known to read as zeros, which are then passed
    /// over. Default no: it is made zeros, or zeros are written to it.
    pub target_is_zero: bool,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self {
            sparse_bytes: 4096,
            workers: BulkOptions::default().workers,
            target_is_zero: false,
        }
    }
}

impl ConvertOptions {
    /// The same for reading the source; `dense` hands over zeros as well.
    pub(crate) fn bulk(&self, dense: bool) -> BulkOptions {
        let mut bulk = BulkOptions::default();
        bulk.workers = self.workers;
        bulk.dense = dense;
        bulk
    }
}

/// Writes what `source` reads to the file `destination`, as a raw image: [`convert`] to
/// [`NewImage::Raw`] with nothing set aside.
///
/// # Errors
/// As [`convert`].
pub fn convert_to_raw<'a>(
    source: impl Into<Source<'a>>,
    destination: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    convert(source, destination, &NewImage::raw(), options, progress)
}

/// Writes what `source` reads to the file `destination`, as a new image.
///
/// A regular file at `destination` is replaced when the new one is whole; a raw image can be written
/// to a block device, in place.
///
/// # Errors
/// Those of reading the source; [`ErrorKind::Locked`] when another process uses the destination;
/// [`ErrorKind::InvalidInput`] when the destination is one of the source's own files or `progress`
/// cancels; [`ErrorKind::NoSpace`], [`ErrorKind::Io`]. The destination is then as it was, unless it
/// is a device.
///
/// # Example
///
/// ```no_run
/// use diskweave::{ConvertOptions, NewImage, NoProgress, OpenDisk, convert};
///
/// let disk = OpenDisk::new().open("disk.vhdx")?;
/// convert(&disk, "disk.raw", &NewImage::raw(), &ConvertOptions::default(), &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn convert<'a>(
    source: impl Into<Source<'a>>,
    destination: impl AsRef<Path>,
    image: &NewImage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    if image.has_backing() {
        let text = "what the new image's backing file holds must be known";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let destination = destination.as_ref();
    write_out(&source.into(), None, destination, image, options, progress)
}

/// As [`convert`], to an image that names a backing file and holds only what differs from
/// `backing`, the disk that this file is the top of.
///
/// # Errors
/// As [`convert`]; [`ErrorKind::InvalidInput`] when `image` names no backing file, and when the
/// destination is one of the files `backing` is read from.
pub fn convert_over<'a>(
    source: impl Into<Source<'a>>,
    backing: &Chain,
    destination: impl AsRef<Path>,
    image: &NewImage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    if !image.has_backing() {
        let text = "the new image names no backing file";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let destination = destination.as_ref();
    let source = source.into();
    write_out(
        &source,
        Some(backing),
        destination,
        image,
        options,
        progress,
    )
}

/// Writes what `source` reads over the start of the raw image `destination`, a file or a block
/// device that is there and at least as long; bytes past the disk's end stay.
///
/// Nothing is made beside it: a failure or a crash leaves a part of the new content, with zeros or
/// what was there before in place of the rest.
///
/// # Errors
/// As [`convert`], but [`ErrorKind::Io`] when there is no such file; [`ErrorKind::NoSpace`] when it is
/// too short.
pub fn convert_into<'a>(
    source: impl Into<Source<'a>>,
    destination: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let source = source.into();
    let read: Vec<&Chain> = source.chains().collect();
    let target = open_destination(&read, destination.as_ref())?;
    source.with(|disk| raw::overwrite(disk, &target, options, progress))
}

/// As [`convert_into`], to a raw image that is open for writing: one that lies elsewhere than in a file.
///
/// # Errors
/// As [`convert_into`].
///
/// # Example
///
/// ```
/// use diskweave::core::{MemoryStorage, Storage};
/// use diskweave::{ConvertOptions, NoProgress, OpenDisk, convert_into_storage};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("disk.raw");
/// # std::fs::write(&path, [7; 512])?;
/// let disk = OpenDisk::new().format("raw").open(&path)?;
/// let target = MemoryStorage::from(vec![0; 1024]);
/// convert_into_storage(&disk, &target, &ConvertOptions::default(), &NoProgress)?;
/// let mut byte = [0];
/// target.read_at(&mut byte, 511)?;
/// assert_eq!(byte, [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn convert_into_storage<'a>(
    source: impl Into<Source<'a>>,
    destination: &dyn Storage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let source = source.into();
    let read: Vec<&Chain> = source.chains().collect();
    refuse_own_file(&read, destination)?;
    source.with(|disk| raw::overwrite(disk, destination, options, progress))
}

/// Writes what `source` reads over the start of the disk of `destination`, opened for writing and at least as
/// long; bytes past the disk's end stay. The image keeps all else that it is, and its parents.
///
/// Nothing is made beside it: a failure or a crash leaves a part of the new content, with zeros in place of the
/// rest, in an image that is sound.
///
/// # Errors
/// As [`convert_into`], and those of writing.
///
/// # Example
///
/// ```no_run
/// use diskweave::{ConvertOptions, NoProgress, OpenDisk, convert_into_disk};
///
/// let disk = OpenDisk::new().open("disk.vhdx")?;
/// let target = OpenDisk::new().writable().open("there.qcow2")?;
/// convert_into_disk(&disk, &target, &ConvertOptions::default(), &NoProgress)?;
/// target.close()?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn convert_into_disk<'a>(
    source: impl Into<Source<'a>>,
    destination: &Chain,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let source = source.into();
    let read: Vec<&Chain> = source.chains().collect();
    for file in source::files(destination.top()) {
        refuse_own_file(&read, file)?;
    }
    source.with(|disk| disk::overwrite(disk, destination, options, progress))
}

fn write_out(
    source: &Source<'_>,
    backing: Option<&Chain>,
    destination: &Path,
    image: &NewImage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let destination = resolved(destination)?;
    let read: Vec<&Chain> = source.chains().chain(backing).collect();
    if fs::metadata(&destination).is_ok_and(|metadata| !metadata.is_file()) {
        let device = open_destination(&read, &destination)?;
        if !matches!(image, NewImage::Raw(_)) {
            let text = "only raw images are written to what is no regular file";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        return source.with(|disk| raw::overwrite(disk, &device, options, progress));
    }
    new_files(&read, &destination, image.data_file(), |files| {
        source.with(|disk| image.fill(disk, backing, files, options, progress))
    })
}

/// The files of an image that is being made.
pub(crate) struct NewFiles {
    /// The image itself.
    pub(crate) image: Arc<dyn Storage>,
    /// Its external data file, if it is to have one.
    pub(crate) data: Option<Arc<dyn Storage>>,
}

/// Has `fill` make the image `destination` and the data file that it is to name by `data_file`, if
/// any. The data file has its name before the image has.
pub(crate) fn new_files(
    read: &[&Chain],
    destination: &Path,
    data_file: Option<&str>,
    fill: impl FnOnce(NewFiles) -> Result<()>,
) -> Result<()> {
    let Some(name) = data_file else {
        return new_file(read, destination, |image| {
            fill(NewFiles { image, data: None })
        });
    };
    let directory = destination.parent().unwrap_or(Path::new(""));
    let data_path = directory.join(name);
    if name.is_empty() || place(&data_path)? == place(destination)? {
        let text = "the data file must be another file than the image";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    new_file(read, destination, |image| {
        new_file(read, &data_path, |data| {
            let data = Some(data);
            fill(NewFiles { image, data })
        })
    })
}

/// Has `fill` make the regular file `destination`, which none of the disks is read from.
fn new_file(
    read: &[&Chain],
    destination: &Path,
    fill: impl FnOnce(Arc<dyn Storage>) -> Result<()>,
) -> Result<()> {
    let destination = resolved(destination)?;
    match fs::metadata(&destination) {
        Ok(metadata) if metadata.is_file() => {
            let _old = open_destination(read, &destination)?;
            replace(&destination, Some(metadata.permissions()), fill)
        }
        Ok(_) => {
            let text = "the destination is no regular file";
            Err(Error::new(ErrorKind::Unsupported, text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(&destination, None, fill),
        Err(error) => Err(error.into()),
    }
}

/// The place of `path`, whether or not there is a file, by which two spellings can be compared.
fn place(path: &Path) -> Result<PathBuf> {
    let path = resolved(path)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = fs::canonicalize(directory)?;
    Ok(path
        .file_name()
        .map_or(directory.clone(), |name| directory.join(name)))
}

/// Where `destination` leads: a link is followed, not replaced, also to a file that is not there yet.
fn resolved(destination: &Path) -> Result<PathBuf> {
    // As many as Linux follows.
    const MOST_LINKS: usize = 40;
    if let Ok(there) = fs::canonicalize(destination) {
        return Ok(there);
    }
    let mut path = destination.to_path_buf();
    if fs::metadata(&path).is_ok() {
        // It has no path of its own, as a pipe under the name of a descriptor.
        return Ok(path);
    }
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else {
            return Ok(path);
        };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(Error::new(
        ErrorKind::Io,
        "too many levels of symbolic links",
    ))
}

/// Opens what is at `destination`, unless one of the disks is read from it, and keeps others away.
fn open_destination(read: &[&Chain], destination: &Path) -> Result<FileStorage> {
    // Without a lock at first: the source's own would be in the way, and blamed on others.
    let unlocked = FileOptions::read_write().with_lock(LockMode::None);
    let file = FileStorage::open(destination, unlocked)?;
    refuse_own_file(read, &file)?;
    file.lock(LockMode::Exclusive)?;
    Ok(file)
}

/// Has `fill` make the image beside `destination`, then gives it the name.
fn replace(
    destination: &Path,
    permissions: Option<fs::Permissions>,
    fill: impl FnOnce(Arc<dyn Storage>) -> Result<()>,
) -> Result<()> {
    let directory = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".diskweave-").suffix(".partial");
    #[cfg(unix)]
    {
        // As any new file: what the process's mask leaves of reading and writing for all. What is
        // to replace an old file is nobody's to read before it has that file's permissions.
        use std::os::unix::fs::PermissionsExt;
        let mode = if permissions.is_some() { 0o600 } else { 0o666 };
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    let partial = builder.tempfile_in(directory)?;
    let file: File = partial.as_file().try_clone()?;
    let unlocked = FileOptions::read_write().with_lock(LockMode::None);
    let storage = FileStorage::from_file(file, partial.path(), unlocked)?;
    fill(Arc::new(storage.written_at_one_go()))?;
    if let Some(permissions) = permissions {
        partial.as_file().set_permissions(permissions)?;
    }
    partial.persist(destination).map_err(|error| error.error)?;
    // The name is as durable as the bytes only once its directory is.
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(())
}
