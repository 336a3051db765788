//! What writing costs the host: syncs, writes, space.

use std::sync::Arc;

use blockdev_core::{BlockDevice, Layer, MemoryStorage, Storage};
use testkit::Rng;
use testkit::counting::{CountingStorage, Op};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

use crate::random::{base_of, empty_child};
use crate::stories::UNMAP;
use crate::subject::{Disk, MIB, content, open};

fn counted(image: &VhdxBuilder, base: &Arc<Vec<u8>>) -> (Arc<CountingStorage>, Disk) {
    let memory = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let storage = CountingStorage::new(memory);
    let disk = open(storage.clone(), true, base).unwrap();
    storage.reset();
    (storage, disk)
}

fn filled(blocks: u64, there: u64) -> VhdxBuilder {
    let full = |n| BlockContent::full(BlockData::Pattern(n));
    (0..there).fold(VhdxBuilder::new(blocks * MIB), |disk, n| {
        disk.block(n, full(n))
    })
}

fn syncs(storage: &CountingStorage) -> usize {
    storage.count(Op::SyncData) + storage.count(Op::SyncFull)
}

/// The syncs of the flush after `what`.
fn cost(storage: &CountingStorage, disk: &Disk, what: &dyn Fn(&Disk)) -> usize {
    disk.flush().unwrap();
    disk.flush().unwrap();
    storage.reset();
    what(disk);
    assert_eq!(syncs(storage), 0, "nothing is synced before the flush");
    disk.flush().unwrap();
    syncs(storage)
}

#[test]
fn a_flush_syncs_no_more_often_than_it_must() {
    let (storage, disk) = counted(&filled(100, 4), &Arc::default());
    // The first change of an open announces itself in the header, and so does its first entry.
    disk.write_at(&[1; 512], 50 * MIB).unwrap();
    let cost = |what: &dyn Fn(&Disk)| cost(&storage, &disk, what);
    assert_eq!(cost(&|_| ()), 0, "nothing changed");
    let read = |disk: &Disk| disk.read_at(&mut [0; 4096], 0).unwrap();
    assert_eq!(cost(&read), 0, "nothing changed");
    let in_place = |disk: &Disk| {
        for n in 0..4 {
            disk.write_at(&[1; 4096], n * MIB + 512).unwrap();
        }
    };
    assert_eq!(cost(&in_place), 1, "data only");
    let new = |first: u64, count: u64| {
        move |disk: &Disk| {
            for n in first..first + count {
                disk.write_at(&[1; 512], n * MIB).unwrap();
            }
        }
    };
    assert_eq!(cost(&new(10, 1)), 2, "a new block");
    assert_eq!(cost(&new(20, 30)), 2, "thirty new blocks");
    let large = |disk: &Disk| disk.write_at(&vec![2; 4 << 20], 8 * MIB).unwrap();
    assert_eq!(cost(&large), 2, "old blocks and new ones");
    let zeros = |disk: &Disk| disk.write_zeroes(0, 2 * MIB, UNMAP).unwrap();
    assert!(cost(&zeros) <= 2, "entries changed");
    let discard = |disk: &Disk| disk.discard(20 * MIB, 9 * MIB).unwrap();
    assert!(cost(&discard) <= 2, "entries changed");
    assert_eq!(cost(&new(20, 9)), 2, "blocks in freed space");
}

#[test]
fn a_flush_of_a_child_syncs_no_more_often_than_it_must() {
    let (storage, disk) = counted(&empty_child(64 * MIB, 1 << 20, 512), &base_of(2 * MIB));
    disk.write_at(&[1; 512], 50 * MIB).unwrap();
    let cost = |what: &dyn Fn(&Disk)| cost(&storage, &disk, what);
    let sector = |disk: &Disk| disk.write_at(&[1; 700], 9 * MIB).unwrap();
    assert_eq!(cost(&sector), 2, "bits and entries");
    assert_eq!(cost(&sector), 1, "sectors that are present: data only");
    let many = |disk: &Disk| {
        for n in 0..40 {
            disk.write_at(&[1; 512], n * MIB + n * 1024).unwrap();
        }
    };
    assert_eq!(cost(&many), 2, "forty blocks");
    let whole = |disk: &Disk| disk.write_at(&vec![1; 1 << 20], 9 * MIB).unwrap();
    assert_eq!(cost(&whole), 2, "promoted");
    assert_eq!(cost(&whole), 1, "in place");
}

