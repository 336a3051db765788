//! Host byte containers: where an image's own bytes live.

mod direct;
mod file;
mod memory;
mod overlay;
mod read_ahead;
mod read_only;
mod scattered;
mod sys;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod uring;
mod window;

use std::fmt::Debug;
use std::fs::File;
use std::io;

pub use file::{FileOptions, FileStorage, LockMode};
pub use memory::MemoryStorage;
pub use overlay::OverlayStorage;
pub use read_ahead::ReadAhead;
pub use read_only::ReadOnlyStorage;
pub use scattered::{ReadPart, Scattered};
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub use uring::UringStorage;
pub use window::WindowStorage;

use crate::{Error, ErrorKind, Result};

/// Which host file a storage is, so that a loop of parents is seen whatever the names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device (or another space of identities).
    pub space: u64,
    /// File within it.
    pub file: u64,
}

/// How much a sync must make stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    /// Bytes, and the length where it is needed to reach them.
    Data,
    /// Bytes and everything the host keeps about the file.
    Full,
}

/// A run of a host file as the host tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostExtent {
    /// Bytes in the run, at least one.
    pub len: u64,
    /// False when the host stores nothing for it and it reads as zeros.
    pub allocated: bool,
}

/// A host byte container. Calls take `&self` and may come from many threads at once.
///
/// Only [`len`](Self::len) and [`read_at`](Self::read_at) must be written; what changes the bytes
/// is refused as read-only by default.
pub trait Storage: Send + Sync + Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    fn len(&self) -> Result<u64>;

    /// True when it holds no byte.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills all of `buf` from byte `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], also when the container ends before `buf` is full.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Fills all `parts`, in any order or at once: what one request for a disk comes to where its bytes
    /// lie in several places. Default: one after the other.
    ///
    /// Parts keep their offsets. After an error any of them may be filled or not.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at), of any of them.
    fn read_scattered(&self, parts: &mut [ReadPart<'_>]) -> Result<()> {
        let mut parts = parts.iter_mut();
        parts.try_for_each(|part| self.read_at(part.buf, part.offset))
    }

    /// Writes all of `buf` at byte `offset`, growing the container where needed.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`], [`ErrorKind::Io`].
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let _ = (buf, offset);
        Err(refused())
    }

    /// Makes the container `len` bytes long; new bytes read as zeros.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn set_len(&self, len: u64) -> Result<()> {
        let _ = len;
        Err(refused())
    }

    /// Returns when everything written so far is on stable storage.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    fn sync(&self, kind: SyncKind) -> Result<()> {
        let _ = kind;
        Ok(())
    }

    /// Gives the space of a range back to the host; it reads as zeros. The length stays.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the host cannot, and as [`write_at`](Self::write_at).
    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Err(refused())
    }

    /// Makes a range read as zeros by whatever means the host has, growing the container where
    /// needed.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        write_zeros(self, offset, len)
    }

    /// Has the host set space aside for a range, growing the container where needed; what it holds
    /// stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the host cannot, and as [`write_at`](Self::write_at).
    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Err(ErrorKind::Unsupported.into())
    }

    /// Tells whether the run that starts at `offset` (inside the container) is allocated. A
    /// container that cannot tell calls everything allocated.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] at or past the end, [`ErrorKind::Io`].
    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        match self.len()?.checked_sub(offset) {
            Some(len) if len > 0 => Ok(HostExtent {
                len,
                allocated: true,
            }),
            _ => Err(past_end(offset)),
        }
    }

    /// Copies bytes to another container without passing them through this process. Returns how
    /// many were copied: 0 when the host offers no such way between the two.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::NoSpace`].
    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        let _ = (offset, to, to_offset, len);
        Ok(0)
    }

    /// Which host file this is, where that can be told.
    fn identity(&self) -> Option<FileId> {
        None
    }

    /// Changes what other processes may do with the container while it is open.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when another process already does it.
    fn lock(&self, mode: LockMode) -> Result<()> {
        let _ = mode;
        Ok(())
    }

    /// True when changes are refused.
    fn is_read_only(&self) -> bool {
        true
    }

    /// Bytes that the host has set aside for the container.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::Unsupported`] where nobody can tell.
    fn allocated_len(&self) -> Result<u64> {
        self.len()
    }

    /// The file beneath, for host calls that work between two files.
    fn as_file(&self) -> Option<&File> {
        None
    }
}

