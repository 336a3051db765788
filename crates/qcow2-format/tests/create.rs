//! New images: what was put in comes out, as every reader sees it, and the same disk gives the same
//! bytes.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use blockdev_core::{
    BlockDevice, BulkOptions, ErrorKind, FileOptions, FileStorage, LoneLayer, MemoryStorage,
    NoProgress, RawLayer, Storage, bulk_copy,
};
use qcow2_format::{CompressionType, CreateOptions, OpenOptions, Qcow2Image, Qcow2Writer};
use testkit::Rng;
use testkit::oracle::QemuImg;

fn raw(bytes: Vec<u8>) -> LoneLayer {
    let storage = Arc::new(MemoryStorage::from(bytes));
    LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
}

fn write(bytes: &[u8], storage: Arc<dyn Storage>, options: CreateOptions, workers: usize) {
    let writer = Qcow2Writer::create(storage, options).unwrap();
    let mut bulk = BulkOptions::default();
    bulk.workers = NonZeroUsize::new(workers).unwrap();
    bulk_copy(&raw(bytes.to_vec()), &writer, &bulk, &NoProgress).unwrap();
    writer.finish().unwrap();
}

/// A disk of `size` bytes with something here and there.
fn sparse(size: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = vec![0; size];
    for _ in 0..12 {
        let at = usize::try_from(rng.below(size as u64)).unwrap();
        let len = usize::try_from(rng.below(200_000)).unwrap().min(size - at);
        bytes[at..at + len].fill(u8::try_from(rng.below(255)).unwrap() + 1);
    }
    bytes
}

fn options(size: usize) -> CreateOptions {
    CreateOptions::new(size as u64)
}

/// Every shape that the options allow, thinned out.
fn shapes(size: usize) -> Vec<CreateOptions> {
    let mut shapes = Vec::new();
    for cluster_bits in [9, 10, 12, 14, 16, 18, 21] {
        for refcount_order in 0..=6 {
            let mut shape = options(size);
            shape.cluster_bits = cluster_bits;
            shape.refcount_order = refcount_order;
            shape.lazy_refcounts = refcount_order % 2 == 0;
            shape.extended_l2 = cluster_bits >= 14 && refcount_order % 3 == 0;
            if refcount_order == 5 {
                shape.compression_type = CompressionType::Zstd;
            }
            shapes.push(shape);
        }
        let mut second = options(size);
        (second.version, second.cluster_bits) = (2, cluster_bits);
        shapes.push(second);
    }
    shapes
}

#[test]
fn what_is_written_is_read_checks_clean_and_takes_no_cluster_too_many() {
    for (seed, shape) in shapes((5 << 20) + 1536).into_iter().enumerate() {
        let bytes = sparse(usize::try_from(shape.size).unwrap(), seed as u64);
        let storage = Arc::new(MemoryStorage::default());
        write(&bytes, storage.clone(), shape.clone(), 3);
        let report = qcow2_format::check(storage.clone(), &OpenOptions::read_only()).unwrap();
        assert_eq!(report.findings, [], "{shape:?}");
        let held = bytes.chunks(1 << shape.cluster_bits);
        let held = held.filter(|c| c.iter().any(|b| *b != 0)).count() as u64;
        assert_eq!(report.allocated_blocks, held, "{shape:?}");
        assert_eq!(report.image_end_offset, storage.len().unwrap(), "{shape:?}");
        let image = Qcow2Image::open(storage, &OpenOptions::read_only()).unwrap();
        let disk = LoneLayer::new(Box::new(image));
        let mut seen = vec![0xEE; bytes.len()];
        disk.read_at(&mut seen, 0).unwrap();
        assert!(seen == bytes, "{shape:?}");
    }
}

fn save(path: &Path, bytes: &[u8], shape: CreateOptions) {
    std::fs::write(path, b"").unwrap();
    let file = FileStorage::open(path, FileOptions::read_write()).unwrap();
    write(bytes, Arc::new(file), shape, 2);
}

#[test]
fn qemu_finds_every_shape_clean_and_reads_the_same() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (image, raw) = (dir.path().join("disk.qcow2"), dir.path().join("disk.raw"));
    for (seed, shape) in shapes((3 << 20) + 512).into_iter().enumerate() {
        let bytes = sparse(usize::try_from(shape.size).unwrap(), seed as u64);
        std::fs::write(&raw, &bytes).unwrap();
        save(&image, &bytes, shape.clone());
        let checked = qemu.check("qcow2", &image);
        assert_eq!(checked.code, 0, "{shape:?}: {checked:?}");
        let same = qemu.same(("qcow2", &image), ("raw", &raw)).unwrap();
        assert!(same, "{shape:?}");
    }
}

#[test]
fn an_empty_image_is_laid_out_as_qemu_lays_it() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    save(&ours, &vec![0; 64 << 20], options(64 << 20));
    qemu.create("qcow2", &theirs, 64 << 20, "").unwrap();
    let (mut ours, theirs) = (std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap());
    // QEMU ends its file with the L1 table's entries, not with its cluster.
    assert!(ours.len() >= theirs.len() && ours.len() - theirs.len() < 65_536);
    assert!(ours[theirs.len()..].iter().all(|byte| *byte == 0));
    ours.truncate(theirs.len());
    let first = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!(first, None, "the first byte that differs");
}

#[test]
fn the_same_disk_gives_the_same_bytes_whatever_the_workers() {
    let bytes = sparse(24 << 20, 7);
    let made = |workers| {
        let storage = Arc::new(MemoryStorage::default());
        write(&bytes, storage.clone(), options(24 << 20), workers);
        storage.to_vec()
    };
    let one = made(1);
    for workers in [2, 8] {
        assert!(made(workers) == one, "{workers} workers");
    }
}

#[test]
fn options_that_the_format_does_not_allow_are_refused_before_anything_is_written() {
    type Change = fn(&mut CreateOptions);
    let cases: [(&str, Change); 9] = [
        ("version", |o| o.version = 4),
        ("cluster_bits", |o| o.cluster_bits = 8),
        ("cluster_bits", |o| o.cluster_bits = 22),
        ("cluster_bits", |o| {
            (o.cluster_bits, o.extended_l2) = (13, true)
        }),
        ("refcount_order", |o| o.refcount_order = 7),
        ("refcount_order", |o| (o.version, o.refcount_order) = (2, 3)),
        ("features", |o| (o.version, o.lazy_refcounts) = (2, true)),
        ("size", |o| o.size = 513),
        ("l1_size", |o| (o.size, o.cluster_bits) = (1 << 50, 9)),
    ];
    for (name, change) in cases {
        let mut bad = options(1 << 20);
        change(&mut bad);
        let storage = Arc::new(MemoryStorage::default());
        let refused = Qcow2Writer::create(storage.clone(), bad).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(refused.to_string().contains(name), "{name}: {refused}");
        assert!(storage.to_vec().is_empty(), "{name}");
    }
}