/// The log goes round again and again: what that costs beside the flushes' own syncs is the applying of
/// pages, once for half a log.
#[test]
fn a_log_that_goes_round_costs_few_more_syncs() {
    let (storage, disk) = counted(&empty_child(64 * MIB, 1 << 20, 512), &Arc::default());
    disk.write_at(&[1; 512], 0).unwrap();
    disk.flush().unwrap();
    storage.reset();
    for n in 1..=1000u64 {
        disk.write_at(&[1; 512], n * 1024).unwrap();
        disk.flush().unwrap();
    }
    let syncs = syncs(&storage);
    assert!(
        (2000..=2060).contains(&syncs),
        "{syncs} syncs for 1000 flushes"
    );
    let log = storage.of(Op::Write).len();
    assert!(log <= 2300, "{log} writes for 1000 flushes");
}

/// Each allocation wrote the BAT anew.
#[test]
fn tables_are_written_once_for_many_blocks() {
    let (storage, disk) = counted(&VhdxBuilder::new(4096 * MIB), &Arc::default());
    for n in 0..400 {
        disk.write_at(&[1; 4096], n * MIB).unwrap();
    }
    disk.flush().unwrap();
    let writes = storage.of(Op::Write);
    let of_tables: Vec<_> = writes.iter().filter(|call| call.offset < 4 * MIB).collect();
    assert!(of_tables.len() <= 12, "{of_tables:?}");
    let bytes: u64 = of_tables.iter().map(|call| call.len).sum();
    assert!(bytes <= 48 << 10, "{bytes} bytes of tables: {of_tables:?}");
    let guest: u64 = writes.iter().map(|call| call.len).sum::<u64>() - bytes;
    assert_eq!(
        guest,
        400 * 4096,
        "guest bytes are written once, and nothing else"
    );
    let reads = storage.bytes(Op::Read);
    assert!(reads <= 64 << 10, "{reads} bytes read");
}

/// Random overwrites, each flushed at once: nothing is allocated for them.
#[test]
fn overwriting_does_not_grow_the_file() {
    let child = empty_child(4 * MIB, 1 << 20, 512);
    let blocks = (0..4).fold(child, |disk, n| {
        disk.block(n, BlockContent::full(BlockData::Pattern(n)))
    });
    for image in [filled(4, 4), VhdxBuilder::new(4 * MIB).fixed(), blocks] {
        let (storage, disk) = counted(&image, &Arc::default());
        let before = storage.len().unwrap();
        let mut rng = Rng::new(1);
        for _ in 0..2000 {
            let at = rng.below(4 * MIB - 6000);
            disk.write_at(&vec![1; 1 + rng.index(6000)], at).unwrap();
            disk.flush().unwrap();
        }
        assert_eq!(storage.len().unwrap(), before);
    }
}

/// A guest that discards and writes for ever needs no more space than its disk has, and what is under
/// way: what is freed is used again.
#[test]
fn discarding_and_writing_does_not_grow_the_file_for_ever() {
    let base = Arc::new(content(5 << 10));
    for (image, base) in [
        (VhdxBuilder::new(6 * MIB), Arc::default()),
        (empty_child(6 * MIB, 1 << 20, 512), base),
    ] {
        let empty = image.build().len();
        let (storage, disk) = counted(&image, &base);
        let mut rng = Rng::new(2);
        for step in 0..1500 {
            let block = rng.below(6) * MIB;
            match rng.below(4) {
                0 => disk.discard(block, MIB).unwrap(),
                1 => disk.write_zeroes(block, MIB, UNMAP).unwrap(),
                _ => disk.write_at(&vec![1; 1 + rng.index(9000)], block).unwrap(),
            }
            disk.flush().unwrap();
            let now = storage.len().unwrap();
            // Beyond the disk: a bitmap block, and what two flushes hold back.
            assert!(now <= empty + 10 * MIB, "step {step}: {now}");
        }
    }
}

/// A handle that was opened for writing and never written to leaves no trace.
#[test]
fn opening_for_writing_changes_nothing() {
    let (storage, disk) = counted(&filled(4, 2), &Arc::default());
    disk.read_at(&mut [0; 4096], 0).unwrap();
    disk.flush().unwrap();
    Box::new(disk.layer).close().unwrap();
    assert_eq!(storage.changes(), []);
    assert_eq!(syncs(&storage), 0);
}

/// Blocks that are given back take no space on a host that can make holes.
#[test]
fn discarded_blocks_give_their_space_back() {
    let (storage, disk) = counted(&filled(8, 8), &Arc::default());
    disk.discard(2 * MIB, 3 * MIB).unwrap();
    disk.flush().unwrap();
    disk.flush().unwrap();
    Box::new(disk.layer).close().unwrap();
    let given: u64 = storage.bytes(Op::Punch) + cut(&storage);
    assert!(given >= 3 * MIB, "{given} bytes given back");
}

fn cut(storage: &CountingStorage) -> u64 {
    let lengths = storage.of(Op::SetLen);
    let least = lengths.iter().map(|call| call.offset).min();
    least.map_or(0, |least| (12 * MIB).saturating_sub(least))
}
