//! New images over a backing file: only differences are stored, and the header names the file as QEMU
//! has it.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use blockdev_core::{
    BulkOptions, ErrorKind, FileOptions, FileStorage, LoneLayer, MemoryStorage, NoProgress,
    RawLayer, Storage, bulk_copy,
};
use common::{check, file, memory};
use qcow2_format::{Backing, CreateOptions, Qcow2Writer};
use testkit::Rng;
use testkit::counting::{Fault, FaultyStorage};
use testkit::oracle::QemuImg;

fn raw(bytes: &[u8]) -> LoneLayer {
    LoneLayer::new(Box::new(RawLayer::open(memory(bytes)).unwrap()))
}

fn backing(name: &str, format: &str) -> Option<Backing> {
    let (name, format) = (name.into(), format.into());
    Some(Backing { name, format })
}

fn write(
    bytes: &[u8],
    below: &[u8],
    storage: Arc<dyn Storage>,
    options: CreateOptions,
) -> blockdev_core::Result<()> {
    let below = raw(below);
    let writer = Qcow2Writer::create_over(storage, options, &below)?;
    bulk_copy(&raw(bytes), &writer, &BulkOptions::default(), &NoProgress)?;
    writer.finish()
}

fn create(path: &Path) -> Arc<dyn Storage> {
    std::fs::write(path, b"").unwrap();
    Arc::new(FileStorage::open(path, FileOptions::read_write()).unwrap())
}

/// A backing disk and one that differs from it here and there, by zeros too; the second is longer.
fn pair(seed: u64) -> (Vec<u8>, Vec<u8>) {
    const SIZE: u64 = 3 << 20;
    let mut rng = Rng::new(seed);
    let mut below = vec![0; usize::try_from(SIZE).unwrap() - 700 * 512];
    let mut change = |bytes: &mut [u8], times: u64, zeros: bool| {
        for _ in 0..times {
            let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
            let len = usize::try_from(rng.below(200_000))
                .unwrap()
                .min(bytes.len() - at);
            let value = if zeros {
                0
            } else {
                rng.below(255).to_le_bytes()[0] + 1
            };
            bytes[at..at + len].fill(value);
        }
    };
    change(&mut below, 12, false);
    let mut disk = below.clone();
    disk.resize(usize::try_from(SIZE).unwrap() + 512, 0);
    change(&mut disk, 3, true);
    change(&mut disk, 3, false);
    (below, disk)
}

#[test]
fn only_differences_are_stored_and_qemu_reads_the_disk() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name| dir.path().join(name);
    let (base, whole, image) = (at("base.raw"), at("disk.raw"), at("disk.qcow2"));
    let mut seed = 0;
    for version in [2, 3] {
        for cluster_bits in [9, 12, 16, 21] {
            for compressed in [false, true] {
                seed += 1;
                let (below, disk) = pair(seed);
                std::fs::write(&base, &below).unwrap();
                std::fs::write(&whole, &disk).unwrap();
                let mut options = CreateOptions::new(disk.len() as u64);
                (options.version, options.cluster_bits) = (version, cluster_bits);
                options.compressed = compressed;
                options.extended_l2 = version == 3 && cluster_bits == 16;
                options.backing = backing("base.raw", "raw");
                write(&disk, &below, create(&image), options.clone()).unwrap();
                assert_eq!(qemu.check("qcow2", &image).code, 0, "{options:?}");
                let same = qemu.same(("qcow2", &image), ("raw", &whole)).unwrap();
                assert!(same, "{options:?}");

                let report = check(file(&image)).unwrap();
                assert_eq!(report.findings, [], "{options:?}");
                let mut padded = below;
                padded.resize(disk.len(), 0);
                let pairs = disk
                    .chunks(1 << cluster_bits)
                    .zip(padded.chunks(1 << cluster_bits));
                let differ = pairs.filter(|(new, old)| new != old);
                // A mark is enough for zeros, where the version has one.
                let stored = differ.filter(|(new, _)| version == 2 || new.iter().any(|b| *b != 0));
                assert_eq!(
                    report.allocated_blocks,
                    stored.count() as u64,
                    "{options:?}"
                );
            }
        }
    }
}

#[test]
fn the_header_names_the_backing_file_as_qemu_has_it() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for (version, compat) in [(2, "0.10"), (3, "1.1")] {
        for cluster_bits in [9, 16] {
            for (name, format) in [("base.raw", "raw"), ("a/longer/name", "qcow2")] {
                let mut options = CreateOptions::new(1 << 20);
                (options.version, options.cluster_bits) = (version, cluster_bits);
                options.backing = backing(name, format);
                write(&vec![0; 1 << 20], &[], create(&ours), options).unwrap();
                let size = format!("compat={compat},cluster_size={}", 1 << cluster_bits);
                let mut args = vec!["create", "-q", "-u", "-f", "qcow2", "-o", &size];
                args.extend(["-b", name, "-F", format, theirs.to_str().unwrap(), "1M"]);
                qemu.run(&args).ok().unwrap();
                let (mut ours, theirs) = (
                    std::fs::read(&ours).unwrap(),
                    std::fs::read(&theirs).unwrap(),
                );
                ours.truncate(1 << cluster_bits);
                // Where QEMU puts the tables of small clusters is its own affair.
                let fixed = 48..64;
                if cluster_bits == 9 {
                    ours[fixed.clone()].copy_from_slice(&theirs[fixed]);
                    ours[40..48].copy_from_slice(&theirs[40..48]);
                }
                assert!(
                    ours == theirs[..ours.len()],
                    "{version} {cluster_bits} {name}"
                );
            }
        }
    }
}

#[test]
fn names_that_the_first_cluster_does_not_hold_are_refused() {
    for (cluster_bits, longest) in [(9, 376), (10, 888), (16, 1023)] {
        let made = |len: usize| {
            let mut options = CreateOptions::new(1 << 20);
            options.cluster_bits = cluster_bits;
            options.backing = backing(&"n".repeat(len), "raw");
            let storage = Arc::new(MemoryStorage::default());
            write(&vec![0; 1 << 20], &[], storage.clone(), options).map(|()| storage)
        };
        for len in [0, longest + 1] {
            let refused = made(len).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            assert!(
                refused.to_string().contains("backing_file_name"),
                "{refused}"
            );
        }
        let image = common::open(made(longest).unwrap()).unwrap();
        assert_eq!(image.backing_file().unwrap().len(), longest);
    }
}

#[test]
fn an_image_that_was_not_finished_is_no_image() {
    let (below, disk) = pair(1);
    for compressed in [false, true] {
        let mut options = CreateOptions::new(disk.len() as u64);
        options.compressed = compressed;
        options.backing = backing("base.raw", "raw");
        for nth in 1.. {
            let memory = Arc::new(MemoryStorage::default());
            let storage = FaultyStorage::new(memory.clone());
            storage.fail_from(None, nth, Fault::Short);
            let outcome = write(&disk, &below, storage.clone(), options.clone());
            if !storage.hit() {
                outcome.unwrap();
                assert!(nth > 10, "{nth} calls");
                break;
            }
            assert!(outcome.is_err(), "call {nth}");
            // Whether the last sync tells the truth or not, all was written before it.
            if storage.calls() > 0 && common::open(memory.clone()).is_ok() {
                assert_eq!(check(memory).unwrap().findings, [], "call {nth}");
            }
        }
    }
}
