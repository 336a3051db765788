//! The layers of a chain from some depth down, as a disk of their own.

use std::fmt;

use blockdev_core::{
    BlockDevice, Caps, DeviceInfo, Error, ErrorKind, Extent, Result, ZeroFlags, fits,
};

use crate::link::Link;
use crate::stack::Stack;

/// An ancestor of a disk as the disk it is, for reading; made by [`Chain::view`](crate::Chain::view).
///
/// Depths that it tells are those of the whole chain.
pub struct View<'a> {
    stack: Stack<'a>,
    info: DeviceInfo,
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl<'a> View<'a> {
    /// `links`, of which there is one at least, with `above` others on top of them.
    pub(crate) fn new(links: &'a [Link], above: usize) -> Self {
        let info = DeviceInfo {
            read_only: true,
            caps: Caps::default(),
            ..links[0].layer.info().clone()
        };
        Self {
            stack: Stack::below(links, above),
            info,
        }
    }

    pub(crate) fn stack(&self) -> Stack<'a> {
        self.stack
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "what is below the top is only read")
}

impl BlockDevice for View<'_> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        self.stack.read(buf, offset)
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        Err(read_only())
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        if len == 0 {
            let text = "block status of no bytes";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        fits(offset, len, self.size())?;
        self.stack.status(offset, len)
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _flags: ZeroFlags) -> Result<()> {
        Err(read_only())
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        Err(read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
