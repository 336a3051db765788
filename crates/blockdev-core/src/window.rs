//! A part of a disk, as a disk of its own.

use crate::device::{read_only, status_range};
use crate::{
    BlockDevice, Caps, DeviceInfo, Error, ErrorKind, Extent, ExtentKind, Result, ZeroFlags, fits,
};

/// Some bytes of a disk as a disk that can be read; past the end of the disk they are zeros.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{BlockDevice, DiskWindow, LoneLayer, MemoryStorage, RawLayer};
///
/// let storage = Arc::new(MemoryStorage::from(vec![7; 700]));
/// let disk = LoneLayer::new(Box::new(RawLayer::open(storage)?));
/// let window = DiskWindow::new(&disk, 600, 512)?;
/// let mut bytes = [9; 2];
/// window.read_at(&mut bytes, 99)?;
/// assert_eq!((window.size(), bytes), (512, [7, 0]));
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub struct DiskWindow<'a> {
    device: &'a dyn BlockDevice,
    start: u64,
    info: DeviceInfo,
}

impl std::fmt::Debug for DiskWindow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskWindow")
            .field("start", &self.start)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl<'a> DiskWindow<'a> {
    /// `len` bytes of `device` from byte `start`, which may be past its end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the window would reach further than 2^63 bytes.
    pub fn new(device: &'a dyn BlockDevice, start: u64, len: u64) -> Result<Self> {
        let end = start.checked_add(len);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            let text = "the window reaches further than a disk can";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let info = DeviceInfo {
            size: len,
            block_size: None,
            read_only: true,
            caps: Caps::default(),
            ..device.info().clone()
        };
        Ok(Self {
            device,
            start,
            info,
        })
    }

    /// How many of `len` bytes at `offset` of the window the disk has.
    fn there(&self, offset: u64, len: u64) -> u64 {
        self.device
            .size()
            .saturating_sub(self.start + offset)
            .min(len)
    }
}

impl BlockDevice for DiskWindow<'_> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.info.size)?;
        let there = self.there(offset, buf.len() as u64);
        let there = usize::try_from(there).expect("no more than the buffer has");
        let (held, zeros) = buf.split_at_mut(there);
        zeros.fill(0);
        if held.is_empty() {
            return Ok(());
        }
        self.device.read_at(held, self.start + offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(read_only())
    }

    /// Which of the disk's files a place is in cannot be told here, so that runs have none.
    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        status_range(offset, len, self.info.size)?;
        match self.there(offset, len) {
            0 => Ok(Extent::new(ExtentKind::Zero, len)),
            there => Ok(Extent {
                host: None,
                ..self.device.block_status(self.start + offset, there)?
            }),
        }
    }

    fn write_zeroes(&self, _: u64, _: u64, _: ZeroFlags) -> Result<()> {
        Err(read_only())
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{LoneLayer, MemoryStorage, RawLayer};

    #[test]
    fn a_window_over_the_end_reads_the_disk_and_then_zeros() {
        let bytes: Vec<u8> = (0..1000_u32).map(|at| (at % 251) as u8 + 1).collect();
        let storage = Arc::new(MemoryStorage::from(bytes.clone()));
        let layer = RawLayer::open(storage).unwrap();
        let disk = LoneLayer::new(Box::new(layer));
        for (start, len) in [
            (0, 1000),
            (1, 7),
            (512, 1024),
            (1000, 512),
            (5000, 3),
            (9, 0),
        ] {
            let window = DiskWindow::new(&disk, start, len).unwrap();
            let mut read = vec![0xAA; usize::try_from(len).unwrap()];
            window.read_at(&mut read, 0).unwrap();
            for (at, byte) in (usize::try_from(start).unwrap()..).zip(&read) {
                assert_eq!(bytes.get(at).copied().unwrap_or(0), *byte, "{start} {at}");
            }
            let mut end = 0;
            for extent in window.extents(0, len) {
                let (from, extent) = extent.unwrap();
                assert_eq!(from, end);
                end += extent.len;
            }
            assert_eq!(end, len);
            assert!(window.read_at(&mut [0], len).is_err());
        }
    }

    #[test]
    fn a_window_that_no_disk_could_fill_is_refused() {
        let storage = Arc::new(MemoryStorage::from(vec![1; 10]));
        let disk = LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()));
        for (start, len) in [
            (u64::MAX, 1),
            (1, u64::MAX),
            (1 << 63, 0),
            (1 << 62, 1 << 62),
        ] {
            assert!(DiskWindow::new(&disk, start, len).is_err(), "{start} {len}");
        }
    }
}
