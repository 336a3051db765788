//! What a read costs the host: one call for each contiguous run, whatever the depth.

use blockdev_core::BlockDevice;
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

use crate::support::{Counted, MIB};

const PAGE: u64 = 4096;

/// `depth` images of which only the bottom holds anything: 8 blocks one after the other.
fn empty_over_full(depth: usize) -> Vec<VhdxBuilder> {
    let full = |n| BlockContent::full(BlockData::Pattern(n));
    let base = (0..8).fold(VhdxBuilder::new(64 * MIB), |image, n| {
        image.block(n, full(n))
    });
    let mut images = vec![base];
    while images.len() < depth {
        images.push(VhdxBuilder::child_of(images.last().unwrap(), "parent"));
    }
    images.reverse();
    images
}

fn open(images: &[VhdxBuilder]) -> Counted {
    Counted::open(&images.iter().collect::<Vec<_>>())
}

/// Reads that are of data: all that are not one page of a table.
fn data(reads: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut reads = reads.to_vec();
    reads.retain(|(_, len)| *len != PAGE);
    reads
}

#[test]
fn a_mebibyte_through_a_parent_is_one_read_and_the_tables_are_read_once() {
    for depth in [1, 2, 16] {
        let images = empty_over_full(depth);
        let place = images[depth - 1].layout().blocks[&3];
        let counted = open(&images);
        let mut buf = vec![0; MIB as usize];
        let read = |chain: &blockdev_chain::Chain, buf: &mut [u8]| {
            chain.read_at(buf, 3 * MIB).unwrap();
        };
        let first = counted.reads(|chain| read(chain, &mut buf));
        assert_eq!(data(&first[depth - 1]), [(place, MIB)], "depth {depth}");
        for (layer, reads) in first.iter().enumerate() {
            let tables = reads.len() - data(reads).len();
            assert!(tables <= 1, "layer {layer} of {depth}: one page of the BAT");
            assert!(layer == depth - 1 || data(reads).is_empty());
        }
        let second = counted.reads(|chain| read(chain, &mut buf));
        assert_eq!(second.concat(), [(place, MIB)], "depth {depth}, again");
    }
}

#[test]
fn neighbouring_blocks_are_one_read_through_sixteen_layers() {
    let images = empty_over_full(16);
    let place = images[15].layout().blocks[&0];
    let counted = open(&images);
    let mut buf = vec![0; 8 * MIB as usize];
    counted.chain.read_at(&mut buf, 0).unwrap();
    let again = counted.reads(|chain| chain.read_at(&mut buf, 0).unwrap());
    assert_eq!(again.concat(), [(place, 8 * MIB)]);
}

#[test]
fn a_partial_block_costs_a_read_for_each_run_and_none_for_each_sector() {
    let base = VhdxBuilder::new(8 * MIB).block(2, BlockContent::full(BlockData::Pattern(1)));
    // Three runs of the child's sectors, so four of the parent's.
    let present = (100..300).chain(500..501).chain(1003..2000);
    let top = VhdxBuilder::child_of(&base, "parent")
        .block(2, BlockContent::partial(BlockData::Pattern(2), present));
    let counted = Counted::open(&[&top, &base]);
    let mut buf = vec![0; MIB as usize];
    let first = counted.reads(|chain| chain.read_at(&mut buf, 2 * MIB).unwrap());
    assert_eq!(data(&first[0]).len(), 3);
    let tables = first[0].len() - 3;
    assert_eq!(
        tables, 3,
        "a page of the BAT for the block, one for its bitmap, one of the bitmap"
    );
    let again = counted.reads(|chain| chain.read_at(&mut buf, 2 * MIB).unwrap());
    let sectors = |reads: &[(u64, u64)]| reads.iter().map(|(_, len)| len / 512).collect::<Vec<_>>();
    assert_eq!(sectors(&again[0]), [200, 1, 997]);
    assert_eq!(sectors(&again[1]), [100, 200, 502, 48]);
}

#[test]
fn describing_a_chain_reads_no_data() {
    for depth in [1, 2, 16] {
        let counted = open(&empty_over_full(depth));
        let reads = counted.reads(|chain| {
            assert_eq!(chain.extents(0, u64::MAX).count(), 2);
        });
        assert_eq!(data(&reads.concat()), [], "depth {depth}");
        assert!(reads.iter().all(|reads| reads.len() == 1), "{reads:?}");
    }
}

#[test]
fn opening_a_chain_costs_the_same_for_each_layer() {
    let counts = |depth| {
        let counted = open(&empty_over_full(depth));
        let reads: Vec<usize> = counted
            .files
            .iter()
            .map(|file| file.count(testkit::counting::Op::Read))
            .collect();
        reads
    };
    let deep = counts(16);
    let child = deep[0];
    assert!(deep[..15].iter().all(|reads| *reads == child), "{deep:?}");
    assert_eq!(counts(2)[0], child);
    assert!(child <= 24, "{child} reads to open one image");
}
