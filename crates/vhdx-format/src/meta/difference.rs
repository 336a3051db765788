//! How a child differs from its parent: which sectors, and what becomes of a block by them.

use std::ops::Range;

use super::bitmap;
use crate::PayloadState;

/// The runs of `bytes` that differ from `below`, as ranges on multiples of `sector`. `below` is at
/// least as long; where it is longer, zeros follow `bytes`, to the end of the last sector.
pub(crate) fn differing_runs(
    bytes: &[u8],
    below: &[u8],
    sector: usize,
) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    let end = below.len();
    let unit = move |at: usize| at..(at + sector).min(end);
    let differs = move |at: usize| {
        let (there, rest) = below[unit(at)].split_at((bytes.len() - at).min(unit(at).len()));
        there != &bytes[at..at + there.len()] || rest.iter().any(|byte| *byte != 0)
    };
    std::iter::from_fn(move || {
        while at < end && !differs(at) {
            at = unit(at).end;
        }
        let start = at;
        while at < end && differs(at) {
            at = unit(at).end;
        }
        (start < at).then_some(start..at)
    })
}

/// One block of a child while the disk passes by.
#[derive(Debug)]
pub(crate) struct BlockDifference {
    /// One bit for each sector that differs from the parent's, as in a sector bitmap (§2.4).
    bits: Vec<u8>,
    differing: usize,
    /// The child's block holds something else than zeros.
    holds_data: bool,
}

impl BlockDifference {
    /// A block of `sectors` sectors, of which none differs yet.
    pub(crate) fn new(sectors: usize) -> Self {
        Self {
            bits: vec![0; sectors.div_ceil(8)],
            differing: 0,
            holds_data: false,
        }
    }

    /// Notes a part of the block: the `sectors` that differ, each noted once, and whether any of the
    /// part's bytes is not 0.
    pub(crate) fn note(&mut self, sectors: impl IntoIterator<Item = Range<usize>>, data: bool) {
        for run in sectors {
            self.differing += run.len();
            bitmap::put(&mut self.bits, run, true);
        }
        self.holds_data |= data;
    }

    /// What the block is to be, when all that is not 0 or differs was noted; `sectors` of it are
    /// inside the disk. Of what the parent holds and the child does not, it stores no zeros if the
    /// state alone can say so.
    pub(crate) fn state(&self, sectors: usize) -> PayloadState {
        match self.differing {
            0 => PayloadState::NotPresent,
            _ if !self.holds_data => PayloadState::Zero,
            all if all == sectors => PayloadState::FullyPresent,
            _ => PayloadState::PartiallyPresent,
        }
    }

    /// The block's part of the sector bitmap.
    pub(crate) fn bitmap(&self) -> &[u8] {
        &self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First byte and end of each run.
    fn runs(bytes: &[u8], below: &[u8]) -> Vec<(usize, usize)> {
        let runs = differing_runs(bytes, below, 4);
        runs.map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn runs_are_of_whole_sectors_and_leave_out_nothing() {
        let below = [1u8; 16];
        assert_eq!(runs(&[1; 16], &below), []);
        assert_eq!(runs(&[2; 16], &below), [(0, 16)]);
        for at in 0..16 {
            let mut bytes = below;
            bytes[at] = 0;
            assert_eq!(runs(&bytes, &below), [(at / 4 * 4, at / 4 * 4 + 4)]);
        }
        let mut bytes = below;
        bytes[0] = 9;
        bytes[11] = 9;
        assert_eq!(runs(&bytes, &below), [(0, 4), (8, 12)]);
    }

    #[test]
    fn a_source_that_ends_inside_a_sector_ends_with_zeros() {
        assert_eq!(runs(&[1; 6], &[1, 1, 1, 1, 1, 1, 0, 0]), []);
        assert_eq!(runs(&[1; 6], &[1; 8]), [(4, 8)], "the parent has more");
        assert_eq!(runs(&[1; 6], &[1, 1, 1, 1, 2, 1, 0, 0]), [(4, 8)]);
        assert_eq!(runs(&[], &[]), []);
    }

    #[test]
    fn the_state_says_all_that_it_can() {
        let block = |parts: &[(Range<usize>, bool)]| {
            let mut block = BlockDifference::new(16);
            for (run, data) in parts {
                block.note([run.clone()], *data);
            }
            block
        };
        for (parts, inside, state) in [
            (&[(0..0, true)][..], 16, PayloadState::NotPresent),
            (&[(3..4, false)], 16, PayloadState::Zero),
            // Zeros over something, and elsewhere the parent's own bytes.
            (
                &[(3..4, false), (8..8, true)],
                16,
                PayloadState::PartiallyPresent,
            ),
            (&[(0..15, true)], 16, PayloadState::PartiallyPresent),
            (
                &[(0..8, true), (8..16, false)],
                16,
                PayloadState::FullyPresent,
            ),
            // The disk ends inside the block.
            (&[(0..5, true)], 5, PayloadState::FullyPresent),
        ] {
            assert_eq!(block(parts).state(inside), state, "{parts:?}");
        }
        assert_eq!(block(&[(0..1, true), (9..12, true)]).bitmap(), [1, 0b1110]);
    }
}
