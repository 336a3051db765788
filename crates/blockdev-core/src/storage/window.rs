//! A part of a container as a container of its own: a partition, an image inside an archive.

use std::sync::Arc;

use super::past_end;
use crate::{Error, ErrorKind, HostExtent, ReadPart, Result, Storage, SyncKind, fits};

/// Bytes `[start, start + len)` of another container. Its length cannot be changed.
#[derive(Debug, Clone)]
pub struct WindowStorage {
    inner: Arc<dyn Storage>,
    start: u64,
    len: u64,
}

impl WindowStorage {
    /// The window of `len` bytes from `start` of `inner`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] when `inner` does not hold the whole window.
    pub fn new(inner: Arc<dyn Storage>, start: u64, len: u64) -> Result<Self> {
        fits(start, len, inner.len()?)?;
        Ok(Self { inner, start, len })
    }

    /// `offset` as an offset of the container beneath, once `len` bytes there are in the window.
    fn place(&self, offset: u64, len: u64) -> Result<u64> {
        fits(offset, len, self.len)?;
        Ok(self.start + offset)
    }
}

impl Storage for WindowStorage {
    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner
            .read_at(buf, self.place(offset, buf.len() as u64)?)
    }

    fn read_scattered(&self, parts: &mut [ReadPart<'_>]) -> Result<()> {
        for part in &*parts {
            self.place(part.offset, part.buf.len() as u64)?;
        }
        // They are the caller's, and keep their places.
        parts.iter_mut().for_each(|part| part.offset += self.start);
        let read = self.inner.read_scattered(parts);
        parts.iter_mut().for_each(|part| part.offset -= self.start);
        read
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.inner
            .write_at(buf, self.place(offset, buf.len() as u64)?)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if len == self.len {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            "a window of a file cannot change its length",
        ))
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.inner.sync(kind)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.punch_hole(self.place(offset, len)?, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.zero_range(self.place(offset, len)?, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.allocate(self.place(offset, len)?, len)
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        if offset >= self.len {
            return Err(past_end(offset));
        }
        let extent = self.inner.next_extent(self.start + offset)?;
        Ok(HostExtent {
            len: extent.len.min(self.len - offset),
            ..extent
        })
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.inner
            .copy_range_to(self.place(offset, len)?, to, to_offset, len)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;

    #[test]
    fn nothing_outside_the_window_is_reached() {
        let inner = Arc::new(MemoryStorage::from((0..100).collect::<Vec<u8>>()));
        let window = WindowStorage::new(inner.clone(), 10, 20).unwrap();
        let mut buf = [0; 4];
        window.read_at(&mut buf, 16).unwrap();
        assert_eq!(buf, [26, 27, 28, 29]);
        assert_eq!(
            window.read_at(&mut buf, 17).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
        assert_eq!(
            window.write_at(&[1; 4], 17).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
        window.allocate(0, 20).unwrap();
        assert_eq!(
            window.allocate(0, 21).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
        assert_eq!(window.next_extent(5).unwrap().len, 15);
        assert_eq!(
            WindowStorage::new(inner, 90, 11).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
    }
}
