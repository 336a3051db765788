//! Images changed in what they are, and in nothing that the guest sees.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the proofs of writing")]
#[path = "write/subject.rs"]
mod subject;

use std::sync::Arc;

use blockdev_core::{BlockDevice, ErrorKind, MemoryStorage, OpenOptions, ZeroFlags};
use qcow2_format::{Amendment, Backing, CreateOptions, amend, inspect::first_cluster};
use subject::{Disk, Qcow2, backed, empty, filled, open, options};
use testkit::crash::{Budget, CrashExplorer, Effect, Scenario};
use testkit::oracle::QemuImg;

const SIZE: u64 = 200 << 10;

fn content() -> Vec<u8> {
    let byte = |i: u64| u8::try_from(i / 512 % 250 + 1).unwrap();
    let mut bytes: Vec<u8> = (0..SIZE).map(byte).collect();
    bytes[70_000..130_000].fill(0);
    bytes
}

fn changes() -> Vec<(&'static str, Amendment)> {
    let change = |edit: &dyn Fn(&mut Amendment)| {
        let mut change = Amendment::default();
        edit(&mut change);
        change
    };
    let named = |name: &str, format: &str| {
        Some(Some(Backing {
            name: name.into(),
            format: format.into(),
        }))
    };
    vec![
        ("lazy", change(&|c| c.lazy_refcounts = Some(true))),
        ("order 0", change(&|c| c.refcount_order = Some(0))),
        ("order 6", change(&|c| c.refcount_order = Some(6))),
        ("version 2", change(&|c| c.version = Some(2))),
        ("version 3", change(&|c| c.version = Some(3))),
        ("a name", change(&|c| c.backing = named("other.raw", "raw"))),
        (
            "a long name",
            change(&|c| c.backing = named(&"n".repeat(1023), "qcow2")),
        ),
        ("no backing file", change(&|c| c.backing = Some(None))),
    ]
}

fn shape(bits: u32, version: u32) -> CreateOptions {
    let mut shape = options(SIZE, bits);
    shape.version = version;
    shape
}

#[test]
fn the_guest_sees_no_difference_and_qemu_no_fault() {
    let qemu = QemuImg::find();
    let folder = tempfile::tempdir().unwrap();
    for bits in [9, 12, 16] {
        for version in [2, 3] {
            for (name, change) in changes() {
                let image = filled(&content(), shape(bits, version));
                let storage = Arc::new(MemoryStorage::from(image));
                let base = Arc::new(Vec::new());
                if version == 3 {
                    let disk = open(storage.clone(), true, &base).unwrap();
                    disk.write_zeroes(8192, 8192, ZeroFlags::default()).unwrap();
                }
                let mut expected = vec![0; usize::try_from(SIZE).unwrap()];
                let disk = open(storage.clone(), false, &base).unwrap();
                disk.read_at(&mut expected, 0).unwrap();
                drop(disk);
                let about = format!("{name}, {bits} bits, version {version}");
                let before = storage.to_vec();
                if let Err(error) = amend(storage.clone(), &OpenOptions::read_write(), &change) {
                    let kinds = [ErrorKind::InvalidInput, ErrorKind::LimitExceeded];
                    assert!(kinds.contains(&error.kind()), "{about}: {error}");
                    assert!(version == 2 || bits == 9, "{about}: {error}");
                    assert!(storage.to_vec() == before, "{about}: changed all the same");
                    continue;
                }
                let disk = open(storage.clone(), false, &base).unwrap();
                let mut now = vec![0; expected.len()];
                disk.read_at(&mut now, 0).unwrap();
                assert!(now == expected, "{about}");
                let header = first_cluster(&*storage).unwrap();
                let report = qcow2_format::check(storage.clone(), &OpenOptions::read_only());
                let report = report.unwrap();
                assert!(report.corruptions == 0, "{about}: {:?}", report.findings);
                if let Some(Some(backing)) = &change.backing {
                    assert_eq!(header.backing_file.as_deref(), Some(&*backing.name));
                    let format = header.extensions.backing_format.as_deref();
                    assert_eq!(format, Some(&*backing.format), "{about}");
                }
                if let Some(order) = change.refcount_order {
                    assert_eq!(header.header.refcount_order, order);
                }
                let names_a_file = matches!(change.backing, Some(Some(_)));
                let Some(qemu) = qemu.as_ref().filter(|_| !names_a_file) else {
                    continue;
                };
                let file = folder.path().join("image");
                std::fs::write(&file, storage.to_vec()).unwrap();
                let checked = qemu.check("qcow2", &file);
                assert!([0, 3].contains(&checked.code), "{about}: {checked:?}");
                if change.backing.is_none() {
                    let flat = folder.path().join("flat");
                    std::fs::write(&flat, &expected).unwrap();
                    assert!(
                        qemu.same(("qcow2", &file), ("raw", &flat)).unwrap(),
                        "{about}"
                    );
                }
            }
        }
    }
}

/// What is below shows through marks of zeros that version 2 has no words for.
#[test]
fn zeros_stay_zeros_in_version_2_over_a_backing_file() {
    let base = Arc::new(vec![9; 200 << 10]);
    let storage = Arc::new(MemoryStorage::from(backed(empty(options(SIZE, 12)), 12)));
    let disk = open(storage.clone(), true, &base).unwrap();
    let unmap = ZeroFlags {
        may_unmap: true,
        no_fallback: false,
    };
    disk.write_zeroes(8192, 20_480, unmap).unwrap();
    drop(disk);
    let mut change = Amendment::default();
    change.version = Some(2);
    amend(storage.clone(), &OpenOptions::read_write(), &change).unwrap();
    let disk = open(storage, false, &base).unwrap();
    assert_eq!(disk.layer.header().version, 2);
    let mut now = vec![1; 32_768];
    disk.read_at(&mut now, 0).unwrap();
    let zeros = 8192..8192 + 20_480;
    assert!(
        now.iter()
            .enumerate()
            .all(|(at, byte)| (*byte == 0) == zeros.contains(&at))
    );
}

#[test]
fn a_crash_leaves_the_old_image_or_the_new() {
    for (name, change) in changes() {
        let image = filled(&content(), shape(12, 3));
        let scenario = Scenario::new(name, image, |d| {
            d.write(3000, 5000)?;
            let change = change.clone();
            d.control_with(name, Effect::Same, true, move |device: Disk, files| {
                drop(device);
                amend(Arc::clone(&files[0]), &OpenOptions::read_write(), &change)?;
                open(Arc::clone(&files[0]), true, &Arc::new(Vec::new()))
            })?;
            d.write(80_000, 5000)
        });
        let report = CrashExplorer::new(&Qcow2::default(), Budget::states(400)).run(&scenario);
        report.assert_clean();
    }
}
