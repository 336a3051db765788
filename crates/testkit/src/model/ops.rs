//! Random guest operations, the same for the same seed.

use blockdev_core::{Caps, align_down};

use crate::Rng;
use crate::subject::Control;

/// One guest operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Write stamped bytes.
    Write {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make a range zero.
    WriteZeroes {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Space may be given back.
        may_unmap: bool,
    },
    /// Give a range back.
    Discard {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Read a range.
    Read {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make what was acknowledged durable.
    Flush,
    /// Close and open again.
    Reopen,
    /// Change the disk as a whole.
    Control(Control),
}

/// What the guest may ask for.
#[derive(Debug, Clone)]
pub struct Abilities {
    /// What the device offers.
    pub caps: Caps,
    /// The unit of allocation in bytes, whose borders are sought.
    pub block_size: u64,
    /// Smallest unit of offsets and lengths: 1 for any byte range, 512 for whole sectors only.
    pub granularity: u64,
    /// Longest write, zeroing, discard or read in bytes.
    pub max_len: u64,
    /// Close and open again.
    pub reopen: bool,
    /// Sizes in bytes to resize to, none where the engine cannot.
    pub sizes: Vec<u64>,
    /// Snapshots held at once, 0 where the engine has none.
    pub snapshots: usize,
}

impl Abilities {
    /// Everything that a device with `caps` and blocks of `block_size` bytes can do by itself:
    /// any byte range up to two blocks, and reopening.
    #[must_use]
    pub fn of(caps: Caps, block_size: u64) -> Self {
        Self {
            caps,
            block_size,
            granularity: 1,
            max_len: 2 * block_size,
            reopen: true,
            sizes: Vec::new(),
            snapshots: 0,
        }
    }
}

/// How often each operation comes, as parts of their sum.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// Writes.
    pub write: u64,
    /// Zeroings.
    pub zero: u64,
    /// Discards.
    pub discard: u64,
    /// Reads.
    pub read: u64,
    /// Flushes.
    pub flush: u64,
    /// Reopens.
    pub reopen: u64,
    /// Snapshot operations.
    pub snapshot: u64,
    /// Resizes.
    pub resize: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            write: 50,
            zero: 10,
            discard: 10,
            read: 10,
            flush: 10,
            reopen: 3,
            snapshot: 5,
            resize: 2,
        }
    }
}

/// An endless guest: an iterator of operations that are all possible one after the other.
#[derive(Debug, Clone)]
pub struct Ops {
    rng: Rng,
    abilities: Abilities,
    weights: Weights,
    size: u64,
    hot: Vec<u64>,
    /// Snapshots by number, with the disk's size in them.
    kept: Vec<(u32, u64)>,
    next_snapshot: u32,
}

impl Ops {
    /// The guest of a disk of `size` bytes (at least one) whose acts `seed` decides.
    #[must_use]
    pub fn new(seed: u64, size: u64, abilities: Abilities, weights: Weights) -> Self {
        let mut rng = Rng::new(seed);
        let hot = (0..3).map(|_| rng.below(size)).collect();
        Self {
            rng,
            abilities,
            weights,
            size,
            hot,
            kept: Vec::new(),
            next_snapshot: 1,
        }
    }

    /// A range inside the disk: by sectors, by blocks, odd, across a block's border, or near one of
    /// a few hot spots.
    fn range(&mut self) -> (u64, u64) {
        let block = self.abilities.block_size.max(1);
        let max = self.abilities.max_len.clamp(1, self.size);
        let rng = &mut self.rng;
        let anywhere = rng.below(self.size);
        let (offset, len) = match rng.below(6) {
            0 | 1 => (align_down(anywhere, 512), 512 * (1 + rng.below(8))),
            2 => (anywhere - anywhere % block, block * (1 + rng.below(2))),
            3 => (anywhere, 1 + rng.below(max)),
            4 => {
                let border = anywhere - anywhere % block;
                let before = 1 + rng.below(block.min(2048));
                let from = border.saturating_sub(before);
                (from, before + 1 + rng.below(block.min(2048)))
            }
            _ => {
                let spot = *rng.pick(&self.hot);
                (spot.saturating_sub(rng.below(1024)), 1 + rng.below(2048))
            }
        };
        let unit = self.abilities.granularity.max(1);
        let offset = offset.min(self.size - 1) / unit * unit;
        let len = len.min(max).next_multiple_of(unit);
        (offset, len.min(self.size - offset))
    }

    fn snapshot(&mut self) -> Option<Control> {
        let full = self.kept.len() >= self.abilities.snapshots;
        if self.kept.is_empty() || !full && self.rng.one_in(2) {
            if full {
                return None;
            }
            let id = self.next_snapshot;
            self.next_snapshot += 1;
            self.kept.push((id, self.size));
            return Some(Control::SnapshotCreate(id));
        }
        let n = self.rng.index(self.kept.len());
        if self.rng.one_in(2) {
            let (id, size) = self.kept[n];
            self.size = size;
            return Some(Control::SnapshotApply(id));
        }
        Some(Control::SnapshotDelete(self.kept.remove(n).0))
    }

    fn resize(&mut self) -> Option<Control> {
        if self.abilities.sizes.is_empty() {
            return None;
        }
        self.size = *self.rng.pick(&self.abilities.sizes);
        Some(Control::Resize(self.size))
    }

    fn weighed(&self) -> [u64; 8] {
        let (can, w) = (&self.abilities, &self.weights);
        let only_if = |able: bool, weight: u64| if able { weight } else { 0 };
        [
            only_if(can.caps.write, w.write),
            only_if(can.caps.write_zeroes, w.zero),
            only_if(can.caps.discard, w.discard),
            w.read,
            w.flush,
            only_if(can.reopen, w.reopen),
            only_if(can.snapshots > 0, w.snapshot),
            only_if(!can.sizes.is_empty(), w.resize),
        ]
    }
}

impl Iterator for Ops {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        let weights = self.weighed();
        let mut throw = self.rng.below(weights.iter().sum());
        let kind = weights.iter().position(|weight| {
            let here = throw < *weight;
            throw = throw.saturating_sub(*weight);
            here
        });
        let (offset, len) = self.range();
        Some(match kind {
            Some(0) => Op::Write { offset, len },
            Some(1) => Op::WriteZeroes {
                offset,
                len,
                may_unmap: self.rng.one_in(2),
            },
            Some(2) => Op::Discard { offset, len },
            Some(4) => Op::Flush,
            Some(5) => Op::Reopen,
            Some(6) => self.snapshot().map_or(Op::Flush, Op::Control),
            Some(7) => self.resize().map_or(Op::Flush, Op::Control),
            _ => Op::Read { offset, len },
        })
    }
}
