//! A lone image as a disk.

use crate::device::{read_only, status_range};
use crate::{
    BlockDevice, DeviceInfo, DiscardMode, Error, ErrorKind, Extent, ExtentKind, FileRole, Holes,
    Layer, Result, ZeroFlags, ZerosBelow, fits,
};

/// One layer as a whole disk, with no chain around it.
///
/// An image that names no parent reads as zeros where it holds nothing. An image that names one is
/// *detached*: what it holds can be read, and the rest is [`ErrorKind::NeedsParent`], never zeros.
pub struct LoneLayer {
    layer: Box<dyn Layer>,
    detached: bool,
}

impl std::fmt::Debug for LoneLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoneLayer")
            .field("info", self.layer.info())
            .field("detached", &self.detached)
            .finish_non_exhaustive()
    }
}

impl LoneLayer {
    /// Wraps `layer`.
    #[must_use]
    pub fn new(layer: Box<dyn Layer>) -> Self {
        let detached = layer.file_refs().iter().any(|r| r.role == FileRole::Parent);
        Self { layer, detached }
    }

    /// The layer within.
    #[must_use]
    pub fn layer(&self) -> &dyn Layer {
        &*self.layer
    }

    /// Gives the layer back.
    #[must_use]
    pub fn into_layer(self) -> Box<dyn Layer> {
        self.layer
    }

    fn check_writable(&self, offset: u64, len: u64) -> Result<()> {
        if self.info().read_only {
            return Err(read_only());
        }
        if self.detached {
            // A partial write would have to carry up bytes that nobody can read.
            return Err(needs_parent(offset));
        }
        fits(offset, len, self.size())
    }
}

fn needs_parent(offset: u64) -> Error {
    Error::new(
        ErrorKind::NeedsParent,
        format!("the bytes at {offset:#x} are in the parent image, which is not open"),
    )
}

impl BlockDevice for LoneLayer {
    fn info(&self) -> &DeviceInfo {
        self.layer.info()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        let mut holes = Holes::new();
        self.layer.read_at(buf, offset, &mut holes)?;
        for hole in holes.iter() {
            if self.detached {
                return Err(needs_parent(hole.start()));
            }
            hole.slice_of(buf, offset).fill(0);
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_writable(offset, buf.len() as u64)?;
        self.layer.write_at(buf, offset, &ZerosBelow)
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        status_range(offset, len, self.size())?;
        let extent = self.layer.next_extent(offset, len)?;
        debug_assert!(extent.len > 0 && extent.len <= len);
        debug_assert!(extent.kind != ExtentKind::Absent || extent.host.is_none());
        Ok(extent)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_writable(offset, len)?;
        self.layer.zero(offset, len, flags, &ZerosBelow)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable(offset, len)?;
        self.layer.discard(offset, len, DiscardMode::Best)
    }

    fn flush(&self) -> Result<()> {
        self.layer.flush()
    }
}
