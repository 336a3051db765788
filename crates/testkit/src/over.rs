//! One image's layer over bytes in memory, as a whole disk.

use std::fmt;
use std::sync::Arc;

use blockdev_core::{
    Below, BlockDevice, DeviceInfo, DiscardMode, Error, ErrorKind, Extent, ExtentKind, FileRole,
    Holes, Layer, Result, ZeroFlags, fits,
};

/// Bytes as what lies below a layer; zeros past their end.
#[derive(Debug, Clone, Copy)]
pub struct BytesBelow<'a>(pub &'a [u8]);

impl Below for BytesBelow<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = self.0.len();
        let from = usize::try_from(offset).map_or(len, |from| from.min(len));
        let there = (len - from).min(buf.len());
        buf[..there].copy_from_slice(&self.0[from..from + there]);
        buf[there..].fill(0);
        Ok(())
    }
}

/// What writes guest bytes to a layer.
pub type WriteBy<L> = fn(&L, &[u8], u64, &dyn Below) -> Result<()>;

/// A layer over the bytes of what lies below it, which may be none: a chain of two, without the code
/// that makes chains.
pub struct Over<L> {
    /// The image.
    pub layer: L,
    /// What lies below.
    pub base: Arc<Vec<u8>>,
    /// How guest bytes are written: [`Layer::write_at`], or another way that the format has.
    pub write: WriteBy<L>,
}

impl<L: fmt::Debug> fmt::Debug for Over<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Over")
            .field("layer", &self.layer)
            .field("base_bytes", &self.base.len())
            .finish_non_exhaustive()
    }
}

impl<L: Layer> Over<L> {
    /// `layer` over `base`.
    #[must_use]
    pub fn new(layer: L, base: Arc<Vec<u8>>) -> Self {
        Self {
            layer,
            base,
            write: |layer, buf, offset, below| layer.write_at(buf, offset, below),
        }
    }

    /// What lies below, as the layer asks for it: nothing, for one that names no parent.
    #[must_use]
    pub fn below(&self) -> BytesBelow<'_> {
        let mut refs = self.layer.file_refs().iter();
        if refs.any(|file| file.role == FileRole::Parent) {
            BytesBelow(&self.base)
        } else {
            BytesBelow(&[])
        }
    }
}

impl<L: Layer> BlockDevice for Over<L> {
    fn info(&self) -> &DeviceInfo {
        self.layer.info()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        let mut holes = Holes::new();
        self.layer.read_at(buf, offset, &mut holes)?;
        for hole in holes.iter() {
            self.below()
                .read_at(hole.slice_of(buf, offset), hole.start())?;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        (self.write)(&self.layer, buf, offset, &self.below())
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        if len == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "status of no bytes"));
        }
        fits(offset, len, self.size())?;
        let extent = self.layer.next_extent(offset, len)?;
        if extent.kind == ExtentKind::Absent && !self.below().0.is_empty() {
            return Ok(Extent::new(ExtentKind::Data, extent.len));
        }
        Ok(extent)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        fits(offset, len, self.size())?;
        self.layer.zero(offset, len, flags, &self.below())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        fits(offset, len, self.size())?;
        self.layer.discard(offset, len, DiscardMode::Best)
    }

    fn flush(&self) -> Result<()> {
        self.layer.flush()
    }
}

#[cfg(test)]
mod tests {
    use blockdev_core::{MemoryStorage, RawLayer};

    use super::*;

    #[test]
    fn bytes_below_end_in_zeros() {
        let below = BytesBelow(&[1, 2, 3]);
        for (offset, right) in [(0, [1, 2]), (2, [3, 0]), (3, [0, 0]), (u64::MAX, [0, 0])] {
            let mut seen = [9; 2];
            below.read_at(&mut seen, offset).unwrap();
            assert_eq!(seen, right);
        }
    }

    #[test]
    fn guest_bytes_go_the_way_that_was_asked_for() {
        let layer = RawLayer::open(Arc::new(MemoryStorage::from(vec![0; 1024]))).unwrap();
        let mut disk = Over::new(layer, Arc::default());
        disk.write_at(&[1; 2], 0).unwrap();
        disk.write = |layer, buf, offset, below| {
            let inverted: Vec<u8> = buf.iter().map(|byte| !byte).collect();
            layer.write_at(&inverted, offset, below)
        };
        disk.write_at(&[1; 2], 2).unwrap();
        assert!(disk.write_at(&[1; 2], 1023).is_err());
        let mut seen = [9; 5];
        disk.read_at(&mut seen, 0).unwrap();
        assert_eq!(seen, [1, 1, 254, 254, 0]);
    }
}
