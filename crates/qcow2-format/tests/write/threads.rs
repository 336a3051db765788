//! Many guests on one image.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use blockdev_core::{BlockDevice, MemoryStorage, OpenOptions, ZeroFlags};
use qcow2_format::{CreateOptions, NewSnapshot, check};
use testkit::Rng;
use testkit::model::{Threads, run_threads};

use crate::model::qemu_agrees;
use crate::subject::{Disk, backed, content, empty, filled, options};

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
    let mut disk = Disk::open(storage.clone(), true, &Arc::new(base)).unwrap();
    if snapshot {
        disk.image
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

/// Each guest has every fourth piece of the disk for itself, but not whole clusters: what one does to
/// its part, discards included, the others do not notice.
#[test]
fn neighbours_in_a_cluster_do_not_harm_each_other() {
    const PIECE: usize = 5 * 512;
    const GUESTS: usize = 4;
    for (n, (shape, image, base)) in shapes().into_iter().enumerate() {
        let (storage, disk, seen) = start(image, base, n % 2 == 1);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let guests: Vec<_> = (0..GUESTS)
                .map(|guest| {
                    let (disk, mut model) = (&disk, seen.clone());
                    scope.spawn(move || {
                        let mut rng = Rng::new((n * GUESTS + guest) as u64);
                        let pieces = model.len() / PIECE / GUESTS;
                        for step in 0..300u32 {
                            let at = (rng.index(pieces) * GUESTS + guest) * PIECE;
                            let part = &mut model[at..at + PIECE];
                            let (at, len) = (at as u64, part.len() as u64);
                            match rng.below(8) {
                                0..=2 => {
                                    part.fill(step.to_le_bytes()[0] | 1);
                                    disk.write_at(part, at).unwrap();
                                }
                                3 => {
                                    let flags = ZeroFlags {
                                        may_unmap: rng.one_in(2),
                                        no_fallback: false,
                                    };
                                    disk.write_zeroes(at, len, flags).unwrap();
                                    part.fill(0);
                                }
                                4 | 5 => {
                                    disk.discard(at, len).unwrap();
                                    let old = part.to_vec();
                                    disk.read_at(part, at).unwrap();
                                    let mut bytes = part.iter().zip(&old);
                                    assert!(bytes.all(|(new, old)| *new == 0 || new == old));
                                }
                                _ => {
                                    let mut seen = vec![0xEE; PIECE];
                                    disk.read_at(&mut seen, at).unwrap();
                                    assert!(seen == *part, "guest {guest}, step {step}");
                                }
                            }
                        }
                        model
                    })
                })
                .collect();
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    disk.flush().unwrap();
                    thread::yield_now();
                }
            });
            let models: Vec<_> = guests.into_iter().map(|guest| guest.join()).collect();
            over.store(true, Ordering::Relaxed);
            let models: Vec<Vec<u8>> = models.into_iter().map(Result::unwrap).collect();
            let mut seen = vec![0xEE; KIB << 10];
            disk.read_at(&mut seen, 0).unwrap();
            for (piece, bytes) in seen.chunks_exact(PIECE).enumerate() {
                let right = &models[piece % GUESTS][piece * PIECE..(piece + 1) * PIECE];
                assert!(bytes == right, "piece {piece} of {shape:?}");
            }
        });
        finish(&storage, disk, &format!("{shape:?}"));
    }
}
