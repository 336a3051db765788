//! Several disks, one after the other, as one.

use crate::device::{read_only, status_range};
use crate::{
    BlockDevice, Caps, DeviceInfo, Error, ErrorKind, Extent, ExtentKind, Result, ZeroFlags, fits,
};

/// Each disk begins on a multiple of this.
const SECTOR_BYTES: u64 = 512;

/// Disks, one after the other, as one that can be read.
///
/// A disk that does not end with a sector of 512 bytes is followed by zeros up to the sector's end.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{BlockDevice, Concat, LoneLayer, MemoryStorage, RawLayer};
///
/// let disk = |byte| {
///     let storage = Arc::new(MemoryStorage::from(vec![byte; 700]));
///     RawLayer::open(storage).map(|layer| LoneLayer::new(Box::new(layer)))
/// };
/// let (first, second) = (disk(1)?, disk(2)?);
/// let both = Concat::new([&first as &dyn BlockDevice, &second])?;
/// let mut bytes = [9; 3];
/// both.read_at(&mut bytes, 1023)?;
/// assert_eq!((both.size(), bytes), (2048, [0, 2, 2]));
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub struct Concat<'a> {
    /// In order; none is empty.
    parts: Vec<Part<'a>>,
    info: DeviceInfo,
}

/// A disk with its first byte's place.
struct Part<'a> {
    start: u64,
    device: &'a dyn BlockDevice,
}

impl std::fmt::Debug for Concat<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Concat")
            .field("parts", &self.parts.len())
            .field("info", &self.info)
            .finish()
    }
}

impl<'a> Concat<'a> {
    /// `devices` in their order. The sector sizes are those of the first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is none, and when they are longer together than 2^63
    /// bytes.
    pub fn new(devices: impl IntoIterator<Item = &'a dyn BlockDevice>) -> Result<Self> {
        let mut parts = Vec::new();
        let mut first = None;
        let mut end = 0u64;
        for device in devices {
            first.get_or_insert_with(|| device.info());
            if device.size() == 0 {
                continue;
            }
            parts.push(Part { start: end, device });
            let next = end.checked_add(device.size());
            end = next
                .and_then(|next| next.checked_next_multiple_of(SECTOR_BYTES))
                .filter(|next| i64::try_from(*next).is_ok())
                .ok_or_else(|| {
                    Error::new(ErrorKind::InvalidInput, "the disks are too long together")
                })?;
        }
        let first = first.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "there is no disk"))?;
        let info = DeviceInfo {
            size: end,
            block_size: None,
            read_only: true,
            caps: Caps::default(),
            ..first.clone()
        };
        Ok(Self { parts, info })
    }

    /// The part that byte `offset`, which is inside the disk, belongs to, and how far the part and
    /// the zeros behind it reach.
    fn part(&self, offset: u64) -> (&Part<'a>, u64) {
        let next = self.parts.partition_point(|part| part.start <= offset);
        let end = self
            .parts
            .get(next)
            .map_or(self.info.size, |next| next.start);
        (&self.parts[next - 1], end)
    }
}

impl BlockDevice for Concat<'_> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.info.size)?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (part, end) = self.part(at);
            let within = at - part.start;
            let there = part.device.size().saturating_sub(within);
            let (piece, after) = rest.split_at_mut(at_most(end - at, rest.len()));
            let (held, zeros) = piece.split_at_mut(at_most(there, piece.len()));
            if !held.is_empty() {
                part.device.read_at(held, within)?;
            }
            zeros.fill(0);
            at += piece.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(read_only())
    }

    /// The depth is that in the disk that holds the run. Which of its files a place is in cannot be
    /// told here, so that runs have none.
    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        status_range(offset, len, self.info.size)?;
        let (part, end) = self.part(offset);
        let within = offset - part.start;
        let there = part.device.size().saturating_sub(within);
        if there == 0 {
            return Ok(Extent::new(ExtentKind::Zero, len.min(end - offset)));
        }
        let extent = part.device.block_status(within, len.min(there))?;
        Ok(Extent {
            host: None,
            ..extent
        })
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

/// `most`, as far as it goes into `len`.
fn at_most(most: u64, len: usize) -> usize {
    usize::try_from(most).map_or(len, |most| most.min(len))
}
