//! A disk as clients are to see it: from one of its bytes on, and with what is done by the way.

use std::sync::Arc;

use diskweave::chain::Chain;
use diskweave::core::{
    BlockDevice, DeviceInfo, Error, ErrorKind, Extent, Result, ZeroFlags, fits, is_zero,
};

/// What differs from the disk as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// The first byte that is seen.
    pub(crate) offset: u64,
    /// Every change is flushed before it is done.
    pub(crate) through: bool,
    /// Nothing is given back to the host.
    pub(crate) keep: bool,
    /// Zeros that are written are made as zeros are, and given back with `Some(true)`.
    pub(crate) detect: Option<bool>,
}

/// The part of a disk from a byte to its end.
pub(crate) struct View {
    disk: Arc<Chain>,
    manner: Manner,
    info: DeviceInfo,
}

impl View {
    /// # Errors
    /// [`ErrorKind::OutOfRange`] where the disk ends before `offset`.
    pub(crate) fn new(disk: Arc<Chain>, manner: Manner) -> Result<Self> {
        let offset = manner.offset;
        let mut info = disk.info().clone();
        let size = info.size;
        info.size = size.checked_sub(offset).ok_or_else(|| {
            let text = format!(
                "Offset ({offset}) cannot be greater than size of the containing file ({size})"
            );
            Error::new(ErrorKind::OutOfRange, text)
        })?;
        Ok(Self { disk, manner, info })
    }

    /// Where `len` bytes from `offset` are in the disk.
    fn at(&self, offset: u64, len: u64) -> Result<u64> {
        fits(offset, len, self.info.size)?;
        Ok(self.manner.offset + offset)
    }

    fn changed(&self) -> Result<()> {
        match self.manner.through {
            true => self.disk.flush(),
            false => Ok(()),
        }
    }
}

impl BlockDevice for View {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let at = self.at(offset, buf.len() as u64)?;
        self.disk.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let at = self.at(offset, buf.len() as u64)?;
        match self.manner.detect {
            Some(may_unmap) if !buf.is_empty() && is_zero(buf) => {
                let flags = ZeroFlags {
                    may_unmap: may_unmap && !self.manner.keep,
                    no_fallback: false,
                };
                self.disk.write_zeroes(at, buf.len() as u64, flags)?;
            }
            _ => self.disk.write_at(buf, at)?,
        }
        self.changed()
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        let at = self.at(offset, len)?;
        self.disk.block_status(at, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, mut flags: ZeroFlags) -> Result<()> {
        let at = self.at(offset, len)?;
        flags.may_unmap &= !self.manner.keep;
        self.disk.write_zeroes(at, len, flags)?;
        self.changed()
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.at(offset, len)?;
        if self.manner.keep {
            return Ok(());
        }
        self.disk.discard(at, len)?;
        self.changed()
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}
