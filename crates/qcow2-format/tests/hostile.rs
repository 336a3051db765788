//! Fields at and past their bounds, damaged compressed clusters, hosts that fail.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::sync::Arc;
use std::time::Duration;

use blockdev_core::{BlockDevice, ErrorKind, LoneLayer, Storage};
use common::{MIB, be64, check, first_l2, made, memory, open, qemu, quickly, set32, set64};
use qcow2_format::{OpenOptions, Qcow2Image, fuzz};
use testkit::counting::{Fault, FaultyStorage, Op};

fn image(options: &str, writes: &[&str]) -> Option<Vec<u8>> {
    qemu()?;
    let dir = tempfile::tempdir().unwrap();
    Some(made(dir.path(), "a.qcow2", 4 * MIB, options, writes))
}

/// Opens and reads everything; the kind of the first failure.
fn outcome(bytes: &[u8]) -> Result<(), ErrorKind> {
    let storage = memory(bytes);
    let result = open(Arc::clone(&storage)).and_then(|image| {
        let disk = LoneLayer::new(Box::new(image));
        let len = disk.size().min(8 * MIB);
        disk.read_at(&mut vec![0; common::index(len)], 0)
    });
    let result = result.map_err(|error| error.kind());
    assert_eq!(Arc::strong_count(&storage), 1, "leaked");
    result
}

