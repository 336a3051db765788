//! Which layers can be passed over, and where: what a chain remembers of its layers that never change.
//!
//! ```text
//!   disk      ├───────── 1 MiB ─────────┼─ 64 KiB ─┼4K┼4K┼4K┼─ …      granules, aligned
//!   hint             from layer 7          from 2    5  5 (3)
//! ```
//!
//! *From layer 7* says that the layers above the seventh reach past the granule and hold nothing of it.
//! It is *pure* when layer 7 decides the whole granule, and *mixed*, (3), when others below do their part.
//!
//! One word says all of it, so readers and writers share the table without a lock, and whoever comes too
//! late finds what another has put there, which is as true: hints are about what cannot change. The table
//! has so many words, [`CHUNK`] of which come into being when the first of them is used; granules that
//! share a place push each other out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sizes of granules as powers of two, the largest first.
const LEVELS: [u32; 3] = [20, 16, 12];
/// The smallest granule.
pub(crate) const GRANULE: u64 = 1 << 12;

/// Words that come into being together: 4 KiB.
const CHUNK: usize = 512;
/// Chunks of a table: 4 MiB of words at most, for 512 GiB of disk where runs are long, and 32 GiB where
/// every 64 KiB come from another layer.
const CHUNKS: usize = 1024;

/// Hints are given for what lies below.
const END: u64 = 1 << 56;
/// One note speaks of no more bytes than that.
const LONGEST_NOTE: u64 = 256 << 20;
/// One question looks at no more granules than that.
const MOST_GRANULES: usize = 4096;

const SKIP_BITS: u32 = 16;
/// Layers that a hint can tell from one another.
pub(crate) const MOST_LAYERS: usize = (1 << SKIP_BITS) - 2;
const MIXED: u64 = 1 << SKIP_BITS;
const KEY_SHIFT: u32 = SKIP_BITS + 1;

type Chunk = [AtomicU64; CHUNK];

/// The table.
pub(crate) struct Hints(Box<[OnceLock<Box<Chunk>>]>);

/// What is known of a granule.
#[derive(Clone, Copy)]
struct Hint {
    skip: usize,
    mixed: bool,
    end: u64,
}

impl Hints {
    /// Nothing known yet.
    pub(crate) fn new() -> Self {
        Self((0..CHUNKS).map(|_| OnceLock::new()).collect())
    }

    /// How many layers can be passed over from `offset` on, and for how many bytes, at most `len`.
    ///
    /// Neighbours of a mixed granule are part of the same run, by what can be passed over in all of them:
    /// what a layer holds on both sides of such a border is one read to it.
    pub(crate) fn find(&self, offset: u64, len: u64) -> Option<(usize, u64)> {
        let mut last = self.hint(offset)?;
        let mut skip = last.skip;
        let wanted = offset.saturating_add(len);
        for _ in 0..MOST_GRANULES {
            if last.end >= wanted {
                break;
            }
            let Some(next) = self.hint(last.end) else {
                break;
            };
            if next.skip != last.skip && !next.mixed && !last.mixed {
                break;
            }
            skip = skip.min(next.skip);
            last = next;
        }
        Some((skip, last.end.min(wanted) - offset))
    }

    /// Notes that layer `skip` decides `len` bytes from `offset`, and those above it none of them, which
    /// they reach past. What is left of granules at either end is not noted.
    pub(crate) fn note(&self, offset: u64, len: u64, skip: usize) {
        if offset >= END {
            return;
        }
        let end = offset.saturating_add(len.min(LONGEST_NOTE)).min(END);
        let mut at = offset.next_multiple_of(GRANULE);
        while at < end {
            let mut levels = (0..).zip(LEVELS);
            let Some((level, bits)) =
                levels.find(|(_, bits)| at.is_multiple_of(1 << bits) && end - at >= 1 << bits)
            else {
                break;
            };
            self.put(level, at >> bits, skip, false);
            at += 1 << bits;
        }
    }

    /// Notes that of the granule at `offset` layer `skip` decides a part, others below it the rest, and
    /// those above it nothing, though they reach past it.
    pub(crate) fn note_mixed(&self, offset: u64, skip: usize) {
        if offset < END {
            self.put(LEVELS.len() as u64 - 1, offset / GRANULE, skip, true);
        }
    }

