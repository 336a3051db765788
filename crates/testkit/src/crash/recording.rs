//! A file in memory that writes down everything that changes it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev_core::{HostExtent, Result, Storage, SyncKind};

use super::state::{extent, short_read, zero_range};
use super::{Image, index};

/// One line of the log. Its index is the moment at which it happened.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Bytes were written, growing the file where needed.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// The length was set.
    SetLen {
        /// The new length in bytes.
        len: u64,
    },
    /// A range became a hole; the length stayed.
    Punch {
        /// Where.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A range became zeros, growing the file where needed.
    Zero {
        /// Where.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A sync was completed; what was logged before `since` is durable by it.
    Sync {
        /// How much it makes stable.
        kind: SyncKind,
        /// The log's length when it was begun.
        since: usize,
    },
    /// A sync failed: what was pending may be there or not, and no later sync helps it.
    SyncFailed,
    /// The driver's word.
    Mark(Mark),
}

/// What the driver of a scenario notes between the file's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A guest operation begins.
    Begin(u32),
    /// A guest operation ended; `settles` when something is promised to be durable from here on.
    End {
        /// Its number.
        op: u32,
        /// A flush was completed, or a control operation that is durable at its end.
        settles: bool,
    },
}

impl Entry {
    /// True for what changes bytes or length.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Sync { .. } | Self::SyncFailed | Self::Mark(_))
    }

    /// Does it all to `image`.
    pub fn apply(&self, image: &mut Image) {
        match self {
            Self::Write { offset, bytes } => image.write(*offset, bytes),
            Self::SetLen { len } => image.set_len(*len),
            Self::Punch { offset, len } => image.zero(*offset, *len),
            Self::Zero { offset, len } => zero_range(image, *offset, *len),
            Self::Sync { .. } | Self::SyncFailed | Self::Mark(_) => {}
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "write {:#x}+{:#x}", offset, bytes.len()),
            Self::SetLen { len } => write!(f, "set_len {len:#x}"),
            Self::Punch { offset, len } => write!(f, "punch {offset:#x}+{len:#x}"),
            Self::Zero { offset, len } => write!(f, "zero {offset:#x}+{len:#x}"),
            Self::Sync { kind, since } => write!(f, "sync {kind:?} since {since}"),
            Self::SyncFailed => f.write_str("sync failed"),
            Self::Mark(mark) => write!(f, "{mark:?}"),
        }
    }
}

#[derive(Debug)]
struct Inner {
    image: Image,
    log: Vec<Entry>,
}

/// A writable file in memory that logs each change with its bytes. Reads are served from the file
/// as it is now.
#[derive(Debug)]
pub struct RecordingStorage(Mutex<Inner>);

impl RecordingStorage {
    /// A file that holds `image`, with an empty log.
    #[must_use]
    pub fn new(image: Image) -> Arc<Self> {
        let log = Vec::with_capacity(256);
        Arc::new(Self(Mutex::new(Inner { image, log })))
    }

    /// The file as it is now.
    #[must_use]
    pub fn image(&self) -> Image {
        self.lock_inner().image.clone()
    }

    /// A copy of the log.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        self.lock_inner().log.clone()
    }

    /// The log's length: the present moment.
    #[must_use]
    pub fn now(&self) -> usize {
        self.lock_inner().log.len()
    }

    /// Adds the driver's word and returns the moment it stands for.
    pub fn mark(&self, mark: Mark) -> usize {
        self.push(Entry::Mark(mark))
    }

    /// Notes that a sync failed, on behalf of a storage in front that made it fail.
    pub fn sync_failed(&self) {
        self.push(Entry::SyncFailed);
    }

    fn push(&self, entry: Entry) -> usize {
        let mut inner = self.lock_inner();
        entry.apply(&mut inner.image);
        inner.log.push(entry);
        inner.log.len() - 1
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for RecordingStorage {
    fn len(&self) -> Result<u64> {
        Ok(self.lock_inner().image.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.lock_inner().image.read(offset, buf) {
            Ok(())
        } else {
            Err(short_read(offset, buf.len()))
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if !buf.is_empty() {
            let bytes = buf.into();
            self.push(Entry::Write { offset, bytes });
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.push(Entry::SetLen { len });
        Ok(())
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        // Others may write between the two locks: that is what `since` is for.
        let since = self.now();
        self.push(Entry::Sync { kind, since });
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.push(Entry::Punch { offset, len });
        Ok(())
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.push(Entry::Zero { offset, len });
        Ok(())
    }

    /// A crash may lose the space, which no test can tell, or the growth.
    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len);
        if end > self.len()? {
            self.push(Entry::SetLen { len: end });
        }
        Ok(())
    }

    /// By way of memory, so that the other side sees (and logs) a write.
    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        let mut bytes = vec![0; index(len.min(1 << 20))];
        self.read_at(&mut bytes, offset)?;
        to.write_at(&bytes, to_offset)?;
        Ok(bytes.len() as u64)
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        extent(&self.lock_inner().image, offset)
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_replayed_over_the_first_bytes_gives_the_last() {
        let first = Image::from(&[1; 4096][..]);
        let storage = RecordingStorage::new(first.clone());
        storage.write_at(&[2; 700], 4000).unwrap();
        storage.punch_hole(100, 50).unwrap();
        storage.zero_range(6000, 100).unwrap();
        storage.copy_range_to(0, &*storage, 8000, 300).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.set_len(8100).unwrap();
        assert_eq!(storage.mark(Mark::Begin(1)), 6);
        let mut again = first;
        for entry in storage.log() {
            entry.apply(&mut again);
        }
        assert_eq!(again.to_vec(), storage.image().to_vec());
        assert_eq!(again.len(), 8100);
    }
}
