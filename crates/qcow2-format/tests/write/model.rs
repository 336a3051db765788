//! Random life against a flat disk, and the real tools' view of what came of it.

use std::sync::Arc;

use blockdev_core::{BlockDevice, MemoryStorage, OpenOptions, ZeroFlags};
use testkit::Rng;
use testkit::oracle::QemuImg;

use crate::subject::{Disk, backed, empty, options};

fn random_life(seed: u64, image: Vec<u8>, base: Vec<u8>) {
    let size = usize::try_from(u64::from_be_bytes(image[24..32].try_into().unwrap())).unwrap();
    let mut model = base.clone();
    model.resize(size, 0);
    let has_base = !base.is_empty();
    let base = Arc::new(base);
    let storage = Arc::new(MemoryStorage::from(image));
    let mut rng = Rng::new(seed);
    let mut disk = Disk::open(storage.clone(), true, &base).unwrap();
    for step in 0..400 {
        let at = rng.below(size as u64) as usize;
        let at = if rng.one_in(2) { at & !511 } else { at };
        let most = if rng.one_in(8) { 90_000 } else { 6000 };
        let len = 1 + rng.below(most) as usize;
        let len = len.min(size - at);
        match rng.below(20) {
            0..=10 => {
                let bytes: Vec<u8> = (0..len).map(|i| (step + i / 7 + 1) as u8).collect();
                disk.write_at(&bytes, at as u64).unwrap();
                model[at..at + len].copy_from_slice(&bytes);
            }
            11..=13 => {
                let flags = ZeroFlags {
                    may_unmap: rng.one_in(2),
                    no_fallback: false,
                };
                disk.write_zeroes(at as u64, len as u64, flags).unwrap();
                model[at..at + len].fill(0);
            }
            14..=15 => {
                disk.discard(at as u64, len as u64).unwrap();
                let mut now = vec![0; len];
                disk.read_at(&mut now, at as u64).unwrap();
                for (old, new) in model[at..at + len].iter_mut().zip(now) {
                    assert!(new == 0 || new == *old, "seed {seed}, step {step}");
                    *old = new;
                }
            }
            16..=17 => disk.flush().unwrap(),
            18 => {
                drop(disk);
                disk = Disk::open(storage.clone(), true, &base).unwrap();
            }
            _ => {
                let mut now = vec![0xEE; size];
                disk.read_at(&mut now, 0).unwrap();
                assert!(now == model, "seed {seed}, step {step}");
            }
        }
    }
    drop(disk);
    let report = qcow2_format::check(storage.clone(), &OpenOptions::read_only()).unwrap();
    assert!(report.is_clean(), "seed {seed}: {:#?}", report.findings);
    let Some(qemu) = QemuImg::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, flat) = (folder.path().join("image"), folder.path().join("flat"));
    std::fs::write(&file, storage.to_vec()).unwrap();
    std::fs::write(&flat, &model).unwrap();
    if has_base {
        std::fs::write(folder.path().join("base"), &*base).unwrap();
    }
    let checked = qemu.check("qcow2", &file);
    assert_eq!(checked.code, 0, "seed {seed}: {checked:?}");
    if !has_base {
        assert!(
            qemu.same(("qcow2", &file), ("raw", &flat)).unwrap(),
            "seed {seed}"
        );
    }
}

#[test]
fn every_shape_equals_a_flat_disk() {
    let mut seed = 0;
    for bits in [9, 10, 12, 16] {
        for order in [0, 2, 4, 6] {
            for kind in 0..3 {
                let mut shape = options(300 << 10, bits);
                shape.refcount_order = order;
                shape.lazy_refcounts = seed % 2 == 1;
                shape.extended_l2 = bits >= 14 && order == 2;
                if kind == 1 && order == 4 {
                    shape.version = 2;
                    shape.lazy_refcounts = false;
                }
                let mut image = empty(shape);
                let mut base = Vec::new();
                if kind == 2 && bits > 9 {
                    image = backed(image, bits);
                    base = (0..200_000u32).map(|i| (i / 512 % 250 + 3) as u8).collect();
                }
                random_life(seed, image, base);
                seed += 1;
            }
        }
    }
}
