//! Which part of the file belongs to whom: no two structures share a byte ([MS-VHDX] §2.1, §2.5.1).

use std::collections::BTreeMap;
use std::ops::Range;

use blockdev_core::ByteRange;

use crate::ondisk::MIB;

/// Which MiB of the file are taken: fixed structures by name, blocks by a bit for each MiB, in pages
/// that exist where something is.
#[derive(Debug)]
pub(crate) struct Space {
    /// In order of place, apart from each other, none empty.
    fixed: Vec<(ByteRange, String)>,
    pages: BTreeMap<u64, [u64; PAGE_WORDS]>,
    end: u64,
    incomplete: bool,
}

const PAGE_WORDS: usize = 64;
const WORD_BITS: u64 = 64;
/// MiB that one page stands for.
const PAGE_MIB: u64 = PAGE_WORDS as u64 * WORD_BITS;
/// Pages of 512 bytes: 64 MiB of memory.
const MAX_PAGES: u64 = 128 << 10;

impl Space {
    /// Bytes of file that can be accounted for at least.
    pub(crate) const MAX_BYTES: u64 = MAX_PAGES * PAGE_MIB * MIB;

    /// The space of a file with these structures, which do not overlap each other.
    pub(crate) fn new(mut fixed: Vec<(ByteRange, String)>) -> Self {
        fixed.retain(|(range, _)| !range.is_empty());
        fixed.sort_by_key(|(range, _)| *range);
        let end = fixed.last().map_or(0, |(range, _)| range.end());
        Self {
            fixed,
            pages: BTreeMap::new(),
            end,
            incomplete: false,
        }
    }

    /// End of the last structure or block.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// True when blocks are spread over more space than can be accounted for.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Takes `len` bytes at `place`, both whole MiB, for a block, and says by whom they were taken
    /// before.
    pub(crate) fn take(&mut self, place: u64, len: u64) -> Option<&str> {
        let range = ByteRange::new(place, len)?;
        self.end = self.end.max(range.end());
        let again = self.mark(range).then_some("another block");
        self.fixed_at(range).or(again)
    }

    /// Takes `len` bytes at `place` unless a part of them is taken: for what is not known to be there.
    pub(crate) fn take_if_free(&mut self, place: u64, len: u64) {
        let Some(range) = ByteRange::new(place, len) else {
            return;
        };
        if self.fixed_at(range).is_none() && !self.is_marked(range) {
            self.end = self.end.max(range.end());
            self.mark(range);
        }
    }

    /// Calls `visit` with what is not taken of the bytes before `end`, in order. Does nothing where
    /// not everything could be accounted for.
    pub(crate) fn for_each_gap(&self, end: u64, mut visit: impl FnMut(ByteRange)) {
        if self.incomplete {
            return;
        }
        let mut gap_from = 0;
        let mut taken = |range: Range<u64>| {
            let gap = gap_from..range.start.min(end);
            if gap.start < gap.end {
                let len = gap.end - gap.start;
                visit(ByteRange::new(gap.start, len).expect("inside the file"));
            }
            gap_from = gap_from.max(range.end);
        };
        let mut fixed = self.fixed.iter().map(|(range, _)| *range).peekable();
        for (&page, words) in &self.pages {
            for (n, word) in words.iter().enumerate() {
                let base = page * PAGE_MIB + n as u64 * WORD_BITS;
                let mut left = *word;
                while left != 0 {
                    let first = u64::from(left.trailing_zeros());
                    let len = u64::from((left >> first).trailing_ones());
                    let start = (base + first) * MIB;
                    while let Some(range) = fixed.next_if(|range| range.start() < start) {
                        taken(range.start()..range.end());
                    }
                    taken(start..start + len * MIB);
                    left &= (u64::MAX << first)
                        .checked_shl(u32::try_from(len).expect("64 at most"))
                        .unwrap_or(0);
                }
            }
        }
        for range in fixed {
            taken(range.start()..range.end());
        }
        taken(end..end);
    }

    /// The structure that `range` overlaps.
    fn fixed_at(&self, range: ByteRange) -> Option<&str> {
        // The first structure that ends after the start is the first that can overlap.
        let near = self
            .fixed
            .partition_point(|(fixed, _)| fixed.end() <= range.start());
        let (fixed, name) = self.fixed.get(near)?;
        fixed.overlaps(range).then_some(name)
    }

    fn is_marked(&self, range: ByteRange) -> bool {
        (range.start() / MIB..range.end() / MIB).any(|unit| {
            let word = usize::try_from(unit % PAGE_MIB / WORD_BITS).expect("inside a page");
            let words = self.pages.get(&(unit / PAGE_MIB));
            words.is_some_and(|words| words[word] >> (unit % WORD_BITS) & 1 != 0)
        })
    }

    /// Sets the bits of `range`, a word at a time; true when one of them was set before.
    fn mark(&mut self, range: ByteRange) -> bool {
        let (mut unit, end) = (range.start() / MIB, range.end() / MIB);
        let mut again = false;
        while unit < end {
            let page = unit / PAGE_MIB;
            if !self.pages.contains_key(&page) && self.pages.len() as u64 >= MAX_PAGES {
                self.incomplete = true;
                return again;
            }
            let words = self.pages.entry(page).or_insert([0; PAGE_WORDS]);
            let page_end = end.min((page + 1) * PAGE_MIB);
            while unit < page_end {
                let word = usize::try_from(unit % PAGE_MIB / WORD_BITS).expect("inside a page");
                let first = unit % WORD_BITS;
                let bits = (page_end - unit).min(WORD_BITS - first);
                let mask = u64::MAX >> (WORD_BITS - bits) << first;
                again |= words[word] & mask != 0;
                words[word] |= mask;
                unit += bits;
            }
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let range = |mib: u64, len: u64| ByteRange::new(mib * MIB, len * MIB).unwrap();
        Space::new(vec![
            (range(5, 2), "b".into()),
            (range(3, 0), "empty".into()),
            (range(0, 1), "a".into()),
        ])
    }

    #[test]
    fn blocks_that_touch_do_not_overlap_and_those_that_share_a_mebibyte_do() {
        let mut space = space();
        for (place, len) in [(1, 4), (7, 57), (64, 64), (128, 1), (4096, 256)] {
            assert_eq!(space.take(place * MIB, len * MIB), None, "{place}");
        }
        for (place, len) in [(1, 1), (63, 2), (4351, 1), (4352, 1), (4000, 200)] {
            let before = space.take(place * MIB, len * MIB).is_some();
            assert_eq!(before, place != 4352, "{place}");
        }
        assert_eq!(space.end(), 4353 * MIB);
    }

    #[test]
    fn structures_are_named() {
        let mut space = space();
        assert_eq!(space.take(0, MIB), Some("a"));
        assert_eq!(space.take(2 * MIB, 4 * MIB), Some("b"));
        assert_eq!(space.take(6 * MIB, 256 * MIB), Some("b"));
        assert_eq!(space.take(3 * MIB, MIB), Some("another block"));
        assert!(!space.is_incomplete());
    }

    #[test]
    fn equals_a_bit_by_bit_account() {
        let mut space = Space::new(Vec::new());
        let mut taken = vec![false; 20_000];
        let mut seed = 1u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (start, len) = ((seed >> 33) % 19_000, (seed >> 50) % 300);
            let range = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
            let before = taken[range.clone()].contains(&true);
            taken[range].fill(true);
            assert_eq!(space.take(start * MIB, len * MIB).is_some(), before);
        }
    }
}
