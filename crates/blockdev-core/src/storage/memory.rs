//! A container in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::past_end;
use crate::{Error, ErrorKind, FileId, Result, Storage, fits};

/// Bytes in memory, readable and writable.
#[derive(Debug)]
pub struct MemoryStorage {
    bytes: RwLock<Vec<u8>>,
    identity: FileId,
}

/// Containers made so far by this process: each has an identity of its own.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The space of identities that no device has.
const IN_MEMORY: u64 = u64::MAX - 1;

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<u8>> for MemoryStorage {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes: RwLock::new(bytes),
            identity: FileId {
                space: IN_MEMORY,
                file: MADE.fetch_add(1, Ordering::Relaxed),
            },
        }
    }
}

impl MemoryStorage {
    /// A copy of the bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Gives the bytes back.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// `len` bytes from `offset` as an index range of something `size` long.
fn index(offset: u64, len: usize, size: usize) -> Result<std::ops::Range<usize>> {
    fits(offset, len as u64, size as u64).map_err(|_| {
        Error::from(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            format!("{len} bytes at {offset:#x} reach past the end of the file ({size} bytes)"),
        ))
    })?;
    let from = usize::try_from(offset).expect("inside a buffer");
    Ok(from..from + len)
}

fn too_large() -> Error {
    Error::new(ErrorKind::NoSpace, "more than memory can address")
}

impl Storage for MemoryStorage {
    fn len(&self) -> Result<u64> {
        Ok(self
            .bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let range = index(offset, buf.len(), bytes.len())?;
        buf.copy_from_slice(&bytes[range]);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let end = offset
            .checked_add(buf.len() as u64)
            .ok_or_else(|| past_end(offset))?;
        let end = usize::try_from(end).map_err(|_| too_large())?;
        if bytes.len() < end {
            let more = end - bytes.len();
            bytes.try_reserve(more).map_err(|_| too_large())?;
            bytes.resize(end, 0);
        }
        bytes[end - buf.len()..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let len = usize::try_from(len).map_err(|_| too_large())?;
        let more = len.saturating_sub(bytes.len());
        bytes.try_reserve(more).map_err(|_| too_large())?;
        bytes.resize(len, 0);
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let size = bytes.len() as u64;
        let from = offset.min(size);
        let to = offset.saturating_add(len).min(size);
        let clamp = |at: u64| usize::try_from(at).expect("inside a buffer");
        bytes[clamp(from)..clamp(to)].fill(0);
        Ok(())
    }

    /// Memory is set aside by growing.
    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).ok_or_else(|| past_end(offset))?;
        if end > self.len()? {
            self.set_len(end)?;
        }
        Ok(())
    }

    fn identity(&self) -> Option<FileId> {
        Some(self.identity)
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorageExt;

    #[test]
    fn reads_past_the_end_are_errors_unless_padding_was_asked_for() {
        let storage = MemoryStorage::from(vec![9u8; 10]);
        let mut buf = [1u8; 8];
        assert_eq!(
            storage.read_at(&mut buf, 6).unwrap_err().kind(),
            ErrorKind::Io
        );
        storage.read_zero_padded(&mut buf, 6).unwrap();
        assert_eq!(buf, [9, 9, 9, 9, 0, 0, 0, 0]);
        storage.read_zero_padded(&mut buf, u64::MAX).unwrap();
        assert_eq!(buf, [0; 8]);
    }

    #[test]
    fn writes_grow_with_zeros_between() {
        let storage = MemoryStorage::default();
        storage.write_at(&[5], 3).unwrap();
        storage.punch_hole(3, u64::MAX).unwrap();
        storage.write_at(&[6], 4).unwrap();
        storage.allocate(1, 2).unwrap();
        assert_eq!(storage.to_vec(), [0, 0, 0, 0, 6]);
        storage.allocate(4, 2).unwrap();
        assert_eq!(storage.to_vec(), [0, 0, 0, 0, 6, 0]);
        assert_eq!(
            storage.write_at(&[1], u64::MAX).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
    }
}
