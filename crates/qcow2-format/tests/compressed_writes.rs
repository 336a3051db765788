//! Packed clusters written into images that live on.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other proofs of writing")]
#[path = "write/subject.rs"]
mod subject;

use std::sync::Arc;

use blockdev_core::{BlockDevice, ErrorKind, MemoryStorage, OpenOptions, Result, ZeroFlags};
use qcow2_format::{CompressionType, CreateOptions};
use subject::{Disk, Qcow2, empty, filled, open, options};
use testkit::Rng;
use testkit::crash::{Budget, CrashExplorer, Effect, Scenario};
use testkit::oracle::QemuImg;

const UNMAP: ZeroFlags = ZeroFlags {
    may_unmap: true,
    no_fallback: false,
};

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

/// Bytes that pack to about half.
fn words(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for word in bytes.chunks_mut(8) {
        let n = rng.below(60);
        let text = format!("{n:02}word\n ");
        word.copy_from_slice(&text.as_bytes()[..word.len()]);
    }
    bytes
}

/// Packs, writes, zeroes and reopens at random; in the end everyone reads the same.
fn life(seed: u64, shape: CreateOptions) {
    let (size, cluster) = (index(shape.size), 1 << shape.cluster_bits);
    let storage = Arc::new(MemoryStorage::from(empty(shape)));
    let base = Arc::new(Vec::new());
    let mut disk = open(storage.clone(), true, &base).unwrap();
    let mut model = vec![0; size];
    let mut rng = Rng::new(seed);
    for step in 0..150 {
        let first = index(rng.below((size / cluster) as u64));
        let clusters = 1 + index(rng.below(4));
        let from = first * cluster;
        let to = (from + clusters * cluster).min(size);
        match rng.below(10) {
            0..=4 => {
                let mut bytes = words(&mut rng, to - from);
                if rng.one_in(6) {
                    rng.fill(&mut bytes);
                }
                disk.layer.write_compressed(&bytes, from as u64).unwrap();
                model[from..to].copy_from_slice(&bytes);
            }
            5..=6 => {
                let from = from + index(rng.below(cluster as u64));
                let to = (from + index(rng.below(9000))).min(size);
                let bytes = words(&mut rng, to - from);
                disk.write_at(&bytes, from as u64).unwrap();
                model[from..to].copy_from_slice(&bytes);
            }
            7 => {
                disk.write_zeroes(from as u64, (to - from) as u64, UNMAP)
                    .unwrap();
                model[from..to].fill(0);
            }
            8 => disk.flush().unwrap(),
            _ => {
                drop(disk);
                disk = open(storage.clone(), true, &base).unwrap();
            }
        }
        let mut now = vec![0xEE; size];
        disk.read_at(&mut now, 0).unwrap();
        assert!(now == model, "seed {seed}, step {step}");
    }
    drop(disk);
    let report = qcow2_format::check(storage.clone(), &OpenOptions::read_only()).unwrap();
    assert!(report.is_clean(), "seed {seed}: {:#?}", report.findings);
    let Some(qemu) = QemuImg::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, flat) = (folder.path().join("image"), folder.path().join("flat"));
    std::fs::write(&file, storage.to_vec()).unwrap();
    std::fs::write(&flat, &model).unwrap();
    let checked = qemu.check("qcow2", &file);
    assert_eq!(checked.code, 0, "seed {seed}: {checked:?}");
    let same = qemu.same(("qcow2", &file), ("raw", &flat));
    assert!(same.unwrap(), "seed {seed}");
}

#[test]
fn packed_and_plain_clusters_live_together() {
    let mut seed = 0;
    for bits in [9, 12, 16] {
        for order in [0, 1, 4] {
            for compression in [CompressionType::Zlib, CompressionType::Zstd] {
                let mut shape = options(20 << bits, bits);
                shape.refcount_order = order;
                shape.compression_type = compression;
                shape.extended_l2 = bits == 16 && order == 1;
                life(seed, shape);
                seed += 1;
            }
        }
    }
}

/// QEMU 10.0.2 packs the last cluster of this into the plain one, and loses guest data by it.
#[test]
fn packing_goes_on_behind_nothing_that_was_freed_and_used_again() {
    let storage = Arc::new(MemoryStorage::from(empty(options(1 << 20, 16))));
    let disk = open(storage.clone(), true, &Arc::new(Vec::new())).unwrap();
    let cluster = 65_536;
    let mut rng = Rng::new(1);
    let [a, b, c] = [(); 3].map(|()| words(&mut rng, 65_536));
    disk.layer.write_compressed(&a, 0).unwrap();
    disk.write_zeroes(0, cluster, UNMAP).unwrap();
    disk.flush().unwrap();
    disk.write_at(&b, cluster).unwrap();
    disk.layer.write_compressed(&c, 2 * cluster).unwrap();
    disk.flush().unwrap();
    let mut now = vec![0; 3 * 65_536];
    disk.read_at(&mut now, 0).unwrap();
    assert!(now == [vec![0; 65_536], b, c].concat());
}

#[test]
fn parts_of_clusters_are_refused() {
    let storage = Arc::new(MemoryStorage::from(empty(options((1 << 20) + 512, 16))));
    let disk = open(storage, true, &Arc::new(Vec::new())).unwrap();
    let refused = |len, at| {
        disk.layer
            .write_compressed(&vec![1; len], at)
            .unwrap_err()
            .kind()
    };
    assert_eq!(refused(65_536, 512), ErrorKind::InvalidInput);
    assert_eq!(refused(512, 0), ErrorKind::InvalidInput);
    assert_eq!(refused(65_536, 1 << 20), ErrorKind::OutOfRange);
    disk.layer.write_compressed(&[1; 512], 1 << 20).unwrap();
}

/// Everything packed anew where it lies, in every state a crash can leave.
#[test]
fn a_crash_while_packing_costs_nothing_but_space() {
    for bits in [9, 12] {
        let content = words(&mut Rng::new(3), 40 << 10);
        let image = filled(&content, options(content.len() as u64, bits));
        let name = format!("packing, {bits} bits");
        let scenario = Scenario::new(name, image, |d| {
            let pack = |from: u64, to: u64| {
                move |device: Disk, _: &_| -> Result<Disk> {
                    let mut bytes = vec![0; index(to - from)];
                    device.read_at(&mut bytes, from)?;
                    device.layer.write_compressed(&bytes, from)?;
                    Ok(device)
                }
            };
            d.control_with("pack", Effect::Same, false, pack(4096, 16_384))?;
            d.flush()?;
            d.control_with("pack", Effect::Same, false, pack(8192, 40 << 10))?;
            d.write(9000, 3000)?;
            d.flush()?;
            d.control_with("pack", Effect::Same, false, pack(0, 16_384))?;
            d.discard(20_480, 8192)?;
            d.flush()?;
            d.write(30_000, 700)
        });
        let explorer = CrashExplorer::new(&Qcow2::default(), Budget::states(1500)).run(&scenario);
        explorer.assert_clean();
    }
}
