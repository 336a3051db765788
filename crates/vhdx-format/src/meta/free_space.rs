//! Space for new blocks, in whole MiB ([MS-VHDX] §2.1).

use blockdev_core::{ByteRange, FreeRuns};

use super::space::Space;
use crate::ondisk::MIB;

/// What of the file may be used for new blocks.
#[derive(Debug)]
pub(crate) struct FreeSpace {
    /// Gaps below `end`.
    gaps: FreeRuns,
    /// Nothing lies here or behind, in bytes: a whole number of MiB.
    end: u64,
}

/// Space found for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Byte offset, a multiple of 1 MiB.
    pub(crate) place: u64,
    /// It lies behind everything that there was so far, and reads as zeros.
    pub(crate) is_fresh: bool,
}

impl FreeSpace {
    /// What `taken` leaves free. Nothing is fresh below `file_len`, whatever it is.
    pub(crate) fn new(taken: &Space, file_len: u64) -> Self {
        let end = taken.end().max(file_len).next_multiple_of(MIB);
        let mut gaps = FreeRuns::default();
        taken.for_each_gap(end, |gap: ByteRange| {
            gaps.insert(gap.start() / MIB, gap.len() / MIB)
        });
        Self { gaps, end }
    }

    /// One past the last byte ever given out or in use.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Takes `len` bytes, whole MiB: a gap if one is long enough, else the end.
    pub(crate) fn take(&mut self, len: u64) -> Found {
        debug_assert!(len.is_multiple_of(MIB));
        if let Some(first) = self.gaps.take_whole(len / MIB) {
            let place = first * MIB;
            let is_fresh = false;
            return Found { place, is_fresh };
        }
        let place = self.end;
        self.end += len;
        let is_fresh = true;
        Found { place, is_fresh }
    }

    /// Takes `len` bytes of a gap that ends before byte `limit`, if there is one.
    pub(crate) fn take_below(&mut self, limit: u64, len: u64) -> Option<u64> {
        let first = self.gaps.take_whole(len / MIB)?;
        if first * MIB + len <= limit {
            return Some(first * MIB);
        }
        // The lowest was asked for.
        self.gaps.insert(first, len / MIB);
        None
    }

    /// Gives `len` bytes at `place` back.
    pub(crate) fn give_back(&mut self, place: u64, len: u64) {
        self.gaps.insert(place / MIB, len / MIB);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(blocks: &[u64]) -> Space {
        let fixed = [(0, 1), (1, 1), (5, 2)];
        let fixed = fixed.map(|(at, len)| {
            let range = ByteRange::new(at * MIB, len * MIB).unwrap();
            (range, "structure".to_owned())
        });
        let mut space = Space::new(fixed.into());
        for block in blocks {
            assert_eq!(space.take(block * MIB, 2 * MIB), None);
        }
        space
    }

    #[test]
    fn gaps_come_first_and_the_end_is_fresh() {
        let mut free = FreeSpace::new(&space(&[7, 11]), 13 * MIB);
        let take = |free: &mut FreeSpace, len| {
            let found = free.take(len * MIB);
            (found.place / MIB, found.is_fresh)
        };
        assert_eq!(take(&mut free, 2), (2, false), "2 to 5 is a gap");
        assert_eq!(take(&mut free, 2), (9, false));
        assert_eq!(take(&mut free, 2), (13, true));
        assert_eq!(take(&mut free, 1), (4, false));
        assert_eq!(free.end(), 15 * MIB);
        free.give_back(9 * MIB, 2 * MIB);
        assert_eq!(free.take_below(10 * MIB, 2 * MIB), None);
        assert_eq!(free.take_below(11 * MIB, 2 * MIB), Some(9 * MIB));
        free.give_back(9 * MIB, 2 * MIB);
        assert_eq!(take(&mut free, 1), (9, false));
        assert_eq!(take(&mut free, 2), (15, true));
    }

    #[test]
    fn what_lies_behind_every_structure_is_not_fresh() {
        let mut free = FreeSpace::new(&space(&[]), 12 * MIB + 5);
        assert_eq!(free.take(3 * MIB).place, 2 * MIB);
        assert_eq!(free.take(6 * MIB).place, 7 * MIB);
        let found = free.take(MIB);
        assert!(found.is_fresh);
        assert_eq!(found.place, 13 * MIB);
    }
}
