//! What a payload block holds ([MS-VHDX] §2.5.1.1).

use std::collections::BTreeSet;
use std::ops::Range;

use super::bytes::{put, to_index};

/// Bytes handed to a [`BlockData::Fill`] function at a time.
pub const FILL_UNIT: usize = 512;

/// Content of a payload block; what it does not cover is zero.
#[derive(Clone, Debug)]
pub enum BlockData {
    /// These bytes from the start of the block on.
    Bytes(Vec<u8>),
    /// These bytes at these offsets within the block.
    Pieces(Vec<(u64, Vec<u8>)>),
    /// One byte value throughout.
    Byte(u8),
    /// [`pattern`] of this seed.
    Pattern(u64),
    /// Called with an offset on the virtual disk and [`FILL_UNIT`] zeroed bytes to set.
    Fill(fn(u64, &mut [u8])),
}

impl From<Vec<u8>> for BlockData {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl BlockData {
    /// The bytes of `range` within the block that starts at `block_start` on the virtual disk.
    pub(super) fn render(&self, block_start: u64, range: Range<u64>) -> Vec<u8> {
        let mut out = vec![0; to_index(range.end - range.start)];
        match self {
            Self::Bytes(bytes) => overlay(&mut out, range.start, 0, bytes),
            Self::Pieces(pieces) => {
                for (offset, bytes) in pieces {
                    overlay(&mut out, range.start, *offset, bytes);
                }
            }
            Self::Byte(byte) => out.fill(*byte),
            Self::Pattern(seed) => pattern(*seed, block_start + range.start, &mut out),
            Self::Fill(fill) => {
                let mut at = block_start + range.start;
                for unit in out.chunks_mut(FILL_UNIT) {
                    fill(at, unit);
                    at += FILL_UNIT as u64;
                }
            }
        }
        out
    }
}

/// Copies the part of `bytes`, which start at `offset`, that falls into `out`, which starts at
/// `out_start`.
fn overlay(out: &mut [u8], out_start: u64, offset: u64, bytes: &[u8]) {
    let start = out_start.max(offset);
    let end = (out_start + out.len() as u64).min(offset + bytes.len() as u64);
    if start < end {
        let part = &bytes[to_index(start - offset)..to_index(end - offset)];
        put(out, to_index(start - out_start), part);
    }
}

/// Fills `out` with bytes that depend on `seed` and on the offset `at` on the virtual disk, so
/// that content from another place or another image is noticed.
pub fn pattern(seed: u64, at: u64, out: &mut [u8]) {
    let mut skip = to_index(at % 8);
    let mut index = at / 8;
    let mut rest = out;
    while !rest.is_empty() {
        let word = mix(seed.rotate_left(32) ^ index).to_le_bytes();
        let len = (8 - skip).min(rest.len());
        let (head, tail) = rest.split_at_mut(len);
        head.copy_from_slice(&word[skip..skip + len]);
        (rest, skip, index) = (tail, 0, index + 1);
    }
}

/// The SplitMix64 step.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// State and content of a payload block.
#[derive(Clone, Debug)]
pub enum BlockContent {
    /// State 0: the parent's content in a differencing image.
    NotPresent,
    /// State 1: any content; the entry may still point at old content.
    Undefined {
        /// Old content that the BAT entry keeps pointing at.
        kept: Option<BlockData>,
    },
    /// State 2: zeros.
    Zero,
    /// State 3: zeros, or the old content that the entry may still point at.
    Unmapped {
        /// Old content that the BAT entry keeps pointing at.
        kept: Option<BlockData>,
    },
    /// State 6: all of the block is in this file, whatever the sector bitmap says.
    FullyPresent(BlockData),
    /// State 7: the sectors in `present` are in this file, the others come from the parent.
    ///
    /// On disk the absent sectors hold [`ABSENT_BYTE`], so that a reader who does not look at the
    /// bitmap is noticed.
    PartiallyPresent {
        /// Content of the present sectors.
        data: BlockData,
        /// The present sectors, counted from the start of the block.
        present: BTreeSet<u64>,
    },
}

/// What a partially present block holds on disk where a sector is absent.
pub const ABSENT_BYTE: u8 = 0xDD;

impl BlockContent {
    /// [`FullyPresent`](Self::FullyPresent) with these bytes and zeros after them.
    pub fn full(data: impl Into<BlockData>) -> Self {
        Self::FullyPresent(data.into())
    }

    /// [`PartiallyPresent`](Self::PartiallyPresent) with these sectors, counted from the start of
    /// the block.
    pub fn partial(data: impl Into<BlockData>, present: impl IntoIterator<Item = u64>) -> Self {
        Self::PartiallyPresent {
            data: data.into(),
            present: present.into_iter().collect(),
        }
    }

    /// The State field of the BAT entry.
    pub(super) fn state(&self) -> u64 {
        match self {
            Self::NotPresent => 0,
            Self::Undefined { .. } => 1,
            Self::Zero => 2,
            Self::Unmapped { .. } => 3,
            Self::FullyPresent(_) => 6,
            Self::PartiallyPresent { .. } => 7,
        }
    }

    /// What takes up space in the file.
    pub(super) fn stored(&self) -> Option<&BlockData> {
        match self {
            Self::NotPresent | Self::Zero => None,
            Self::Undefined { kept } | Self::Unmapped { kept } => kept.as_ref(),
            Self::FullyPresent(data) | Self::PartiallyPresent { data, .. } => Some(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: u64, unit: &mut [u8]) {
        put(unit, 0, &at.to_le_bytes());
    }

    #[test]
    fn a_part_equals_the_same_part_of_the_whole() {
        let datas = [
            BlockData::Bytes((0..=255).collect()),
            BlockData::Pieces(vec![(1000, vec![1; 100]), (5000, vec![2; 3192])]),
            BlockData::Byte(9),
            BlockData::Pattern(3),
            BlockData::Fill(mark),
        ];
        for data in datas {
            let whole = data.render(1 << 20, 0..8192);
            for start in (0..8192).step_by(FILL_UNIT) {
                let part = data.render(1 << 20, start..start + 512);
                assert_eq!(part, whole[to_index(start)..][..512], "{data:?} at {start}");
            }
        }
    }

    #[test]
    fn pattern_depends_on_place_and_seed_only() {
        let mut whole = [0; 64];
        pattern(5, 4096, &mut whole);
        let mut part = [0; 11];
        pattern(5, 4096 + 13, &mut part);
        assert_eq!(part, whole[13..24]);
        pattern(6, 4096 + 13, &mut part);
        assert_ne!(part, whole[13..24]);
    }
}
