//! Raw images: the disk's bytes and nothing else. Any chain may end in one.

use std::any::Any;
use std::sync::Arc;

use crate::{
    Below, Caps, CheckReport, DeviceInfo, DiscardMode, Error, ErrorKind, Extent, ExtentKind,
    FileRef, FormatDriver, Holes, HostFile, HostPlace, Layer, OpenMode, OpenOptions, ProbeInput,
    RawGuard, ReadOnlyStorage, Result, Storage, StorageExt, SyncKind, ZeroFlags,
};

/// Bytes whose content decides what a file is taken for.
const PROBED_BYTES: usize = 512;

/// A raw image.
pub struct RawLayer {
    storage: Arc<dyn Storage>,
    info: DeviceInfo,
    guard: Option<RawGuard>,
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
            guard: None,
        })
    }

    /// The same, refusing writes after which the image would be taken for another format. For
    /// images that were taken for raw by a guess: a guest must not choose what its disk is.
    #[must_use]
    pub fn guarded(mut self, guard: RawGuard) -> Self {
        self.guard = Some(guard);
        self
    }

    fn check_guard(&self, buf: &[u8], offset: u64) -> Result<()> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        let Ok(from) = usize::try_from(offset) else {
            return Ok(());
        };
        if from >= PROBED_BYTES {
            return Ok(());
        }
        let mut head = [0; PROBED_BYTES];
        self.storage.read_zero_padded(&mut head, 0)?;
        let len = buf.len().min(PROBED_BYTES - from);
        head[from..from + len].copy_from_slice(&buf[..len]);
        match guard(&head) {
            None => Ok(()),
            Some(format) => Err(Error::new(
                ErrorKind::Policy,
                format!(
                    "after this write the image would be taken for {format}: its format was \
                     guessed to be raw; say so explicitly to allow it"
                ),
            )),
        }
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
        self.check_guard(buf, offset)?;
        self.storage.write_at(buf, offset)
    }

    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags, _below: &dyn Below) -> Result<()> {
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

    fn discard(&self, offset: u64, len: u64, _mode: DiscardMode) -> Result<()> {
        match self.storage.punch_hole(offset, len) {
            // A discard is leave to free space, not an order.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }

    fn flush(&self) -> Result<()> {
        self.storage.sync(SyncKind::Data)
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