    fn hint(&self, offset: u64) -> Option<Hint> {
        if offset >= END {
            return None;
        }
        (0..).zip(LEVELS).find_map(|(level, bits)| {
            let granule = offset >> bits;
            let (chunk, within, key) = place(level, granule);
            let word = self.0[chunk].get()?[within].load(Ordering::Relaxed);
            if word >> KEY_SHIFT != key {
                return None;
            }
            // 0 is no hint, so what is kept is one more.
            let skip = usize::try_from(word & (MIXED - 1)).ok()?.checked_sub(1)?;
            Some(Hint {
                skip,
                mixed: word & MIXED != 0,
                end: (granule + 1) << bits,
            })
        })
    }

    fn put(&self, level: u64, granule: u64, skip: usize, mixed: bool) {
        let (chunk, within, key) = place(level, granule);
        let chunk = self.0[chunk].get_or_init(|| Box::new([const { AtomicU64::new(0) }; CHUNK]));
        let mixed = if mixed { MIXED } else { 0 };
        chunk[within].store(
            key << KEY_SHIFT | mixed | (skip as u64 + 1),
            Ordering::Relaxed,
        );
    }
}

/// The chunk and the place in it for a granule, and what tells it from others in that place.
fn place(level: u64, granule: u64) -> (usize, usize, u64) {
    let key = granule << 2 | level;
    // Neighbours lie side by side; the levels keep out of each other's way.
    let at = granule.wrapping_add(level * 0x2_AAAA) % (CHUNKS * CHUNK) as u64;
    let at = usize::try_from(at).expect("less than the table");
    (at / CHUNK, at % CHUNK, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_again_from_anywhere_inside_and_no_further() {
        let hints = Hints::new();
        let (start, len) = (GRANULE + 100, 5 << 20);
        hints.note(start, len, 7);
        let (first, end) = (2 * GRANULE, (start + len) / GRANULE * GRANULE);
        assert!(hints.find(first - 1, 1).is_none());
        assert!(hints.find(end, 1).is_none());
        for offset in (first..end).step_by(3000) {
            assert_eq!(hints.find(offset, u64::MAX), Some((7, end - offset)));
            assert_eq!(hints.find(offset, 10).unwrap().0, 7);
        }
        hints.note(end, 1 << 20, 8);
        assert_eq!(hints.find(first, u64::MAX), Some((7, end - first)));
    }

    #[test]
    fn what_adjoins_a_mixed_granule_is_one_run_by_the_uppermost_layer() {
        let hints = Hints::new();
        for (at, skip) in [(0, 4), (2, 4), (3, 9)] {
            hints.note(at * GRANULE, GRANULE, skip);
        }
        hints.note_mixed(GRANULE, 1);
        assert_eq!(hints.find(0, u64::MAX), Some((1, 3 * GRANULE)));
        assert_eq!(hints.find(2 * GRANULE, u64::MAX), Some((4, GRANULE)));
        assert_eq!(hints.find(3 * GRANULE, u64::MAX), Some((9, GRANULE)));
    }

    #[test]
    fn granules_that_share_a_place_are_not_taken_for_each_other() {
        let hints = Hints::new();
        let far = GRANULE * (CHUNK * CHUNKS) as u64;
        hints.note(0, GRANULE, 3);
        assert!(hints.find(far, 1).is_none());
        hints.note(far, GRANULE, 5);
        assert!(hints.find(0, 1).is_none(), "pushed out");
        assert_eq!(hints.find(far, 1), Some((5, 1)));
    }

    #[test]
    fn the_table_stays_as_small_as_it_is_said_to() {
        let hints = Hints::new();
        for piece in 0..10_000 {
            hints.note(piece * LONGEST_NOTE, u64::MAX, 1);
        }
        hints.note(u64::MAX - 5, 5, 1);
        hints.note_mixed(u64::MAX - 5, 1);
        assert!(hints.find(u64::MAX - 5, 5).is_none());
        let made = hints.0.iter().filter(|chunk| chunk.get().is_some()).count();
        assert!(made * size_of::<Chunk>() <= 4 << 20);
    }

    #[test]
    fn every_layer_that_can_be_told_is_told() {
        let hints = Hints::new();
        hints.note(END - GRANULE, GRANULE, MOST_LAYERS);
        assert_eq!(hints.find(END - 1, 1), Some((MOST_LAYERS, 1)));
        hints.note(0, GRANULE, 0);
        assert_eq!(hints.find(0, 1), Some((0, 1)));
    }
}
