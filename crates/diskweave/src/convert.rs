//! Writing a disk out as a raw image.
//!
//! Extents are handed out in pieces to a few workers; each reads a piece and writes the parts that
//! are not zeros to their place. What the source knows to be zeros is neither read nor written. The
//! result is made beside its destination and takes its name when it is whole, so that nothing
//! unfinished ever looks finished.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use blockdev_chain::Chain;
use blockdev_core::{
    BlockDevice, Error, ErrorKind, Extent, ExtentKind, Extents, FileOptions, FileStorage, HostFile,
    LockMode, Result, Storage, SyncKind,
};

use crate::Progress;
use crate::zeros::nonzero_runs;

/// Bytes a worker takes on at a time.
const PIECE: usize = 1 << 20;

/// More workers than this only wait for each other.
const MOST_WORKERS: usize = 64;

/// Shorter holes save no host any space, and cost a call each.
const LEAST_HOLE: usize = 512;

/// How to write the result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// Runs of zeros become holes where they are at least so many bytes long, and at least 512; 0
    /// writes every byte. Default 4096.
    pub sparse_bytes: usize,
    /// Workers, of which no more are put to work than there is work for, and than 64. Default: one
    /// for each processor, at most 8.
    pub workers: NonZeroUsize,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        let most = NonZeroUsize::new(8).expect("not zero");
        let workers =
            std::thread::available_parallelism().map_or(NonZeroUsize::MIN, |n| n.min(most));
        Self {
            sparse_bytes: 4096,
            workers,
        }
    }
}