/// Reads in the shapes that parsers want.
pub trait StorageExt: Storage {
    /// Fills `buf` from byte `offset` as far as the container goes and returns how many bytes that
    /// was; the rest of `buf` is left as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    fn read_up_to(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let there = self.len()?.saturating_sub(offset).min(buf.len() as u64);
        let there = usize::try_from(there).expect("no more than the buffer holds");
        if there > 0 {
            self.read_at(&mut buf[..there], offset)?;
        }
        Ok(there)
    }

    /// Fills `buf` from byte `offset`; bytes past the end of the container are zeros.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    fn read_zero_padded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        // Nearly every read lies inside; to ask for the length before each would be a second call of
        // the host's.
        let Err(error) = self.read_at(buf, offset) else {
            return Ok(());
        };
        let there = self.len()?.saturating_sub(offset);
        if there >= buf.len() as u64 {
            // Another thread may have made it longer meanwhile.
            return match met_the_end(&error) {
                true => self.read_at(buf, offset),
                false => Err(error),
            };
        }
        let there = self.read_up_to(buf, offset)?;
        buf[there..].fill(0);
        Ok(())
    }
}

impl<S: Storage + ?Sized> StorageExt for S {}

/// True when a read failed for want of bytes.
fn met_the_end(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::UnexpectedEof)
}

/// The refusal of every change to something opened for reading.
fn refused() -> Error {
    Error::new(ErrorKind::ReadOnly, "the file is opened read-only")
}

fn past_end(offset: u64) -> Error {
    Error::new(
        ErrorKind::OutOfRange,
        format!("{offset:#x} is past the end of the file"),
    )
}

/// Zeros by plain writes, in pieces.
fn write_zeros<S: Storage + ?Sized>(storage: &S, offset: u64, len: u64) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(ZEROS.len() as u64);
        let bytes = usize::try_from(piece).expect("no more than the buffer holds");
        let at = offset.checked_add(done).ok_or_else(|| past_end(offset))?;
        storage.write_at(&ZEROS[..bytes], at)?;
        done += piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Ten bytes, which count how often they are asked how many they are.
    #[derive(Debug, Default)]
    struct Ten {
        asked: AtomicUsize,
        is_broken: bool,
    }

    impl Storage for Ten {
        fn len(&self) -> Result<u64> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(10)
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            if self.is_broken || offset + buf.len() as u64 > 10 {
                return Err(Error::new(ErrorKind::Io, "not there"));
            }
            buf.fill(7);
            Ok(())
        }
    }

    #[test]
    fn a_padded_read_asks_for_the_length_only_past_the_end() {
        let storage = Ten::default();
        let mut buf = [1; 4];
        storage.read_zero_padded(&mut buf, 6).unwrap();
        assert_eq!(buf, [7; 4]);
        assert_eq!(storage.asked.load(Ordering::Relaxed), 0);
        storage.read_zero_padded(&mut buf, 7).unwrap();
        assert_eq!(buf, [7, 7, 7, 0]);
        let broken = Ten {
            is_broken: true,
            ..Ten::default()
        };
        assert!(broken.read_zero_padded(&mut buf, 6).is_err());
        assert!(broken.read_zero_padded(&mut buf, 7).is_err());
    }

    /// Grows while it is asked for its length.
    #[derive(Debug, Default)]
    struct Growing(AtomicUsize);

    impl Storage for Growing {
        fn len(&self) -> Result<u64> {
            self.0.store(8, Ordering::Relaxed);
            Ok(8)
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let len = self.0.load(Ordering::Relaxed) as u64;
            if crate::fits(offset, buf.len() as u64, len).is_err() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            buf.fill(7);
            Ok(())
        }
    }

    /// A reader met the end of the file just when another thread wrote behind it, and was told of
    /// an error that nobody else saw.
    #[test]
    fn a_file_that_grows_under_a_padded_read_is_no_error() {
        let mut buf = [1; 8];
        Growing::default().read_zero_padded(&mut buf, 0).unwrap();
        assert_eq!(buf, [7; 8]);
    }
}
