//! Where the next cluster of a new image goes, and how often each is referred to.
//!
//! ```text
//!   data │ packed·packed·pa│cked·packed·     │ L2 table │ data │ refcount block │ data …
//!     1        3                 2                1        1          1
//! ```
//!
//! Space is given out in ascending order and never given back, so that the counts of a refcount block
//! are final as soon as clusters beyond it are given out. The block gets a place then, and only one
//! block is held. Packed clusters follow each other byte by byte; a cluster is referred to once for
//! each of them that touches it.

use std::collections::VecDeque;

use super::layout::Layout;
use crate::ondisk::refcount;

/// The space of a new image.
#[derive(Debug)]
pub(crate) struct Space {
    cluster_bits: u32,
    /// The first cluster that was not given out.
    next: u64,
    tail: Option<Tail>,
    order: u32,
    clusters_per_block: u64,
    /// The refcount block being filled: its number and its bytes.
    block: (u64, Vec<u8>),
    /// Blocks that are final and not written.
    full: VecDeque<(u64, Vec<u8>)>,
    /// Byte offsets of refcount blocks, by number.
    places: Vec<u64>,
}

/// The cluster in which packed bytes end, before its end.
#[derive(Debug)]
struct Tail {
    end: u64,
    sharers: u64,
}

impl Space {
    /// The space after the fixed structures, each cluster of which is referred to once.
    pub(crate) fn new(layout: &Layout, refcount_order: u32) -> Self {
        let cluster = layout.geometry.cluster_size();
        let mut space = Self {
            cluster_bits: layout.geometry.cluster_bits(),
            next: 0,
            tail: None,
            order: refcount_order,
            clusters_per_block: layout.clusters_per_block,
            block: (0, vec![0; usize::try_from(cluster).expect("at most 2 MiB")]),
            full: VecDeque::new(),
            places: vec![layout.first_block() * cluster],
        };
        while space.next < layout.first_free() {
            space.take();
        }
        space
    }

    /// Byte offset of the first cluster that was not given out.
    pub(crate) fn end(&self) -> u64 {
        self.next << self.cluster_bits
    }

    /// Gives out a cluster; its byte offset.
    pub(crate) fn cluster(&mut self) -> u64 {
        self.take() << self.cluster_bits
    }

    /// Gives out `len` bytes for a packed cluster, fewer than a cluster has; their byte offset.
    pub(crate) fn packed(&mut self, len: u64) -> u64 {
        let cluster = 1 << self.cluster_bits;
        // The widest counts cannot overflow: a cluster has fewer bytes than they count.
        let most = 1u64
            .checked_shl(1 << self.order)
            .map_or(u64::MAX, |n| n - 1);
        if let Some(tail) = self.tail.take() {
            let (place, sharers) = (tail.end, tail.sharers);
            let shared = place >> self.cluster_bits;
            let room = cluster - place % cluster;
            if sharers < most && (len <= room || shared + 1 == self.next) {
                self.count(shared);
                let sharers = if len > room {
                    self.take();
                    1
                } else {
                    sharers + 1
                };
                self.leave(place + len, sharers);
                return place;
            }
        }
        let place = self.cluster();
        self.leave(place + len, 1);
        place
    }

    fn leave(&mut self, end: u64, sharers: u64) {
        if !end.is_multiple_of(1 << self.cluster_bits) {
            self.tail = Some(Tail { end, sharers });
        }
    }

    /// A refcount block that is final, and its byte offset; to be asked for until there is none
    /// whenever space was given out.
    pub(crate) fn full_block(&mut self) -> Option<(u64, Vec<u8>)> {
        let (number, bytes) = self.full.pop_front()?;
        let number = usize::try_from(number).expect("there is a place for each before it");
        if number == self.places.len() {
            let place = self.cluster();
            self.places.push(place);
        }
        Some((self.places[number], bytes))
    }

    /// Gives out the space for the refcount blocks that have none. Then come the blocks that are
    /// left, with their byte offsets, and the refcount table.
    pub(crate) fn close(&mut self) -> (Vec<(u64, Vec<u8>)>, Vec<u8>) {
        let mut blocks: Vec<_> = std::iter::from_fn(|| self.full_block()).collect();
        // A block counts itself, which may take another block.
        while self.places.len() as u64 <= self.block.0 {
            let place = self.cluster();
            self.places.push(place);
        }
        blocks.extend(std::iter::from_fn(|| self.full_block()));
        let last = std::mem::take(&mut self.block.1);
        blocks.push((self.places[self.places.len() - 1], last));
        let table = self.places.iter().flat_map(|place| place.to_be_bytes());
        (blocks, table.collect())
    }