#[test]
fn every_header_field_is_bounded() {
    use ErrorKind::{Corrupt, LimitExceeded, NotRecognised, Unsupported};
    let Some(image) = image("cluster_size=64k", &["write -P 1 0 1M"]) else {
        return;
    };
    assert_eq!(outcome(&image), Ok(()));
    // Offset, width, value, outcome.
    let table: &[(usize, usize, u64, Result<(), ErrorKind>)] = &[
        (0, 4, 0, Err(NotRecognised)),
        (4, 4, 0, Err(Unsupported)),
        (4, 4, 1, Err(Unsupported)),
        (4, 4, 4, Err(Unsupported)),
        (8, 8, 1, Ok(())),
        (8, 8, 65_536, Ok(())),
        (8, 8, 65_537, Err(Corrupt)),
        (8, 8, u64::MAX, Err(Corrupt)),
        (16, 4, 1024, Ok(())),
        (20, 4, 8, Err(Corrupt)),
        (20, 4, 22, Err(Corrupt)),
        (20, 4, u64::MAX, Err(Corrupt)),
        (24, 8, 0, Ok(())),
        (24, 8, 512 << 20, Ok(())),
        (24, 8, (512 << 20) + 1, Err(Corrupt)),
        (24, 8, u64::MAX, Err(Corrupt)),
        (32, 4, 1, Err(Unsupported)),
        (32, 4, 2, Err(Unsupported)),
        (32, 4, 3, Err(Unsupported)),
        (36, 4, 0, Err(Corrupt)),
        (36, 4, 4 << 20, Ok(())),
        (36, 4, (4 << 20) + 1, Err(LimitExceeded)),
        (36, 4, u64::MAX, Err(LimitExceeded)),
        (40, 8, 0x3_0200, Err(Corrupt)),
        (40, 8, 1 << 40, Err(Corrupt)),
        (40, 8, 1 << 63, Err(Corrupt)),
        (48, 8, 0x1_0200, Err(Corrupt)),
        (48, 8, 1 << 63, Err(Corrupt)),
        (56, 4, 128, Ok(())),
        (56, 4, 129, Err(LimitExceeded)),
        (56, 4, u64::MAX, Err(LimitExceeded)),
        (60, 4, 65_537, Err(LimitExceeded)),
        (64, 8, 1, Err(Corrupt)),
        (64, 8, 1 << 63, Err(Corrupt)),
        (72, 8, 1, Ok(())),
        (72, 8, 2, Ok(())),
        (72, 8, 4, Err(ErrorKind::NeedsParent)),
        (72, 8, 8, Err(Corrupt)),
        (72, 8, 32, Err(Unsupported)),
        (72, 8, 1 << 63, Err(Unsupported)),
        (80, 8, u64::MAX, Ok(())),
        (88, 8, u64::MAX, Ok(())),
        (96, 4, 6, Ok(())),
        (96, 4, 7, Err(Corrupt)),
        (96, 4, u64::MAX, Err(Corrupt)),
        (100, 4, 0, Err(Corrupt)),
        (100, 4, 103, Err(Corrupt)),
        (100, 4, 65_544, Err(Corrupt)),
        (100, 4, u64::MAX, Err(Corrupt)),
        (104, 1, 1, Err(Corrupt)),
        (104, 1, 2, Err(Unsupported)),
    ];
    for &(at, width, value, expected) in table {
        let mut image = image.clone();
        image[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        assert_eq!(outcome(&image), expected, "{value:#x} at byte {at}");
        quickly("a check", Duration::from_secs(5), || fuzz::check(&image));
    }
}

#[test]
fn every_table_entry_is_bounded() {
    let Some(image) = image("cluster_size=64k", &["write -P 1 0 1M"]) else {
        return;
    };
    let (_, entry) = first_l2(&image);
    let l1 = common::index(be64(&image, 40));
    let end = image.len() as u64;
    let values = [
        0,
        1,
        0x200,
        0x1_0000,
        end,
        end & !0xFFFF,
        1 << 55,
        1 << 62,
        u64::MAX,
    ];
    for at in [entry, l1] {
        for value in values {
            let mut image = image.clone();
            set64(&mut image, at, value | 1 << 63);
            if let Err(kind) = outcome(&image) {
                assert_eq!(kind, ErrorKind::Corrupt, "{value:#x} at {at:#x}");
            }
            fuzz::check(&image);
            fuzz::open_and_read(&image);
        }
    }
    for (at, value) in [(entry, 0x5_0200), (l1, 0x4_0200), (l1, 1 << 50)] {
        let mut image = image.clone();
        set64(&mut image, at, value);
        assert_eq!(outcome(&image), Err(ErrorKind::Corrupt), "{value:#x}");
        assert!(check(memory(&image)).unwrap().corruptions > 0);
    }
}

#[test]
fn compressed_clusters_that_lead_astray_are_damage() {
    for kind in ["zlib", "zstd"] {
        let options = format!("cluster_size=64k,compression_type={kind}");
        let Some(image) = image(&options, &["write -c -P 7 0 64k"]) else {
            return;
        };
        let (_, at) = first_l2(&image);
        let entry = be64(&image, at);
        let offset = common::index(entry & ((1 << 54) - 1));
        let mut damaged = Vec::new();
        // Past the end of the file; into the header; fewer sectors than the stream needs.
        for entry in [1 << 62 | 1 << 50, 1 << 62, 1 << 62 | (offset as u64 + 511)] {
            let mut image = image.clone();
            set64(&mut image, at, entry);
            damaged.push(image);
        }
        let mut garbage = image.clone();
        garbage[offset..offset + 16].fill(0xFF);
        damaged.push(garbage);
        // It unpacks to more than a cluster, to less than one.
        for cluster_bits in [15, 17] {
            let mut image = image.clone();
            set32(&mut image, 20, cluster_bits);
            fuzz::open_and_read(&image);
        }
        for image in damaged {
            assert_eq!(outcome(&image), Err(ErrorKind::Corrupt), "{kind}");
            fuzz::check(&image);
        }
        assert_eq!(outcome(&image), Ok(()), "{kind}");
    }
}

#[test]
fn a_stream_of_more_or_less_than_a_cluster_is_damage() {
    let Some(image) = image("cluster_size=64k", &["write -c -P 7 0 64k"]) else {
        return;
    };
    let (_, at) = first_l2(&image);
    let offset = common::index(be64(&image, at) & ((1 << 54) - 1));
    // Stored deflate blocks: three bytes; and one that says 65,535 bytes, twice.
    let mut short = image.clone();
    short[offset..offset + 8].copy_from_slice(&[1, 3, 0, 0xFC, 0xFF, 1, 2, 3]);
    assert_eq!(outcome(&short), Err(ErrorKind::Corrupt));
    let mut long = image[..offset].to_vec();
    for last in [0, 1] {
        long.extend_from_slice(&[last, 0xFF, 0xFF, 0, 0]);
        long.resize(long.len() + 65_535, 9);
    }
    set64(&mut long, at, 1 << 62 | 0xFF << 54 | offset as u64);
    assert_eq!(outcome(&long), Err(ErrorKind::Corrupt));
}

#[test]
fn snapshot_fields_are_bounded() {
    let Some((img, _)) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), "a.qcow2", 4 * MIB, "", &["write -P 1 0 1M"]);
    let path = dir.path().join("a.qcow2");
    img.run(&["snapshot", "-c", "one", path.to_str().unwrap()])
        .ok()
        .unwrap();
    let image = std::fs::read(&path).unwrap();
    let table = common::index(be64(&image, 64));
    for (at, width) in [(0, 8), (8, 4), (12, 2), (14, 2), (36, 4), (48, 8)] {
        for value in [0, 1, 1024, 1025, 0x200, 1 << 40, u64::MAX] {
            let mut image = image.clone();
            let field = table + at..table + at + width;
            image[field].copy_from_slice(&value.to_be_bytes()[8 - width..]);
            let snapshot =
                Qcow2Image::open_snapshot(memory(&image), "one", &OpenOptions::read_only());
            if let Err(error) = snapshot {
                use ErrorKind::{Corrupt, InvalidInput, LimitExceeded};
                let kinds = [Corrupt, InvalidInput, LimitExceeded];
                assert!(kinds.contains(&error.kind()), "{value:#x} at {at}: {error}");
            }
            fuzz::open_and_read(&image);
            fuzz::check(&image);
        }
    }
    let mut many = image.clone();
    set32(&mut many, 60, 65_536);
    let report = check(memory(&many)).unwrap();
    assert!(report.corruptions > 0);
}

