//! A file or block device of the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::direct::{Direct, Held};
use super::{past_end, refused, sys, write_zeros};
use crate::{Error, ErrorKind, FileId, HostExtent, Result, Storage, SyncKind};

/// Bytes after which the host is asked to begin making them stable.
const ASKED_EVERY: u64 = 32 << 20;

/// What an open file lets other processes do, by advisory locks that QEMU's tools (2.10 and later)
/// respect and take themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockMode {
    /// No lock at all.
    None,
    /// Tells others that somebody reads, and forbids them nothing: what `qemu-img -U` holds.
    Unprotected,
    /// Others may read; none may write.
    #[default]
    Shared,
    /// This process writes; no other may.
    Exclusive,
}

/// How to open a host file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileOptions {
    /// Open for writing as well.
    pub writable: bool,
    /// The lock to hold; by default none may write while the file is read, and with `writable`
    /// callers ask for [`LockMode::Exclusive`].
    pub lock: LockMode,
    /// Pass the host's page cache by (`O_DIRECT`). Requests may lie anywhere all the same; what is not
    /// aligned as the host wants it is copied, and of writes the blocks at either end are read first. By
    /// default bytes go through the page cache.
    pub direct: bool,
}

impl FileOptions {
    /// For reading; nobody may write meanwhile.
    #[must_use]
    pub fn read_only() -> Self {
        Self {
            writable: false,
            lock: LockMode::Shared,
            direct: false,
        }
    }

    /// For reading and writing; nobody else may write meanwhile.
    #[must_use]
    pub fn read_write() -> Self {
        Self {
            writable: true,
            lock: LockMode::Exclusive,
            direct: false,
        }
    }

    /// The same with another lock.
    #[must_use]
    pub fn with_lock(mut self, lock: LockMode) -> Self {
        self.lock = lock;
        self
    }

    /// The same past the host's page cache, or not.
    #[must_use]
    pub fn with_direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }
}

/// A host file, used by positional reads and writes only.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
    writable: bool,
    identity: Option<FileId>,
    /// How to get past the page cache, if that is wanted.
    pub(super) direct: Option<Direct>,
    /// A lock was taken, and is to be given up.
    locked: AtomicBool,
    /// Bytes written, where the host is asked now and then to begin making them stable.
    written: Option<AtomicU64>,
}

/// The lock goes with the storage, not with the last descriptor of the open file: a child process
/// that was just forked has copies of them all for a moment, and would seem to hold the image.
impl Drop for FileStorage {
    fn drop(&mut self) {
        if self.locked.load(Ordering::Relaxed) {
            // Nothing can be done about a failure, and closing gives the lock up as well.
            let _ = sys::lock(&self.file, LockMode::None);
        }
    }
}

impl FileStorage {
    /// Opens the file at `path` and takes its lock.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be opened, [`ErrorKind::Locked`] when another process uses
    /// it in a way the lock forbids, [`ErrorKind::Unsupported`] for what is neither a regular file
    /// nor a block device, and where direct I/O is wanted and there is none.
    pub fn open(path: impl AsRef<Path>, options: FileOptions) -> Result<Self> {
        let path = path.as_ref();
        let mut open = OpenOptions::new();
        open.read(true).write(options.writable);
        sys::prepare_open(&mut open);
        let file = open.open(path)?;
        Self::from_file(file, path, options)
    }

    /// Takes over an open file. `path` is for messages and for resolving relative names.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(file: File, path: impl Into<PathBuf>, options: FileOptions) -> Result<Self> {
        let path = path.into();
        let metadata = file.metadata()?;
        if !sys::can_hold_image(&metadata) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "neither a regular file nor a block device",
            ));
        }
        let identity = sys::identity(&metadata, &path);
        let direct = match options.direct {
            true => Some(Direct::open(&file, options.writable)?),
            false => None,
        };
        let storage = Self {
            file,
            path,
            writable: options.writable,
            identity,
            direct,
            locked: AtomicBool::new(false),
            written: None,
        };
        storage.lock(options.lock)?;
        Ok(storage)
    }

    /// The same, with the host asked every 32 MiB to begin making stable what was written: for a file
    /// that is written at one go and synced at its end, which then takes less time. Where the host
    /// cannot be asked, nothing changes.
    #[must_use]
    pub fn written_at_one_go(mut self) -> Self {
        self.written = Some(AtomicU64::new(0));
        self
    }

    /// Takes note of `len` bytes written.
    fn wrote(&self, len: u64) {
        let Some(written) = &self.written else {
            return;
        };
        let before = written.fetch_add(len, Ordering::Relaxed);
        if is_due(before, len) {
            sys::start_writeback(&self.file);
        }
    }

    /// The path the file was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its bytes pass the host's page cache by.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether the host reads `buf` from `offset` by one call, as it is.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    pub(super) fn takes(&self, buf: &[u8], offset: u64) -> bool {
        // More than the host reads at once; and places that it takes for others than they are.
        const MOST_BYTES: usize = 1 << 30;
        const MOST_PLACE: u64 = i64::MAX as u64 - MOST_BYTES as u64;
        (1..=MOST_BYTES).contains(&buf.len())
            && offset <= MOST_PLACE
            && self
                .direct
                .as_ref()
                .is_none_or(|direct| direct.takes(buf, offset))
    }

    /// Keeps others from changing what goes together with `len` bytes from `offset`, which the host is to
    /// change by itself.
    fn hold(&self, offset: u64, len: u64) -> Result<Option<Held<'_>>> {
        let direct = self.direct.as_ref();
        direct.map(|direct| direct.hold(offset, len)).transpose()
    }

    fn for_writing(&self) -> Result<&File> {
        if self.writable {
            Ok(&self.file)
        } else {
            Err(refused())
        }
    }
}

