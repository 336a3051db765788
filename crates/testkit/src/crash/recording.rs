//! Files in memory, and one log of everything that changes any of them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev_core::{HostExtent, Result, Storage, SyncKind};

use super::state::{extent, short_read, zero_range};
use super::{Image, index};

/// One line of the log. Its index is the moment at which it happened.
#[derive(Debug, Clone)]
pub struct Line {
    /// Which of the files it is about, from 0. The driver's word is about none, and has 0 here.
    pub file: usize,
    /// What happened.
    pub entry: Entry,
}

/// What happens to a file, and what the driver says to it.
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
    /// A sync was completed; what was logged of this file before `since` is durable by it.
    Sync {
        /// How much it makes stable.
        kind: SyncKind,
        /// The log's length when it was begun.
        since: usize,
    },
    /// A sync failed: what was pending of this file may be there or not, and no later sync helps it.
    SyncFailed,
    /// The driver's word.
    Mark(Mark),
}

/// What the driver of a scenario notes between the files' operations.
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

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file > 0 {
            write!(f, "file {}: ", self.file)?;
        }
        self.entry.fmt(f)
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
    images: Vec<Image>,
    log: Vec<Line>,
}

/// Writable files in memory and the log of what changes them, with its bytes.
#[derive(Debug)]
pub struct Recording(Mutex<Inner>);

impl Recording {
    /// Files that hold `images`, with an empty log.
    #[must_use]
    pub fn new(images: Vec<Image>) -> Arc<Self> {
        let log = Vec::with_capacity(256);
        Arc::new(Self(Mutex::new(Inner { images, log })))
    }

    /// Every file as a storage, in order.
    #[must_use]
    pub fn storages(self: &Arc<Self>) -> Vec<Arc<dyn Storage>> {
        let storage = |file| -> Arc<dyn Storage> {
            Arc::new(RecordingStorage {
                recording: Arc::clone(self),
                file,
            })
        };
        (0..self.lock_inner().images.len()).map(storage).collect()
    }

    /// The files as they are now.
    #[must_use]
    pub fn images(&self) -> Vec<Image> {
        self.lock_inner().images.clone()
    }

    /// A copy of the log.
    #[must_use]
    pub fn log(&self) -> Vec<Line> {
        self.lock_inner().log.clone()
    }

    /// The log's length: the present moment.
    #[must_use]
    pub fn now(&self) -> usize {
        self.lock_inner().log.len()
    }

    /// Adds the driver's word and returns the moment it stands for.
    pub fn mark(&self, mark: Mark) -> usize {
        self.push(0, Entry::Mark(mark))
    }

    /// Notes that a sync of `file` failed, on behalf of a storage in front that made it fail.
    pub fn sync_failed(&self, file: usize) {
        self.push(file, Entry::SyncFailed);
    }

    fn push(&self, file: usize, entry: Entry) -> usize {
        let mut inner = self.lock_inner();
        entry.apply(&mut inner.images[file]);
        inner.log.push(Line { file, entry });
        inner.log.len() - 1
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the files. Reads are served from it as it is now.
#[derive(Debug)]
struct RecordingStorage {
    recording: Arc<Recording>,
    file: usize,
}

impl RecordingStorage {
    fn push(&self, entry: Entry) {
        self.recording.push(self.file, entry);
    }

    fn image<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.recording.lock_inner().images[self.file])
    }
}

impl Storage for RecordingStorage {
    fn len(&self) -> Result<u64> {
        Ok(self.image(Image::len))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.image(|image| image.read(offset, buf)) {
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
        let since = self.recording.now();
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
        self.image(|image| extent(image, offset))
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
        let recording = Recording::new(vec![first.clone(), Image::default()]);
        let [storage, other] = &recording.storages()[..] else {
            panic!("two files");
        };
        storage.write_at(&[2; 700], 4000).unwrap();
        storage.punch_hole(100, 50).unwrap();
        storage.zero_range(6000, 100).unwrap();
        storage.copy_range_to(0, &**storage, 8000, 300).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.set_len(8100).unwrap();
        assert_eq!(recording.mark(Mark::Begin(1)), 6);
        storage.copy_range_to(3900, &**other, 10, 200).unwrap();
        let mut again = [first, Image::default()];
        for line in recording.log() {
            line.entry.apply(&mut again[line.file]);
        }
        for (again, now) in again.iter().zip(recording.images()) {
            assert_eq!(again.to_vec(), now.to_vec());
        }
        assert_eq!(again.map(|image| image.len()), [8100, 210]);
    }
}
