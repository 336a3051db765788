//! A container that cannot be changed through this handle, whatever is beneath.

use std::fs::File;
use std::sync::Arc;

use super::refused;
use crate::{FileId, HostExtent, ReadPart, Result, Storage};

/// Passes reads on and refuses everything that would change a byte.
#[derive(Debug, Clone)]
pub struct ReadOnlyStorage {
    inner: Arc<dyn Storage>,
}

impl ReadOnlyStorage {
    /// Shields `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner }
    }
}

impl Storage for ReadOnlyStorage {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn read_scattered(&self, parts: &mut [ReadPart<'_>]) -> Result<()> {
        self.inner.read_scattered(parts)
    }

    fn allocate(&self, _: u64, _: u64) -> Result<()> {
        Err(refused())
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        self.inner.next_extent(offset)
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.inner.copy_range_to(offset, to, to_offset, len)
    }

    fn identity(&self) -> Option<FileId> {
        self.inner.identity()
    }

    fn allocated_len(&self) -> Result<u64> {
        self.inner.allocated_len()
    }

    fn as_file(&self) -> Option<&File> {
        self.inner.as_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, MemoryStorage, SyncKind};

    #[test]
    fn every_change_is_refused() {
        let inner = Arc::new(MemoryStorage::from(vec![1u8; 16]));
        let shielded = ReadOnlyStorage::new(inner.clone());
        let refusals = [
            shielded.write_at(&[0], 0),
            shielded.set_len(0),
            shielded.punch_hole(0, 8),
            shielded.zero_range(0, 8),
            shielded.allocate(0, 8),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        shielded.sync(SyncKind::Full).unwrap();
        assert_eq!(inner.to_vec(), [1u8; 16]);
    }
}