impl Storage for FileStorage {
    fn len(&self) -> Result<u64> {
        let metadata = self.file.metadata()?;
        if metadata.is_file() {
            return Ok(metadata.len());
        }
        // A block device tells its size only by its end.
        Ok((&self.file).seek(SeekFrom::End(0))?)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match &self.direct {
            None => Ok(sys::read_exact_at(&self.file, buf, offset)?),
            Some(direct) => Ok(direct.read_at(buf, offset)?),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let file = self.for_writing()?;
        match &self.direct {
            None => sys::write_all_at(file, buf, offset)?,
            Some(direct) => direct.write_at(buf, offset, file, || self.len())?,
        }
        self.wrote(buf.len() as u64);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let file = self.for_writing()?;
        let _held = self.direct.as_ref().map(Direct::hold_all);
        Ok(file.set_len(len)?)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        match kind {
            SyncKind::Data => self.file.sync_data()?,
            SyncKind::Full => self.file.sync_all()?,
        }
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let _held = self.hold(offset, len)?;
        match sys::punch_hole(self.for_writing()?, offset, len) {
            Err(error) if unsupported(&error) => Err(ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let held = self.hold(offset, len)?;
        let zeroed = sys::zero_range(self.for_writing()?, offset, len);
        drop(held);
        match zeroed {
            Err(error) if unsupported(&error) => write_zeros(self, offset, len),
            other => Ok(other?),
        }
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let _held = self.hold(offset, len)?;
        match sys::allocate(self.for_writing()?, offset, len) {
            Err(error) if unsupported(&error) => Err(ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        let len = self.len()?;
        if offset >= len {
            return Err(past_end(offset));
        }
        Ok(sys::next_extent(&self.file, offset, len)?)
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        // What the host copies goes through the page cache.
        match to.as_file() {
            _ if self.is_direct() => Ok(0),
            Some(file) => Ok(sys::copy_range(&self.file, offset, file, to_offset, len)?),
            None => Ok(0),
        }
    }

    fn identity(&self) -> Option<FileId> {
        self.identity
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        if mode != LockMode::None {
            self.locked.store(true, Ordering::Relaxed);
        }
        if sys::lock(&self.file, mode)? {
            return Ok(());
        }
        let wanted = match mode {
            LockMode::Exclusive => "cannot be opened for writing: another process is using it",
            _ => "cannot be opened: another process is writing to it",
        };
        Err(Error::new(ErrorKind::Locked, wanted))
    }

    fn is_read_only(&self) -> bool {
        !self.writable
    }

    fn allocated_len(&self) -> Result<u64> {
        Ok(sys::allocated_len(&self.file.metadata()?))
    }

    /// The descriptor that its bytes go by.
    fn as_file(&self) -> Option<&File> {
        Some(self.direct.as_ref().map_or(&self.file, Direct::file))
    }
}

/// True when `len` bytes after `before` complete another share.
fn is_due(before: u64, len: u64) -> bool {
    before / ASKED_EVERY != (before + len) / ASKED_EVERY
}

fn unsupported(error: &io::Error) -> bool {
    // ENODEV is what a file system without the call answers on some kernels.
    const ENODEV: i32 = 19;
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
    ) || error.raw_os_error() == Some(ENODEV)
}

/// Whole-file locks by the standard library, where byte ranges of the open file cannot be had.
#[cfg(not(target_os = "linux"))]
pub(super) fn whole_file_lock(file: &File, mode: LockMode) -> io::Result<bool> {
    use std::fs::TryLockError;
    file.unlock()?;
    let taken = match mode {
        LockMode::None | LockMode::Unprotected => return Ok(true),
        LockMode::Shared => file.try_lock_shared(),
        LockMode::Exclusive => file.try_lock(),
    };
    match taken {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// An identity made from the canonical path, where the system has none to give.
#[cfg(not(unix))]
pub(super) fn path_identity(path: &Path) -> Option<FileId> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    std::fs::canonicalize(path).ok()?.hash(&mut hasher);
    Some(FileId {
        space: u64::MAX,
        file: hasher.finish(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorageExt;

    #[test]
    fn the_host_is_asked_once_for_each_share_whatever_the_pieces() {
        for (piece, times) in [(1u64 << 20, 8), (3 << 20, 8), (40 << 20, 7)] {
            let mut asked = 0;
            for n in 0..(256u64 << 20).div_ceil(piece) {
                asked += u32::from(is_due(n * piece, piece));
            }
            assert_eq!(asked, times, "{piece}");
        }
    }

    #[test]
    fn a_file_written_at_one_go_holds_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, []).unwrap();
        let storage = FileStorage::open(&path, FileOptions::read_write()).unwrap();
        let storage = storage.written_at_one_go();
        let piece = |n: u64| vec![u8::try_from(n + 1).unwrap(); 3 << 20];
        for n in 0..12 {
            storage.write_at(&piece(n), n * (3 << 20)).unwrap();
        }
        storage.sync(SyncKind::Full).unwrap();
        for n in 0..12 {
            let mut seen = vec![0; 3 << 20];
            storage.read_at(&mut seen, n * (3 << 20)).unwrap();
            assert_eq!(seen, piece(n));
        }
        let written = storage.written.as_ref().unwrap();
        assert_eq!(written.load(Ordering::Relaxed), 36 << 20);
    }

    #[test]
    fn holes_are_seen_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![3u8; 1 << 20]).unwrap();
        let storage = FileStorage::open(&path, FileOptions::read_write()).unwrap();
        storage.set_len(4 << 20).unwrap();
        let first = storage.next_extent(0).unwrap();
        assert_eq!((first.len, first.allocated), (1 << 20, true));
        let second = storage.next_extent(1 << 20).unwrap();
        assert_eq!((second.len, second.allocated), (3 << 20, false));
        storage.punch_hole(0, 64 << 10).unwrap();
        assert!(!storage.next_extent(0).unwrap().allocated);
        assert_eq!(
            storage.next_extent(4 << 20).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
        let mut buf = [9u8; 2];
        storage.read_zero_padded(&mut buf, (4 << 20) - 1).unwrap();
        assert_eq!(buf, [0, 0]);
    }

    #[test]
    fn two_writers_and_a_reader_beside_a_writer_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0u8; 512]).unwrap();
        let reader = FileStorage::open(&path, FileOptions::read_only()).unwrap();
        let _second_reader = FileStorage::open(&path, FileOptions::read_only()).unwrap();
        let refused = FileStorage::open(&path, FileOptions::read_write()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked);
        drop((reader, _second_reader));
        let _writer = FileStorage::open(&path, FileOptions::read_write()).unwrap();
        for options in [FileOptions::read_only(), FileOptions::read_write()] {
            assert_eq!(
                FileStorage::open(&path, options).unwrap_err().kind(),
                ErrorKind::Locked
            );
        }
        let unprotected = FileOptions::read_only().with_lock(LockMode::Unprotected);
        FileStorage::open(&path, unprotected).unwrap();
    }

    #[test]
    fn a_lock_ends_with_the_storage_even_while_a_forked_child_has_its_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0u8; 512]).unwrap();
        let writer = FileStorage::open(&path, FileOptions::read_write()).unwrap();
        let as_a_child_has_it = writer.as_file().unwrap().try_clone().unwrap();
        drop(writer);
        FileStorage::open(&path, FileOptions::read_write()).unwrap();
        drop(as_a_child_has_it);
    }

    #[test]
    fn directories_and_pipes_are_no_images() {
        let dir = tempfile::tempdir().unwrap();
        let refused = FileStorage::open(dir.path(), FileOptions::read_only()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        #[cfg(target_os = "linux")]
        {
            let fifo = dir.path().join("fifo");
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
            let refused = FileStorage::open(&fifo, FileOptions::read_only()).unwrap_err();
            assert_eq!(
                refused.kind(),
                ErrorKind::Unsupported,
                "and it does not wait for a writer"
            );
        }
    }

    #[test]
    fn one_file_has_one_identity_under_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, [0u8; 512]).unwrap();
        std::fs::hard_link(&a, &b).unwrap();
        let open = |path| FileStorage::open(path, FileOptions::read_only()).unwrap();
        assert_eq!(open(&a).identity(), open(&b).identity());
        assert!(open(&a).identity().is_some());
    }
}