    /// Gives out the next cluster, referred to once.
    fn take(&mut self) -> u64 {
        let cluster = self.next;
        self.next += 1;
        let number = cluster / self.clusters_per_block;
        if number != self.block.0 {
            let empty = vec![0; self.block.1.len()];
            let full = std::mem::replace(&mut self.block, (number, empty));
            self.full.push_back(full);
            // Nothing more is counted in what is final.
            self.tail = None;
        }
        self.count(cluster);
        cluster
    }

    /// Counts a reference to `cluster`, which the block being filled counts.
    fn count(&mut self, cluster: u64) {
        let index = usize::try_from(cluster % self.clusters_per_block).expect("inside a block");
        refcount::increment(&mut self.block.1, index, self.order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CreateOptions;

    /// A space with clusters of 512 bytes and, by `order`, the counts of all its clusters.
    fn space(order: u32) -> Space {
        let mut options = CreateOptions::new(1 << 20);
        (options.cluster_bits, options.refcount_order) = (9, order);
        let layout = Layout::new(&options).unwrap();
        let mut space = Space::new(&layout, order);
        // Begins on a round number, whatever the fixed structures take.
        while space.next < 100 {
            space.cluster();
        }
        space
    }

    #[test]
    fn packed_bytes_follow_each_other_and_each_toucher_counts() {
        let mut space = space(4);
        let start = space.end();
        assert_eq!(space.packed(300), start);
        assert_eq!(space.packed(300), start + 300, "over the edge");
        assert_eq!(space.packed(424), start + 600, "up to the edge");
        assert_eq!(space.packed(10), start + 1024);
        let plain = space.cluster();
        assert_eq!(plain, start + 1536);
        assert_eq!(space.packed(502), start + 1034, "what is left is used");
        assert_eq!(space.packed(1), start + 2048);
        let count = |n| refcount::refcount(&space.block.1, n, 4);
        assert_eq!([100, 101, 102, 103, 104].map(count), [2, 2, 2, 1, 1]);
    }

    #[test]
    fn no_cluster_is_shared_by_more_than_its_count_can_say() {
        for (order, most) in [(0, 1), (1, 3), (2, 15)] {
            let mut space = space(order);
            let places: Vec<u64> = (0..40).map(|_| space.packed(20)).collect();
            for (n, place) in (0..).zip(&places) {
                let within = n % most;
                assert_eq!(place % 512, within * 20, "order {order}, number {n}");
            }
        }
    }

    #[test]
    fn a_tail_in_a_block_that_is_final_is_not_shared() {
        let mut space = space(6);
        while space.next % 64 != 63 {
            space.cluster();
        }
        let start = space.end();
        assert_eq!(space.packed(100), start);
        assert_eq!(space.cluster(), start + 512, "of the next block");
        let (_, full) = space.full_block().unwrap();
        assert_eq!(refcount::refcount(&full, 63, 6), 1);
        assert!(space.packed(100) > start + 512);
    }

    #[test]
    fn blocks_count_themselves_wherever_the_image_ends() {
        for clusters in 0..200 {
            let mut space = space(6);
            let mut blocks = Vec::new();
            for _ in 0..clusters {
                space.cluster();
                blocks.extend(std::iter::from_fn(|| space.full_block()));
            }
            let (rest, table) = space.close();
            blocks.extend(rest);
            assert_eq!(table.len(), blocks.len() * 8, "{clusters}");
            for (n, (place, _)) in blocks.iter().enumerate() {
                assert_eq!(table[n * 8..][..8], place.to_be_bytes(), "{clusters}");
            }
            let counts = blocks
                .iter()
                .flat_map(|(_, bytes)| (0..64).map(|n| refcount::refcount(bytes, n, 6)));
            let end = usize::try_from(space.next).unwrap();
            assert!(counts.clone().take(end).all(|n| n == 1), "{clusters}");
            assert!(counts.skip(end).all(|n| n == 0), "{clusters}");
        }
    }
}