/// Writes what `source` reads to the file `destination`, as a raw image.
///
/// A regular file at `destination` is replaced when the new one is whole; a block device is written
/// in place.
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
/// use diskweave::{ConvertOptions, NoProgress, OpenDisk, convert_to_raw};
///
/// let disk = OpenDisk::new().open("disk.vhdx")?;
/// convert_to_raw(&disk, "disk.raw", &ConvertOptions::default(), &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn convert_to_raw(
    source: &Chain,
    destination: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let destination = resolved(destination.as_ref())?;
    let replace = |permissions| replace(source, &destination, permissions, options, progress);
    match fs::metadata(&destination) {
        Ok(metadata) if metadata.is_file() => {
            let _old = open_destination(source, &destination)?;
            replace(Some(metadata.permissions()))
        }
        Ok(_) => {
            let device = open_destination(source, &destination)?;
            write_device(source, &device, options, progress)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(None),
        Err(error) => Err(error.into()),
    }
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

/// Opens what is at `destination`, unless the source is read from it, and keeps others away.
fn open_destination(source: &Chain, destination: &Path) -> Result<FileStorage> {
    // Without a lock at first: the source's own would be in the way, and blamed on others.
    let unlocked = FileOptions::read_write().with_lock(LockMode::None);
    let file = FileStorage::open(destination, unlocked)?;
    refuse_own_file(source, &file)?;
    file.lock(LockMode::Exclusive)?;
    Ok(file)
}

fn refuse_own_file(source: &Chain, destination: &dyn Storage) -> Result<()> {
    let Some(identity) = destination.identity() else {
        return Ok(());
    };
    let own = source
        .layers()
        .flat_map(|layer| [HostFile::Image, HostFile::Data].map(|file| layer.host(file)))
        .flatten()
        .any(|file| file.identity() == Some(identity));
    if own {
        let text = "the destination is one of the files that the source is read from";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// Makes the image beside `destination`, then gives it the name.
fn replace(
    source: &Chain,
    destination: &Path,
    permissions: Option<fs::Permissions>,
    options: &ConvertOptions,
    progress: &dyn Progress,
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
    storage.set_len(source.size())?;
    copy(source, &storage, options, progress)?;
    storage.sync(SyncKind::Full)?;
    if let Some(permissions) = permissions {
        partial.as_file().set_permissions(permissions)?;
    }
    partial.persist(destination).map_err(|error| error.error)?;
    // The name is as durable as the bytes only once its directory is.
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(())
}

fn write_device(
    source: &Chain,
    device: &FileStorage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    if device.len()? < source.size() {
        let text = format!(
            "the device is smaller than the disk of {} bytes",
            source.size()
        );
        return Err(Error::new(ErrorKind::NoSpace, text));
    }
    // What a device holds is not known to be zeros.
    let options = ConvertOptions {
        sparse_bytes: 0,
        ..options.clone()
    };
    copy(source, device, &options, progress)?;
    device.sync(SyncKind::Full)
}

/// Copies all of `source` to `target`, which reads as zeros already where `sparse_bytes` is not 0.
fn copy(
    source: &Chain,
    target: &dyn Storage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    progress.start(source.size());
    let queue = Queue::new(source, options.sparse_bytes == 0);
    let failure = Mutex::new(None);
    let fail = |error| {
        queue.stop();
        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    };
    let run = || {
        if let Err(error) = work(source, target, &queue, options, progress) {
            fail(error);
        }
    };
    let pieces = usize::try_from(source.size().div_ceil(PIECE as u64)).unwrap_or(usize::MAX);
    let workers = options.workers.get().min(MOST_WORKERS).min(pieces);
    std::thread::scope(|scope| {
        for _ in 1..workers {
            // A host that has no more threads to give gets by with those it gave.
            if std::thread::Builder::new()
                .spawn_scoped(scope, run)
                .is_err()
            {
                break;
            }
        }
        run();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn work(
    source: &Chain,
    target: &dyn Storage,
    queue: &Queue<'_>,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    while let Some(piece) = queue.next(progress)? {
        if progress.is_cancelled() {
            return Err(Error::new(ErrorKind::InvalidInput, "cancelled"));
        }
        let bytes = &mut buffer[..piece.len];
        source.read_at(bytes, piece.offset)?;
        if options.sparse_bytes == 0 {
            target.write_at(bytes, piece.offset)?;
        } else {
            for run in nonzero_runs(bytes, options.sparse_bytes.max(LEAST_HOLE)) {
                target.write_at(&bytes[run.clone()], piece.offset + run.start as u64)?;
            }
        }
        progress.advance(piece.len as u64);
    }
    Ok(())
}

/// A piece of the disk to be copied.
struct Piece {
    offset: u64,
    len: usize,
}

/// Hands out the disk, extent by extent, in pieces.
struct Queue<'a>(Mutex<Walk<'a>>);

struct Walk<'a> {
    source: &'a Chain,
    extents: Extents<'a>,
    /// What is left of the extent being handed out.
    current: Option<(u64, Extent)>,
    dense: bool,
    stopped: bool,
}

impl<'a> Queue<'a> {
    fn new(source: &'a Chain, dense: bool) -> Self {
        let extents = Extents::new(source, 0, source.size());
        Self(Mutex::new(Walk {
            source,
            extents,
            current: None,
            dense,
            stopped: false,
        }))
    }

    fn stop(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped = true;
    }

    fn next(&self, progress: &dyn Progress) -> Result<Option<Piece>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next(progress)
    }
}

impl Walk<'_> {
    fn next(&mut self, progress: &dyn Progress) -> Result<Option<Piece>> {
        while !self.stopped {
            let (offset, extent) = match self.current.take() {
                Some(current) => current,
                None => match self.extents.next() {
                    Some(next) => next?,
                    None => return Ok(None),
                },
            };
            if self.skip(offset, &extent)? {
                progress.advance(extent.len);
                continue;
            }
            // Pieces end on multiples of their size, so that no two workers share a page.
            let room = PIECE as u64 - offset % PIECE as u64;
            let len = extent.len.min(room);
            if extent.len > len {
                let rest = Extent {
                    len: extent.len - len,
                    host: None,
                    ..extent
                };
                self.current = Some((offset + len, rest));
            }
            let len = usize::try_from(len).expect("no longer than a piece");
            return Ok(Some(Piece { offset, len }));
        }
        Ok(None)
    }

    /// True when nothing needs to be copied for `extent`.
    fn skip(&self, offset: u64, extent: &Extent) -> Result<bool> {
        match extent.kind {
            _ if self.dense => Ok(false),
            ExtentKind::Zero => Ok(true),
            ExtentKind::Absent => {
                // In a detached chain this is an error, not zeros.
                self.source.read_at(&mut [0], offset)?;
                Ok(true)
            }
            ExtentKind::Data | ExtentKind::Compressed => Ok(false),
        }
    }
}
