//! Raw images: the disk's bytes and nothing else. Any chain may end in one.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    Below, Caps, CheckReport, DeviceInfo, DiscardMode, Error, ErrorKind, Extent, ExtentKind,
    FileRef, Flushes, FormatDriver, Holes, HostFile, HostPlace, Layer, OpenMode, OpenOptions,
    ProbeInput, RawGuard, ReadOnlyStorage, Result, Storage, StorageExt, SyncKind, ZeroFlags,
};

/// Bytes whose content decides what a file is taken for.
const PROBED_BYTES: usize = 512;

/// A raw image.
pub struct RawLayer {
    storage: Arc<dyn Storage>,
    info: DeviceInfo,
    flushes: Flushes,
    /// A sync failed. What the host dropped then it reports once, and calls later syncs a success.
    is_poisoned: AtomicBool,
    guard: Option<Guarded>,
}

/// Watches the bytes that decide what the file is taken for.
struct Guarded {
    name: RawGuard,
    /// Held from the look to the change, lest two halves of a mark pass side by side.
    head: Mutex<()>,
}

impl std::fmt::Debug for RawLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawLayer")
            .field("info", &self.info)
            .field("guarded", &self.guard.is_some())
            .finish_non_exhaustive()
    }
}

impl RawLayer {
    /// The disk that is all of `storage`, writable where the storage is.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when its length cannot be told.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let read_only = storage.is_read_only();
        let info = DeviceInfo {
            size: storage.len()?,
            logical_sector_size: 512,
            physical_sector_size: 512,
            block_size: None,
            read_only,
            format: RawDriver.name(),
            caps: Caps {
                write: !read_only,
                write_zeroes: !read_only,
                discard: !read_only,
            },
        };
        Ok(Self {
            storage,
            info,
            flushes: Flushes::default(),
            is_poisoned: AtomicBool::new(false),
            guard: None,
        })
    }

    /// The same, refusing writes after which the image would be taken for another format. For
    /// images that were taken for raw by a guess: a guest must not choose what its disk is.
    #[must_use]
    pub fn guarded(mut self, guard: RawGuard) -> Self {
        self.guard = Some(Guarded {
            name: guard,
            head: Mutex::new(()),
        });
        self
    }

    /// Makes the disk `size` bytes long: new bytes are zeros, bytes beyond a new end are lost.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`], [`ErrorKind::Io`]; [`ErrorKind::Poisoned`] after
    /// a sync that failed.
    pub fn resize(&mut self, size: u64) -> Result<()> {
        self.check_poison()?;
        self.storage.set_len(size)?;
        self.sync(SyncKind::Full)?;
        self.info.size = size;
        Ok(())
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.check_poison()?;
        let outcome = self.storage.sync(kind);
        if outcome.is_err() {
            self.is_poisoned.store(true, Ordering::Release);
        }
        outcome
    }

    fn check_poison(&self) -> Result<()> {
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(ErrorKind::Poisoned.into());
        }
        Ok(())
    }

    /// Makes a `change` of `len` bytes from `offset`, which `fill` shows on the part of them it is
    /// given, unless the image would be taken for another format after it.
    fn guarded_change(
        &self,
        offset: u64,
        len: u64,
        fill: impl FnOnce(&mut [u8]),
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.check_poison()?;
        let from = usize::try_from(offset).unwrap_or(PROBED_BYTES);
        let (Some(guard), true) = (&self.guard, from < PROBED_BYTES && len > 0) else {
            return change();
        };
        let _order = guard.head.lock().unwrap_or_else(PoisonError::into_inner);
        let mut head = [0; PROBED_BYTES];
        self.storage.read_zero_padded(&mut head, 0)?;
        let room = PROBED_BYTES - from;
        let len = usize::try_from(len).map_or(room, |len| len.min(room));
        fill(&mut head[from..from + len]);
        match (guard.name)(&head) {
            None => change(),
            Some(format) => Err(Error::new(
                ErrorKind::Policy,
                format!(
                    "after this write the image would be taken for {format}: its format was \
                     guessed to be raw; say so explicitly to allow it"
                ),
            )),
        }
    }

    fn zero_unguarded(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        if flags.may_unmap {
            match self.storage.punch_hole(offset, len) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                other => return other,
            }
        }
        if flags.no_fallback {
            // Whether the host zeroes at once or byte by byte is not known before it is asked.
            return Err(ErrorKind::Unsupported.into());
        }
        self.storage.zero_range(offset, len)
    }
}

