//! Random life against a flat disk, and the real tools' view of what came of it.

use std::sync::Arc;

use blockdev_core::{BlockDevice, MemoryStorage};
use testkit::conformance;
use testkit::model::{Compare, Ops, Shape, Weights, run_model};
use testkit::oracle::QemuImg;

use crate::random::shape;
use crate::subject::{empty, open, options};

const ALL_BITS: &[u32] = &[9, 10, 11, 12, 13, 14, 15, 16, 17, 21];

/// QEMU finds no fault in the image, and reads from it what we read.
pub(crate) fn qemu_agrees(image: &[u8], base: &Arc<Vec<u8>>, what: &str) {
    let Some(qemu) = QemuImg::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, flat) = (folder.path().join("image"), folder.path().join("flat"));
    std::fs::write(&file, image).unwrap();
    if !base.is_empty() {
        std::fs::write(folder.path().join("base"), &**base).unwrap();
    }
    let checked = qemu.check("qcow2", &file);
    assert_eq!(checked.code, 0, "{what}: {checked:?}");
    qemu.to_raw("qcow2", &file, &flat).unwrap();
    let storage = Arc::new(MemoryStorage::from(image.to_vec()));
    let disk = open(storage, false, base).unwrap();
    let mut ours = vec![0xEE; usize::try_from(disk.size()).unwrap()];
    disk.read_at(&mut ours, 0).unwrap();
    let theirs = std::fs::read(&flat).unwrap();
    let differs = ours
        .chunks(512)
        .zip(theirs.chunks(512))
        .position(|(a, b)| a != b);
    assert_eq!(differs, None, "{what}: a sector that QEMU reads otherwise");
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

#[test]
fn a_guest_of_any_shape_of_image_reads_what_it_wrote() {
    for seed in 0..40 {
        let (options, shape) = shape(seed, ALL_BITS, 200);
        let what = format!("seed {seed}, {options:?}");
        let Shape {
            image,
            content,
            subject,
            abilities,
            ..
        } = shape;
        let size = content.len() as u64;
        let weights = Weights {
            flush: 5,
            ..Weights::default()
        };
        let ops = Ops::new(seed, size, abilities, weights).take(400);
        let compare = Compare {
            every: 25,
            check: true,
        };
        let image = run_model(&subject, &image, content, seed, ops, compare);
        let storage = Arc::new(MemoryStorage::from(image.clone()));
        let report = testkit::crash::CrashSubject::check(&subject, &[storage]).unwrap();
        assert!(report.is_clean(), "{what}: {:?}", report.findings);
        qemu_agrees(&image, &subject.base, &what);
    }
}

#[test]
fn images_are_writable_disks() {
    for (bits, version, order, extended) in [
        (9, 3, 4, false),
        (12, 2, 4, false),
        (16, 3, 0, false),
        (14, 3, 6, true),
        (16, 3, 4, true),
        (21, 3, 4, false),
        (21, 3, 3, true),
    ] {
        let mut shape = options(3 << 20, bits);
        shape.version = version;
        shape.refcount_order = order;
        shape.extended_l2 = extended;
        let storage = Arc::new(MemoryStorage::from(empty(shape)));
        let base = Arc::default();
        let disk = open(storage.clone(), true, &base).unwrap();
        let mut content = vec![0; 3 << 20];
        conformance::writable(&disk, &mut content);
        drop(disk);
        let disk = open(storage.clone(), false, &base).unwrap();
        conformance::readable(&disk, &content[..]);
        conformance::refuses_changes(&disk);
        qemu_agrees(&storage.to_vec(), &base, &format!("{bits} bits"));
    }
}
