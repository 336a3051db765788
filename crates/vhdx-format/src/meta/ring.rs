//! Where in the log the next entry goes, and which sequence it continues ([MS-VHDX] §2.3.2).
//!
//! ```text
//!        tail                    end
//!   ┆ … ┆ N │ N+1 │ N+2 │ N+3 │        free        ┆
//!         └────── in use ─────┘
//! ```
//!
//! No entry overwrites a byte of the sequence before it, not even when that sequence is done with: a
//! torn entry must leave a valid sequence behind. So entries take half of the log at most, and a
//! sequence that would take more than half ends: the next entry is its own tail.

use crate::ondisk::log_entry::{SECTOR_BYTES, descriptor_sectors};

/// A log being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ring {
    length: u32,
    /// Where the present sequence begins, and how many bytes it takes.
    tail: u32,
    used: u32,
    /// Number of the next entry.
    sequence_number: u64,
}

/// Where an entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) at: u32,
    pub(crate) tail: u32,
    pub(crate) sequence_number: u64,
    length: u32,
}

impl Placement {
    /// The entry begins a sequence of its own: what earlier ones changed is stable in its place.
    pub(crate) fn begins_anew(&self) -> bool {
        self.at == self.tail
    }
}

impl Ring {
    /// An empty log of `length` bytes.
    pub(crate) fn new(length: u32) -> Self {
        Self {
            length,
            tail: 0,
            used: 0,
            sequence_number: 1,
        }
    }

    /// Pages that one entry can change.
    pub(crate) fn most_pages(&self) -> usize {
        let sectors = u64::from(self.length / 2 / SECTOR_BYTES);
        // The largest count whose descriptors fit beside its pages.
        let mut pages = sectors;
        while pages + descriptor_sectors(u32::try_from(pages).unwrap_or(u32::MAX)) > sectors {
            pages -= 1;
        }
        usize::try_from(pages).expect("a few hundred thousand")
    }

    /// Where an entry of `length` bytes goes, at most half the log. With `anew` it begins a sequence
    /// in any case.
    pub(crate) fn place(&self, length: u32, anew: bool) -> Placement {
        debug_assert!(length <= self.length / 2 && length.is_multiple_of(SECTOR_BYTES));
        let at = self.wrapped(self.tail, self.used);
        let continues = !anew && self.used > 0 && self.used + length <= self.length / 2;
        Placement {
            at,
            tail: if continues { self.tail } else { at },
            sequence_number: self.sequence_number,
            length,
        }
    }

    /// Takes note of an entry that is stable where `place` put it.
    pub(crate) fn commit(&mut self, placement: &Placement) {
        self.used = if placement.begins_anew() {
            placement.length
        } else {
            self.used + placement.length
        };
        self.tail = placement.tail;
        self.sequence_number += 1;
    }

    fn wrapped(&self, at: u32, by: u32) -> u32 {
        let sum = u64::from(at) + u64::from(by);
        u32::try_from(sum % u64::from(self.length)).expect("less than the log's length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ondisk::MIB;

    /// Entries of any length, over and over: none touches the sequence before it, and each names a
    /// tail from which the numbers rise without a gap.
    #[test]
    fn an_entry_never_touches_the_sequence_before_it() {
        let length = u32::try_from(MIB).unwrap();
        let mut ring = Ring::new(length);
        let mut sequence: Vec<(u32, u32)> = Vec::new();
        let (mut anew, mut continued, mut wrapped) = (0, 0, 0);
        for step in 0u32..5000 {
            let sectors = 2 + step * 7919 % if step % 5 == 0 { 126 } else { 12 };
            let entry = sectors * SECTOR_BYTES;
            let place = ring.place(entry, step % 97 == 0);
            let bytes = |(at, len): (u32, u32)| {
                (0..len / SECTOR_BYTES).map(move |n| (at + n * SECTOR_BYTES) % length)
            };
            let mine: std::collections::HashSet<u32> = bytes((place.at, entry)).collect();
            let before: Vec<u32> = sequence.iter().copied().flat_map(bytes).collect();
            assert!(before.iter().all(|at| !mine.contains(at)), "step {step}");
            if place.begins_anew() {
                sequence.clear();
                anew += 1;
            } else {
                assert_eq!(place.tail, sequence[0].0);
                let (at, len) = sequence[sequence.len() - 1];
                assert_eq!(place.at, (at + len) % length);
                continued += 1;
            }
            wrapped += u32::from(place.at + entry > length);
            assert_eq!(place.sequence_number, u64::from(step) + 1);
            sequence.push((place.at, entry));
            ring.commit(&place);
        }
        assert!(anew > 100 && continued > 1000 && wrapped > 10);
    }

    #[test]
    fn an_entry_that_failed_is_written_in_the_same_place() {
        let mut ring = Ring::new(1 << 20);
        let first = ring.place(8192, false);
        assert_eq!((first.at, first.tail, first.sequence_number), (0, 0, 1));
        assert_eq!(ring.place(12_288, false).at, 0);
        ring.commit(&first);
        let second = ring.place(8192, false);
        assert_eq!(
            (second.at, second.tail, second.sequence_number),
            (8192, 0, 2)
        );
    }

    #[test]
    fn an_entry_takes_half_the_log_at_most() {
        for (mib, pages) in [(1, 126), (2, 254), (64, 8128)] {
            assert_eq!(Ring::new(mib << 20).most_pages(), pages, "{mib} MiB");
            let count = u32::try_from(pages).unwrap();
            let sectors = descriptor_sectors(count) + u64::from(count);
            assert!(sectors * 4096 <= u64::from(mib << 19));
        }
    }
}
