//! A disk as `std::io` sees one.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::BlockDevice;

/// `Read`, `Write` and `Seek` over any disk, for crates that expect a file.
///
/// # Example
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
/// use std::sync::Arc;
/// use blockdev_core::{DeviceCursor, LoneLayer, MemoryStorage, RawLayer};
///
/// let storage = Arc::new(MemoryStorage::from(b"boot sector ...".to_vec()));
/// let disk = LoneLayer::new(Box::new(RawLayer::open(storage)?));
/// let mut cursor = DeviceCursor::new(&disk);
/// cursor.seek(SeekFrom::Start(5))?;
/// let mut word = [0; 6];
/// cursor.read_exact(&mut word)?;
/// assert_eq!(&word, b"sector");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DeviceCursor<D> {
    device: D,
    position: u64,
}

impl<D: std::ops::Deref<Target: BlockDevice>> DeviceCursor<D> {
    /// A cursor at the start of `device`.
    pub fn new(device: D) -> Self {
        Self {
            device,
            position: 0,
        }
    }

    /// Gives the device back.
    pub fn into_inner(self) -> D {
        self.device
    }

    /// How many of `len` bytes are left before the end of the disk.
    fn left(&self, len: usize) -> usize {
        let left = self.device.size().saturating_sub(self.position);
        usize::try_from(left).map_or(len, |left| left.min(len))
    }
}

impl<D: std::ops::Deref<Target: BlockDevice>> Read for DeviceCursor<D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.left(buf.len());
        self.device.read_at(&mut buf[..len], self.position)?;
        self.position += len as u64;
        Ok(len)
    }
}

impl<D: std::ops::Deref<Target: BlockDevice>> Write for DeviceCursor<D> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.left(buf.len());
        self.device.write_at(&buf[..len], self.position)?;
        self.position += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.device.flush()?)
    }
}

impl<D: std::ops::Deref<Target: BlockDevice>> Seek for DeviceCursor<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek(self.position, self.device.size(), to)?;
        Ok(self.position)
    }
}

/// Where a seek leads from `position` in something `size` bytes long. Past the end is allowed.
///
/// # Errors
/// `InvalidInput` before the start or past 2^64.
pub(crate) fn seek(position: u64, size: u64, to: SeekFrom) -> io::Result<u64> {
    let target = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::End(by) => size.checked_add_signed(by),
        SeekFrom::Current(by) => position.checked_add_signed(by),
    };
    target.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
