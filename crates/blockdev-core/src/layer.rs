//! One image's share of a disk.

use std::any::Any;
use std::sync::Arc;

use crate::device::read_only;
use crate::{
    ByteRange, ContentId, DeviceInfo, Error, ErrorKind, Extent, FileRef, FileRole, HostFile,
    Result, Storage, ZeroFlags,
};

/// What lies below a layer: asked for the bytes that a partial write must carry up.
pub trait Below: Sync {
    /// Fills `buf` with what the chain below reads at byte `offset`; zeros past its end.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`](crate::BlockDevice::read_at).
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Tells of the run that starts at `offset`, looking no further than `len` bytes (at least one): how long it
    /// is, and whether it is known to be zeros without being read.
    ///
    /// # Errors
    /// As [`BlockDevice::block_status`](crate::BlockDevice::block_status).
    fn next_run(&self, offset: u64, len: u64) -> Result<BelowRun> {
        let _ = offset;
        Ok(BelowRun {
            len,
            is_zero: false,
        })
    }
}

/// A run of what lies below; made by [`Below::next_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BelowRun {
    /// Bytes in the run, at least one.
    pub len: u64,
    /// It reads as zeros; what is not known to may all the same.
    pub is_zero: bool,
}

/// Nothing below: zeros.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZerosBelow;

impl Below for ZerosBelow {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn next_run(&self, _offset: u64, len: u64) -> Result<BelowRun> {
        Ok(BelowRun { len, is_zero: true })
    }
}

/// What a discarded range is to read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscardMode {
    /// Zeros, whatever is below.
    ToZero,
    /// The parent's bytes again.
    ToParent,
    /// Whatever is cheapest that shows neither older content nor the parent's.
    Best,
}

/// One image's share of a disk: what format crates implement.
///
/// A layer never opens another file and never asks for its parent by itself: it names the files it
/// needs ([`file_refs`](Self::file_refs)) and the ranges it does not hold ([`Holes`]).
pub trait Layer: Send + Sync {
    /// What is fixed about the layer; `size` is the layer's own virtual size.
    fn info(&self) -> &DeviceInfo;

    /// The other files this image refers to.
    fn file_refs(&self) -> &[FileRef];

    /// Hands over the file that this image refers to in `role`: one that the image reads by itself,
    /// such as an external data file. Never the parent.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the image refers to no such file.
    fn attach(&mut self, role: FileRole, storage: Arc<dyn Storage>) -> Result<()> {
        let _ = (role, storage);
        Err(Error::new(
            ErrorKind::InvalidInput,
            "the image refers to no such file",
        ))
    }

    /// Fingerprint of the content, which children of this image recorded when they were made.
    fn content_id(&self) -> Option<ContentId> {
        None
    }

    /// Tells what the run that starts at `offset` is in this layer alone, looking no further than
    /// `len` bytes (at least one, inside the layer).
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    fn next_extent(&self, offset: u64, len: u64) -> Result<Extent>;

    /// Fills the parts of `buf` that this layer holds (its zeros included) from byte `offset`, and
    /// adds the others to `holes`, in order. The range lies inside the layer.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    fn read_at(&self, buf: &mut [u8], offset: u64, holes: &mut Holes) -> Result<()>;

    /// Writes `buf` at byte `offset`, taking from `below` the bytes that complete a unit.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`](crate::BlockDevice::write_at).
    fn write_at(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        let _ = (buf, offset, below);
        Err(read_only())
    }

    /// Makes `len` bytes from `offset` read as zeros in this layer.
    ///
    /// # Errors
    /// As [`BlockDevice::write_zeroes`](crate::BlockDevice::write_zeroes).
    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags, below: &dyn Below) -> Result<()> {
        let _ = (offset, len, flags, below);
        Err(read_only())
    }

    /// Gives back the space of `len` bytes from `offset`.
    ///
    /// # Errors
    /// As [`BlockDevice::discard`](crate::BlockDevice::discard).
    fn discard(&self, offset: u64, len: u64, mode: DiscardMode) -> Result<()> {
        let _ = (offset, len, mode);
        Err(read_only())
    }

    /// Returns when all acknowledged writes are on stable storage.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Flushes and gives the host file up.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }

    /// The host file that [`HostPlace`](crate::HostPlace)s of this layer point into.
    fn host(&self, file: HostFile) -> Option<&dyn Storage>;

    /// The concrete image, for what only its own format can tell.
    fn as_any(&self) -> &dyn Any;

    /// The same, for what changes the image as a whole.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// Holes for which memory is asked at once, when there is more than one.
const MORE_HOLES: usize = 16;

/// The ranges that a layer did not fill, in ascending order, neighbours joined.
///
/// One hole, or none, is what most requests have: that costs no memory, and little to make and to move.
#[derive(Debug, Clone, Default)]
pub struct Holes {
    before: Vec<ByteRange>,
    /// Empty when there is none.
    last: ByteRange,
}

impl Holes {
    /// No holes. Asks for no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            before: Vec::new(),
            last: ByteRange::EMPTY,
        }
    }

    /// Notes that `range` was not filled. Ranges come in ascending order.
    #[inline]
    pub fn push(&mut self, range: ByteRange) {
        if self.last.is_empty() {
            self.last = range;
        } else if !range.is_empty() {
            self.push_behind(range);
        }
    }

    fn push_behind(&mut self, range: ByteRange) {
        debug_assert!(
            self.last.end() <= range.start(),
            "holes come in ascending order"
        );
        if self.last.end() == range.start() {
            self.last = ByteRange::new(self.last.start(), self.last.len() + range.len())
                .expect("both parts had an end");
            return;
        }
        if self.before.capacity() == 0 {
            self.before.reserve(MORE_HOLES);
        }
        self.before.push(std::mem::replace(&mut self.last, range));
    }

    /// Forgets all holes, keeping the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.last = ByteRange::EMPTY;
        self.before.clear();
    }

    /// True when everything was filled.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// The holes, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        let last = (!self.last.is_empty()).then_some(self.last);
        self.before.iter().copied().chain(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len).unwrap()
    }

    #[test]
    fn neighbours_join_and_many_spill_in_order() {
        let mut holes = Holes::new();
        holes.push(range(0, 4));
        holes.push(range(4, 4));
        assert_eq!(holes.iter().collect::<Vec<_>>(), [range(0, 8)]);
        let many: Vec<_> = (1..100).map(|i| range(i * 100, 10)).collect();
        many.iter().for_each(|hole| holes.push(*hole));
        holes.push(range(9910, 5));
        let all: Vec<_> = holes.iter().collect();
        assert_eq!(all.len(), 100);
        assert_eq!(
            all[99],
            range(9900, 15),
            "a spilled hole joins its neighbour too"
        );
        holes.clear();
        assert!(holes.is_empty());
        assert_eq!(holes.iter().count(), 0);
    }
}
