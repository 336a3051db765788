//! What can be read of a disk that cannot be read everywhere.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::device::read_only;
use crate::{
    BlockDevice, Caps, DeviceInfo, Error, ErrorKind, Extent, ExtentKind, Result, ZeroFlags,
    align_up,
};

/// The least that is given up for one failure.
const LEAST_UNIT: u64 = 512;

/// After so many failures twice as much is given up for each.
const FAILURES_A_STEP: u64 = 1 << 14;

/// More ranges than these are counted only.
const MOST_RANGES: usize = 10_000;

/// A disk that reads as zeros where reading another one fails.
///
/// Failures are [`ErrorKind::Io`] and [`ErrorKind::Corrupt`]; a missing parent stays an error. What
/// fails is halved until 512 bytes are left, so that nothing else is lost. The first 16,384 failures
/// are that fine (8 MiB of them); for the next as many 1024 bytes are given up each, and so on, so
/// that a disk of which nothing can be read takes an end as well.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{LoneLayer, MemoryStorage, RawLayer, Salvage};
///
/// let storage = Arc::new(MemoryStorage::from(vec![1; 8192]));
/// let disk = LoneLayer::new(Box::new(RawLayer::open(storage)?));
/// let salvage = Salvage::new(&disk);
/// assert!(salvage.lost().ranges.is_empty());
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub struct Salvage<'a> {
    device: &'a dyn BlockDevice,
    info: DeviceInfo,
    failures: AtomicU64,
    lost: Mutex<Gathered>,
}

/// What could not be read.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Lost {
    /// Ranges of the disk in bytes, in ascending order, neighbours joined; the first 10,000 met.
    pub ranges: Vec<Range<u64>>,
    /// Bytes in all, those in ranges that are not listed as well.
    pub bytes: u64,
    /// What the first failure met said.
    pub reason: Option<String>,
}

#[derive(Debug, Default)]
struct Gathered {
    /// End by start.
    ranges: BTreeMap<u64, u64>,
    bytes: u64,
    reason: Option<String>,
}

impl std::fmt::Debug for Salvage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salvage")
            .field("info", &self.info)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl<'a> Salvage<'a> {
    /// What can be read of `device`.
    #[must_use]
    pub fn new(device: &'a dyn BlockDevice) -> Self {
        let info = DeviceInfo {
            read_only: true,
            caps: Caps::default(),
            ..device.info().clone()
        };
        Self {
            device,
            info,
            failures: AtomicU64::new(0),
            lost: Mutex::default(),
        }
    }

    /// What could not be read so far.
    #[must_use]
    pub fn lost(&self) -> Lost {
        let lost = self.gathered();
        Lost {
            ranges: lost
                .ranges
                .iter()
                .map(|(start, end)| *start..*end)
                .collect(),
            bytes: lost.bytes,
            reason: lost.reason.clone(),
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is given up for a failure, in bytes: a power of two.
    fn unit(&self) -> u64 {
        let step = self.failures.load(Ordering::Relaxed) / FAILURES_A_STEP;
        // Long before, a unit is longer than any disk.
        LEAST_UNIT << step.min(50)
    }

    /// Fills `buf` from `offset`, halving what fails.
    fn rescue(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Err(error) = self.device.read_at(buf, offset) else {
            return Ok(());
        };
        if !is_damage(&error) {
            return Err(error);
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        let len = buf.len() as u64;
        // In the middle, where a sector ends.
        let middle = align_up(offset + len / 2, LEAST_UNIT).map_or(len, |at| at - offset);
        if len <= self.unit() || middle >= len {
            buf.fill(0);
            self.note(offset, len, &error);
            return Ok(());
        }
        let middle = usize::try_from(middle).expect("inside the buffer");
        let (left, right) = buf.split_at_mut(middle);
        self.rescue(left, offset)?;
        self.rescue(right, offset + middle as u64)
    }

    fn note(&self, offset: u64, len: u64, error: &Error) {
        let mut lost = self.gathered();
        lost.reason.get_or_insert_with(|| error.to_string());
        lost.add(offset, offset.saturating_add(len));
    }
}

/// True where bytes are lost, not merely out of reach.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt)
}

impl Gathered {
    /// Takes in the bytes from `start` to `end`, of which some may be known.
    fn add(&mut self, start: u64, end: u64) {
        let (mut from, mut to, mut known) = (start, end, 0);
        while let Some((&at, &until)) = self.ranges.range(..=to).next_back() {
            if until < from {
                break;
            }
            self.ranges.remove(&at);
            known += until - at;
            (from, to) = (from.min(at), to.max(until));
        }
        if known == 0 && self.ranges.len() >= MOST_RANGES {
            self.bytes = self.bytes.saturating_add(end - start);
            return;
        }
        self.bytes = self.bytes.saturating_add(to - from - known);
        self.ranges.insert(from, to);
    }
}

impl BlockDevice for Salvage<'_> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.rescue(buf, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(read_only())
    }

    /// Where it cannot be told what is stored, the next bytes are to be read to find out; and once
    /// many failures have been met, they are lost.
    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        match self.device.block_status(offset, len) {
            Err(error) if is_damage(&error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let unit = self.unit();
                let to_end = align_up(offset + 1, unit).map_or(len, |end| end - offset);
                let len = to_end.min(len);
                if unit == LEAST_UNIT {
                    return Ok(Extent::new(ExtentKind::Data, len));
                }
                self.note(offset, len, &error);
                Ok(Extent::new(ExtentKind::Zero, len))
            }
            other => other,
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
    use super::*;

    #[test]
    fn ranges_are_joined_and_no_byte_is_counted_twice() {
        let mut lost = Gathered::default();
        for (start, end) in [
            (512, 1024),
            (2048, 2560),
            (1024, 1536),
            (0, 100),
            (512, 2100),
        ] {
            lost.add(start, end);
        }
        let ranges: Vec<_> = lost.ranges.into_iter().collect();
        assert_eq!(ranges, [(0, 100), (512, 2560)]);
        assert_eq!(lost.bytes, 100 + 2048);
    }
}
