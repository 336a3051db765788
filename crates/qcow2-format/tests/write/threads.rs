//! Many guests on one image.

use std::sync::Arc;

use blockdev_core::{BlockDevice, MemoryStorage, OpenOptions};
use qcow2_format::{CreateOptions, NewSnapshot, check};
use testkit::model::{Neighbours, Threads, run_flushes, run_neighbours, run_threads};

use crate::model::qemu_agrees;
use crate::subject::{Disk, backed, content, empty, filled, open, options};

const KIB: usize = 256;

/// Images that make guests meet in different ways: in clusters that are copied, in new ones, in
/// subclusters, over a base.
fn shapes() -> Vec<(CreateOptions, Vec<u8>, Vec<u8>)> {
    let shape = |bits| options((KIB << 10) as u64, bits);
    let full = content(KIB);
    let mut extended = shape(16);
    extended.extended_l2 = true;
    let mut lazy = shape(12);
    lazy.lazy_refcounts = true;
    let mut wide = shape(9);
    wide.refcount_order = 6;
    vec![
        (shape(16), filled(&full, shape(16)), Vec::new()),
        (shape(12), empty(shape(12)), Vec::new()),
        (wide.clone(), empty(wide), Vec::new()),
        (
            extended.clone(),
            filled(&full, extended.clone()),
            Vec::new(),
        ),
        (lazy.clone(), filled(&full, lazy), Vec::new()),
        (shape(14), backed(empty(shape(14)), 14), content(KIB - 50)),
    ]
}

fn start(image: Vec<u8>, base: Vec<u8>, snapshot: bool) -> (Arc<MemoryStorage>, Disk, Vec<u8>) {
    let storage = Arc::new(MemoryStorage::from(image));
    let mut disk = open(storage.clone(), true, &Arc::new(base)).unwrap();
    if snapshot {
        disk.layer
            .create_snapshot(&NewSnapshot::now("one"))
            .unwrap();
    }
    let mut seen = vec![0; KIB << 10];
    disk.read_at(&mut seen, 0).unwrap();
    (storage, disk, seen)
}

fn finish(storage: &Arc<MemoryStorage>, disk: Disk, what: &str) {
    let base = Arc::clone(&disk.base);
    drop(disk);
    let report = check(storage.clone(), &OpenOptions::read_only()).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.findings);
    qemu_agrees(&storage.to_vec(), &base, what);
}

#[test]
fn guests_that_meet_read_what_one_of_them_wrote() {
    for (n, (shape, image, base)) in shapes().into_iter().enumerate() {
        for threads in [2, 4, 8] {
            let (storage, disk, seen) = start(image.clone(), base.clone(), n % 2 == 0);
            let what = Threads {
                threads,
                ops: 800 / threads,
                sectors: 24,
                zeroes: true,
                seed: (n * 10 + threads) as u64,
            };
            run_threads(&disk, &seen, what);
            finish(&storage, disk, &format!("{threads} guests, {shape:?}"));
        }
    }
}

#[test]
fn neighbours_in_a_cluster_do_not_harm_each_other() {
    for (n, (shape, image, base)) in shapes().into_iter().enumerate() {
        let (storage, disk, seen) = start(image, base, n % 2 == 1);
        let what = Neighbours {
            seed: n as u64,
            ..Neighbours::default()
        };
        run_neighbours(&disk, &seen, what);
        finish(&storage, disk, &format!("{shape:?}"));
    }
}

/// Guests whose flushes waited for each other's, and each then for a barrier of its own, were as slow as
/// one after the other.
#[test]
fn guests_that_flush_at_once_share_their_barriers() {
    for (shape, image, base) in shapes() {
        let base = Arc::new(base);
        let syncs = run_flushes(image, 8, 20, |storage, writable| {
            open(storage, writable, &base).unwrap()
        });
        assert!(syncs <= 80, "{syncs} syncs for 160 flushes, {shape:?}");
    }
}
