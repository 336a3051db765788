//! Many guests on one image.

use std::sync::Arc;

use blockdev_core::{BlockDevice, MemoryStorage, OpenOptions};
use testkit::model::{Neighbours, Threads, run_flushes, run_neighbours, run_threads};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};
use vhdx_format::check;

use crate::model::qemu_agrees;
use crate::random::empty_child;
use crate::subject::{Disk, MIB, content, open};

const KIB: usize = 2560;

/// Images that make guests meet in different ways: in blocks of their own file, in new ones, in partial
/// ones, in sectors larger than what they write.
fn shapes() -> Vec<(&'static str, VhdxBuilder, Vec<u8>)> {
    let size = (KIB as u64) << 10;
    let full = |n| BlockContent::full(BlockData::Bytes(content(n)));
    let part = |from| BlockContent::partial(BlockData::Pattern(from), from..2000);
    let base = || content(KIB - 50);
    let empty = VhdxBuilder::new(size);
    vec![
        ("dynamic", empty.clone(), Vec::new()),
        (
            "half full",
            empty.clone().block(0, full(1024)).block(2, full(512)),
            Vec::new(),
        ),
        ("fixed", empty.clone().fixed(), Vec::new()),
        ("large sectors", empty.logical_sector_size(4096), Vec::new()),
        ("child", empty_child(size, 1 << 20, 512), base()),
        (
            "child with blocks",
            empty_child(size, 1 << 20, 512)
                .block(0, part(5))
                .block(1, BlockContent::Zero)
                .block(2, full(200))
                .stale_bitmap(1, 0xFF)
                .stale_bitmap(2, 0xFF),
            base(),
        ),
        (
            "child of large sectors",
            empty_child(size, 2 << 20, 4096),
            base(),
        ),
    ]
}

fn start(image: &VhdxBuilder, base: Vec<u8>) -> (Arc<MemoryStorage>, Disk, Vec<u8>) {
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let disk = open(storage.clone(), true, &Arc::new(base)).unwrap();
    let mut seen = vec![0; KIB << 10];
    disk.read_at(&mut seen, 0).unwrap();
    (storage, disk, seen)
}

fn finish(storage: &Arc<MemoryStorage>, disk: Disk, image: &VhdxBuilder, what: &str) {
    let mut seen = vec![0; KIB << 10];
    disk.read_at(&mut seen, 0).unwrap();
    let base = Arc::clone(&disk.base);
    let is_child = !base.is_empty();
    drop(disk);
    let report = check(storage.clone(), &OpenOptions::read_only()).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.findings);
    let disk = open(storage.clone(), false, &base).unwrap();
    let mut again = vec![0; KIB << 10];
    disk.read_at(&mut again, 0).unwrap();
    assert!(seen == again, "{what}: it reads otherwise after a close");
    if !is_child && image.geometry().sector_size == 512 {
        qemu_agrees(&storage.to_vec(), what);
    }
}

#[test]
fn guests_that_meet_read_what_one_of_them_wrote() {
    for (n, (name, image, base)) in shapes().into_iter().enumerate() {
        for threads in [2, 4, 8] {
            let (storage, disk, seen) = start(&image, base.clone());
            let what = Threads {
                threads,
                ops: 800 / threads,
                sectors: if n % 2 == 0 { 24 } else { 3000 },
                zeroes: true,
                seed: (n * 10 + threads) as u64,
            };
            run_threads(&disk, &seen, what);
            finish(&storage, disk, &image, &format!("{threads} guests, {name}"));
        }
    }
}

/// Pieces of sectors, of some sectors, of most of a block, whole blocks.
#[test]
fn neighbours_in_a_block_or_a_sector_do_not_harm_each_other() {
    for (n, (name, image, base)) in shapes().into_iter().enumerate() {
        for (piece, steps) in [(200, 300), (5 * 512, 300), (150_000, 60)] {
            let (storage, disk, seen) = start(&image, base.clone());
            let what = Neighbours {
                seed: n as u64,
                piece,
                steps,
                ..Neighbours::default()
            };
            run_neighbours(&disk, &seen, what);
            let what = format!("{name}, pieces of {piece}");
            finish(&storage, disk, &image, &what);
        }
    }
}

/// What block `block` is full of.
fn own(block: u64) -> u8 {
    u8::try_from(block + 1).unwrap()
}

/// One discards and writes whole blocks while the others read and write in other blocks: what is freed
/// under readers is not theirs, and not used again while they look.
#[test]
fn blocks_come_and_go_beside_readers() {
    for (base, image) in [
        (Vec::new(), VhdxBuilder::new(4 * MIB)),
        (content(4096), empty_child(4 * MIB, 1 << 20, 512)),
    ] {
        let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
        let disk = open(storage.clone(), true, &Arc::new(base)).unwrap();
        for block in 0..4 {
            disk.write_at(&vec![own(block); 1 << 20], block * MIB)
                .unwrap();
        }
        std::thread::scope(|scope| {
            for reader in 0..2u64 {
                let disk = &disk;
                scope.spawn(move || {
                    let mut rng = testkit::Rng::new(reader);
                    for _ in 0..400 {
                        let block = rng.below(4);
                        let mut seen = vec![0xEE; 20_000];
                        let at = block * MIB + rng.below(MIB - 20_000);
                        disk.read_at(&mut seen, at).unwrap();
                        let own = own(block);
                        let stray = seen.iter().find(|byte| **byte != 0 && **byte != own);
                        assert_eq!(stray, None, "block {block} shows another's bytes");
                    }
                });
            }
            for writer in 0..2u64 {
                let disk = &disk;
                scope.spawn(move || {
                    let mut rng = testkit::Rng::new(writer + 7);
                    for _ in 0..60 {
                        let block = writer * 2 + rng.below(2);
                        disk.discard(block * MIB, MIB).unwrap();
                        if rng.one_in(3) {
                            disk.flush().unwrap();
                        }
                        let bytes = vec![own(block); 1 << 20];
                        disk.write_at(&bytes, block * MIB).unwrap();
                    }
                });
            }
        });
        drop(disk);
        let report = check(storage.clone(), &OpenOptions::read_only()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
    }
}

/// Guests whose flushes waited for each other's, and each then for a barrier of its own, were as slow as
/// one after the other.
#[test]
fn guests_that_flush_at_once_share_their_barriers() {
    for (what, image, base) in shapes() {
        let base = Arc::new(base);
        let syncs = run_flushes(image.build().to_vec(), 8, 20, |storage, writable| {
            open(storage, writable, &base).unwrap()
        });
        assert!(syncs <= 80, "{syncs} syncs for 160 flushes, {what}");
    }
}