#[test]
fn a_host_that_fails_at_any_read_is_blamed_and_nothing_else() {
    let Some(image) = image(
        "cluster_size=4k",
        &["write -P 1 0 1M", "write -c -P 2 2M 64k"],
    ) else {
        return;
    };
    for fault in [Fault::Io, Fault::Short] {
        for op in [Op::Read, Op::Len] {
            for verb in 0..2 {
                for n in 1.. {
                    let faulty = FaultyStorage::new(memory(&image));
                    faulty.fail(op, n, fault);
                    let storage: Arc<dyn Storage> = faulty.clone();
                    let result = if verb == 0 {
                        open(storage).and_then(|image| {
                            let disk = LoneLayer::new(Box::new(image));
                            disk.read_at(&mut vec![0; 4 << 20], 0)
                        })
                    } else {
                        check(storage).map(drop)
                    };
                    assert_eq!(Arc::strong_count(&faulty), 1, "leaked");
                    if !faulty.hit() {
                        result.unwrap();
                        break;
                    }
                    // A probe of what comes next may fail unseen; the read itself tells then.
                    if let Err(error) = result {
                        assert_eq!(error.kind(), ErrorKind::Io, "{op:?} {n}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn one_question_about_a_disk_of_repeated_tables_is_answered_at_once() {
    let Some(mut image) = image("cluster_size=2M", &[]) else {
        return;
    };
    // A zeroed L2 table, and an L1 table of the greatest length that names it throughout.
    let l2 = image.len().next_multiple_of(2 << 20);
    image.resize(l2 + (2 << 20), 0);
    let (l1, entries) = (image.len() as u64, 4 << 20);
    for _ in 0..entries {
        image.extend_from_slice(&(l2 as u64 | 1 << 63).to_be_bytes());
    }
    set32(&mut image, 36, entries);
    set64(&mut image, 40, l1);
    set64(&mut image, 24, u64::from(entries) << 39);
    let storage = memory(&image);
    quickly("a question", Duration::from_secs(5), move || {
        let disk = LoneLayer::new(Box::new(open(storage).unwrap()));
        let extent = disk.block_status(0, disk.size()).unwrap();
        assert!(extent.len > 0);
    });
}
