//! What writing costs the host: syncs, writes, space.

use std::sync::Arc;

use blockdev_core::{BlockDevice, MemoryStorage, Storage};
use testkit::Rng;
use testkit::counting::{CountingStorage, Op};

use crate::stories::UNMAP;
use crate::subject::{Disk, backed, content, empty, filled, open, options};

fn counted(image: Vec<u8>) -> (Arc<CountingStorage>, Disk) {
    let storage = CountingStorage::new(Arc::new(MemoryStorage::from(image)));
    let disk = open(storage.clone(), true, &Arc::default()).unwrap();
    storage.reset();
    (storage, disk)
}

#[test]
fn a_flush_syncs_no_more_often_than_it_must() {
    let (storage, disk) = counted(filled(&content(512), options(8 << 20, 16)));
    let syncs = || storage.count(Op::SyncData) + storage.count(Op::SyncFull);
    let cost = |what: &dyn Fn()| {
        disk.flush().unwrap();
        disk.flush().unwrap();
        storage.reset();
        what();
        assert_eq!(syncs(), 0, "nothing is synced before the flush");
        disk.flush().unwrap();
        syncs()
    };
    assert_eq!(cost(&|| ()), 0, "nothing changed");
    let read = || disk.read_at(&mut [0; 4096], 0).unwrap();
    assert_eq!(cost(&read), 0, "nothing changed");
    let in_place = || {
        for n in 0..8 {
            disk.write_at(&[1; 4096], n << 16).unwrap();
        }
    };
    assert_eq!(cost(&in_place), 1, "data only");
    let new = |first: u64, count: u64| {
        move |disk: &Disk| {
            for n in first..first + count {
                disk.write_at(&[1; 512], n << 16).unwrap();
            }
        }
    };
    assert_eq!(cost(&|| new(10, 1)(&disk)), 2, "a new cluster");
    assert_eq!(cost(&|| new(20, 60)(&disk)), 2, "sixty new clusters");
    let large = || disk.write_at(&vec![2; 2 << 20], 5 << 20).unwrap();
    assert_eq!(cost(&large), 2, "old clusters and new ones");
    let zeros = || disk.write_zeroes(0, 256 << 10, UNMAP).unwrap();
    assert!(cost(&zeros) <= 2, "entries changed");
    let discard = || disk.discard(1 << 20, 1 << 20).unwrap();
    assert!(cost(&discard) <= 2, "entries changed");
}

/// The entry of each cluster was written, or a whole table copied, as the cluster was allocated.
#[test]
fn tables_are_written_once_for_many_clusters() {
    let (storage, disk) = counted(empty(options(64 << 20, 12)));
    for n in 0..2000 {
        disk.write_at(&[1; 4096], n << 12).unwrap();
    }
    disk.flush().unwrap();
    let writes = storage.of(Op::Write);
    let of_tables: Vec<_> = writes.iter().filter(|call| call.len != 4096).collect();
    assert!(writes.len() <= 2000 + 20, "{} writes", writes.len());
    let bytes: u64 = writes.iter().map(|call| call.len).sum();
    let tables = bytes - (2000 << 12);
    assert!(
        tables <= 64 << 10,
        "{tables} bytes of tables: {of_tables:?}"
    );
    let reads = storage.bytes(Op::Read);
    assert!(reads <= 256 << 10, "{reads} bytes read");
}

/// Random overwrites, each flushed at once: nothing is allocated for them.
#[test]
fn overwriting_does_not_grow_the_file() {
    let (storage, disk) = counted(filled(&content(1024), options(1 << 20, 12)));
    let before = storage.len().unwrap();
    let mut rng = Rng::new(1);
    for _ in 0..2000 {
        let at = rng.below((1 << 20) - 6000);
        disk.write_at(&vec![1; 1 + rng.index(6000)], at).unwrap();
        disk.flush().unwrap();
    }
    assert_eq!(storage.len().unwrap(), before);
}

/// A guest that discards and writes for ever needs no more space than its disk has, and what is under
/// way: what is freed is used again.
#[test]
fn discarding_and_writing_does_not_grow_the_file_for_ever() {
    let base = content(700);
    for bits in [9, 12] {
        let whole = filled(&content(1024), options(1 << 20, bits)).len() as u64;
        let image = backed(empty(options(1 << 20, bits)), bits);
        let storage = Arc::new(MemoryStorage::from(image));
        let disk = open(storage.clone(), true, &Arc::new(base.clone())).unwrap();
        let mut rng = Rng::new(2);
        for step in 0..4000 {
            let at = rng.below((1 << 20) - 20_000);
            match rng.below(3) {
                0 => disk.discard(at, 20_000).unwrap(),
                1 => disk.write_zeroes(at, 9000, UNMAP).unwrap(),
                _ => disk.write_at(&vec![1; 1 + rng.index(20_000)], at).unwrap(),
            }
            disk.flush().unwrap();
            let now = storage.len().unwrap();
            // Beyond the disk: what two flushes hold back, and tables for it.
            assert!(now <= whole + (200 << 10), "step {step}: {now} of {whole}");
        }
    }
}