impl Layer for RawLayer {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn file_refs(&self) -> &[FileRef] {
        &[]
    }

    fn next_extent(&self, offset: u64, len: u64) -> Result<Extent> {
        let host = self.storage.next_extent(offset)?;
        let kind = if host.allocated {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        let place = HostPlace {
            file: HostFile::Image,
            offset,
        };
        Ok(Extent {
            len: host.len.min(len),
            kind,
            depth: 0,
            host: Some(place),
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64, _holes: &mut Holes) -> Result<()> {
        self.storage.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64, _below: &dyn Below) -> Result<()> {
        let fill = |head: &mut [u8]| head.copy_from_slice(&buf[..head.len()]);
        self.guarded_change(offset, buf.len() as u64, fill, || {
            self.storage.write_at(buf, offset)
        })
    }

    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags, _below: &dyn Below) -> Result<()> {
        let fill = |head: &mut [u8]| head.fill(0);
        self.guarded_change(offset, len, fill, || {
            self.zero_unguarded(offset, len, flags)
        })
    }

    fn discard(&self, offset: u64, len: u64, _mode: DiscardMode) -> Result<()> {
        let fill = |head: &mut [u8]| head.fill(0);
        self.guarded_change(offset, len, fill, || {
            match self.storage.punch_hole(offset, len) {
                // A discard is leave to free space, not an order.
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
                other => other,
            }
        })
    }

    fn flush(&self) -> Result<()> {
        self.flushes.share(|| self.sync(SyncKind::Data))
    }

    fn host(&self, file: HostFile) -> Option<&dyn Storage> {
        match file {
            HostFile::Image => Some(&*self.storage),
            HostFile::Data => None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The raw "format".
#[derive(Debug, Clone, Copy, Default)]
pub struct RawDriver;

impl FormatDriver for RawDriver {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn probe(&self, _input: &ProbeInput<'_>) -> bool {
        false
    }

    fn open(&self, storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Box<dyn Layer>> {
        let storage: Arc<dyn Storage> = match options.mode {
            OpenMode::ReadOnly => Arc::new(ReadOnlyStorage::new(storage)),
            OpenMode::ReadWrite => storage,
        };
        let layer = RawLayer::open(storage)?;
        Ok(Box::new(match &options.raw_guard {
            Some(guard) => layer.guarded(Arc::clone(guard)),
            None => layer,
        }))
    }

    fn check(&self, _: Arc<dyn Storage>, _: &OpenOptions) -> Result<Option<CheckReport>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockDevice, LoneLayer, MemoryStorage};

    fn disk(options: &OpenOptions) -> (Arc<MemoryStorage>, LoneLayer) {
        let storage = Arc::new(MemoryStorage::from(vec![1u8; 4096]));
        let layer = RawDriver.open(storage.clone(), options).unwrap();
        (storage, LoneLayer::new(layer))
    }

    /// Fails the first sync, and calls every other one a success, as a host does that dropped pages.
    #[derive(Debug, Default)]
    struct Forgetful {
        inner: MemoryStorage,
        has_failed: AtomicBool,
    }

    impl Storage for Forgetful {
        fn len(&self) -> Result<u64> {
            self.inner.len()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.inner.read_at(buf, offset)
        }

        fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
            self.inner.write_at(buf, offset)
        }

        fn sync(&self, _: SyncKind) -> Result<()> {
            match self.has_failed.swap(true, Ordering::AcqRel) {
                false => Err(Error::new(ErrorKind::Io, "dropped")),
                true => Ok(()),
            }
        }

        fn is_read_only(&self) -> bool {
            false
        }
    }

    /// The host tells of lost bytes once: who flushed next was told that they were stable.
    #[test]
    fn no_flush_succeeds_after_one_that_failed() {
        let storage = Forgetful::default();
        storage.write_at(&[1; 4096], 0).unwrap();
        let disk = LoneLayer::new(Box::new(RawLayer::open(Arc::new(storage)).unwrap()));
        disk.write_at(&[2; 8], 1000).unwrap();
        assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::Poisoned);
        let write = disk.write_at(&[3; 8], 1000);
        assert_eq!(write.unwrap_err().kind(), ErrorKind::Poisoned);
        let mut buf = [0; 8];
        disk.read_at(&mut buf, 1000).unwrap();
        assert_eq!(buf, [2; 8]);
    }

    #[test]
    fn a_read_only_disk_cannot_be_changed() {
        let (storage, disk) = disk(&OpenOptions::read_only());
        let refusals = [
            disk.write_at(&[0; 8], 0),
            disk.write_zeroes(0, 8, ZeroFlags::default()),
            disk.discard(0, 8),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        disk.flush().unwrap();
        assert_eq!(storage.to_vec(), [1u8; 4096]);
    }

    #[test]
    fn a_guest_cannot_turn_its_guessed_raw_disk_into_another_format() {
        let guard: RawGuard = Arc::new(|head| head.starts_with(b"vhdxfile").then_some("vhdx"));
        let (storage, disk) = disk(&OpenOptions::read_write().with_raw_guard(guard));
        assert_eq!(
            disk.write_at(b"vhdxfile", 0).unwrap_err().kind(),
            ErrorKind::Policy
        );
        disk.write_at(b"vhdx", 0).unwrap();
        let second_half = disk.write_at(b"file", 4).unwrap_err();
        assert_eq!(
            second_half.kind(),
            ErrorKind::Policy,
            "in two steps it is refused as well"
        );
        disk.write_at(b"vhdxfile", 512).unwrap();
        assert_eq!(storage.to_vec()[..8], *b"vhdx\x01\x01\x01\x01");
    }

    #[test]
    fn zeros_complete_no_mark_either() {
        let guard: RawGuard = Arc::new(|head| head.starts_with(b"QED\0").then_some("qed"));
        let (storage, disk) = disk(&OpenOptions::read_write().with_raw_guard(guard));
        disk.write_at(b"QEDx", 0).unwrap();
        let refusals = [
            disk.write_zeroes(3, 1, ZeroFlags::default()),
            disk.write_zeroes(1, 4095, ZeroFlags::default())
                .and(disk.write_at(b"QED", 0)),
            disk.discard(3, 8),
        ];
        assert!(refusals[0].is_err() && refusals[1].is_err());
        for refusal in refusals.into_iter().filter_map(Result::err) {
            assert_eq!(refusal.kind(), ErrorKind::Policy);
        }
        assert_ne!(storage.to_vec()[..4], *b"QED\0");
    }

    #[test]
    fn two_halves_of_a_mark_do_not_pass_side_by_side() {
        let guard: RawGuard = Arc::new(|head| {
            std::thread::yield_now();
            head.starts_with(b"vhdxfile").then_some("vhdx")
        });
        for _ in 0..200 {
            let (storage, disk) = disk(&OpenOptions::read_write().with_raw_guard(guard.clone()));
            std::thread::scope(|scope| {
                scope.spawn(|| disk.write_at(b"vhdx", 0));
                scope.spawn(|| disk.write_at(b"file", 4));
            });
            assert_ne!(storage.to_vec()[..8], *b"vhdxfile");
        }
    }

    #[test]
    fn the_end_of_the_disk_is_the_end() {
        let (_, disk) = disk(&OpenOptions::read_write());
        let mut buf = [0; 2];
        assert_eq!(
            disk.read_at(&mut buf, 4095).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
        assert_eq!(
            disk.write_at(&buf, 4095).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
        assert_eq!(
            disk.block_status(0, 0).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            disk.block_status(4096, 1).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
    }
}
