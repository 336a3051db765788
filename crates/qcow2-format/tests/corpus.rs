//! Every qcow2 image of the corpus: content, refusals, snapshots, data files.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_core::{
    BlockDevice, ErrorKind, ExtentKind, Extents, FileRole, Layer, LoneLayer, OpenOptions,
};
use common::{MIB, check, file, open};
use qcow2_format::Qcow2Image;
use serde_json::Value;
use testkit::conformance;
use testkit::corpus::{
    Record, Verdict, corpus, sha256_sparse, sha256_sparse_without, sha256_virtual,
};
use testkit::counting::CountingStorage;

/// Hashing a whole disk is for disks of this size; all are compared by the sparse hash.
const SMALL: u64 = 64 * MIB;

fn records() -> Vec<&'static Record> {
    let records = corpus().map_or_else(Vec::new, |corpus| corpus.of_format("qcow2"));
    assert!(
        corpus().is_none() || records.len() >= 110,
        "the corpus lost its qcow2 images"
    );
    records
}

/// The image with the data file it names, if it names one.
fn whole(record: &Record) -> blockdev_core::Result<Qcow2Image> {
    let mut image = open(file(&record.path()))?;
    if image.header().has_data_file() {
        let name = image
            .file_refs()
            .iter()
            .find(|of| of.role == FileRole::Data);
        let name = name.and_then(|data| data.names[0].path.clone()).unwrap();
        let path = record.path().with_file_name(name);
        if path.exists() {
            image.attach(FileRole::Data, file(&path))?;
        }
    }
    Ok(image)
}

fn is_encrypted(record: &Record) -> bool {
    record.id.contains("aes-legacy") || record.id.contains("luks")
}

fn names_parent(image: &Qcow2Image) -> bool {
    image
        .file_refs()
        .iter()
        .any(|of| of.role == FileRole::Parent)
}

fn same_content(disk: &dyn BlockDevice, record: &Record) {
    let id = &record.id;
    assert_eq!(Some(disk.size()), record.virtual_size, "{id}: size");
    let sparse = sha256_sparse(disk).unwrap_or_else(|error| panic!("{id}: {error}"));
    assert_eq!(
        Some(&sparse),
        record.sha256_sparse.as_ref(),
        "{id}: content"
    );
    if disk.size() <= SMALL && record.sha256_virtual.is_some() {
        let whole = sha256_virtual(disk).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(
            Some(&whole),
            record.sha256_virtual.as_ref(),
            "{id}: content"
        );
    }
}

#[test]
fn every_good_lone_image_shows_the_size_and_content_of_the_manifest() {
    let mut seen = 0;
    for record in records() {
        if record.expect.result != Verdict::Ok || is_encrypted(record) {
            continue;
        }
        let image = whole(record).unwrap_or_else(|error| panic!("{}: {error}", record.id));
        let detached = names_parent(&image);
        let disk = LoneLayer::new(Box::new(image));
        if detached {
            assert_eq!(Some(disk.size()), record.virtual_size, "{}", record.id);
            conformance::detached(&disk);
        } else {
            same_content(&disk, record);
            seen += 1;
        }
    }
    assert!(corpus().is_none() || seen >= 65, "{seen}");
}

#[test]
fn small_good_images_behave_as_block_devices_must() {
    for record in records() {
        let small = record.virtual_size.is_some_and(|size| size <= 12 * MIB);
        if record.expect.result != Verdict::Ok || is_encrypted(record) || !small {
            continue;
        }
        let image = whole(record).unwrap();
        if names_parent(&image) {
            continue;
        }
        let disk = LoneLayer::new(Box::new(image));
        // The content was compared with the manifest by the test above; here it is the standard
        // for reads of other shapes.
        let mut content = vec![0; common::index(disk.size())];
        disk.read_at(&mut content, 0).unwrap();
        conformance::readable(&disk, &content);
        conformance::refuses_changes(&disk);
    }
}

#[test]
fn every_malformed_image_is_refused_for_what_is_wrong_with_it() {
    use ErrorKind::{Corrupt, LimitExceeded, NotRecognised, Unsupported};
    let kinds = [
        ("q-bad-backing-name-long", Corrupt, "backing_file_size"),
        ("q-bad-cluster-bits-22", Corrupt, "cluster_bits"),
        ("q-bad-cluster-bits-8", Corrupt, "cluster_bits"),
        ("q-bad-comp-bit-zlib", Corrupt, "compression_type"),
        ("q-bad-comp-type-2", Unsupported, "compression type 2"),
        ("q-bad-crypt-method-3", Unsupported, "unknown method 3"),
        ("q-bad-ext-overflow", Corrupt, "header extension"),
        ("q-bad-header-length-72", Corrupt, "header_length"),
        ("q-bad-incompat-bit", Unsupported, "bit 20"),
        ("q-bad-l1-huge", LimitExceeded, "l1_size"),
        ("q-bad-l1-too-small", Corrupt, "l1_size"),
        ("q-bad-l1-unaligned", Corrupt, "l1_table_offset"),
        ("q-bad-magic", NotRecognised, "QFI"),
        ("q-bad-refcount-order-7", Corrupt, "refcount_order"),
        ("q-bad-rt-unaligned", Corrupt, "refcount_table_offset"),
        ("q-bad-snaptable-unaligned", Corrupt, "snapshots_offset"),
        ("q-bad-truncated-header", Corrupt, "length of the file"),
        ("q-bad-version-4", Unsupported, "version is 4"),
    ];
    let mut seen = 0;
    for record in records() {
        // What only another file lacks is no fault of the image.
        let alone = ["missing-backing", "missing-data-file", "backing-loop"];
        let kind = record.expect.kind.as_deref().unwrap_or_default();
        let circle = record.id == "q-bad-backing-self";
        if record.expect.result != Verdict::OpenError || alone.contains(&kind) || circle {
            continue;
        }
        let id = &record.id;
        let known = kinds.iter().find(|(of, ..)| of == id);
        let (_, kind, words) = known.unwrap_or_else(|| panic!("{id}: no kind is known for it"));
        let storage = file(&record.path());
        let Err(error) = open(Arc::clone(&storage)) else {
            panic!("{id}: it opens");
        };
        assert_eq!(error.kind(), *kind, "{id}: {error}");
        assert!(error.to_string().contains(words), "{id}: {error}");
        drop(error);
        assert_eq!(Arc::strong_count(&storage), 1, "{id}: leaked");
        seen += 1;
    }
    assert!(corpus().is_none() || seen == kinds.len(), "{seen}");
}

#[test]
fn encrypted_images_are_refused_by_the_name_of_their_method() {
    for record in records().into_iter().filter(|record| is_encrypted(record)) {
        let error = open(file(&record.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", record.id);
        let method = if record.id.contains("aes-legacy") {
            "AES"
        } else {
            "LUKS"
        };
        assert!(error.to_string().contains(method), "{}: {error}", record.id);
    }
}

#[test]
fn a_data_file_that_is_not_there_is_never_read_as_zeros() {
    for record in records() {
        let Ok(image) = open(file(&record.path())) else {
            continue;
        };
        if !image.header().has_data_file() {
            continue;
        }
        let disk = LoneLayer::new(Box::new(image));
        let mut extents = Extents::new(&disk, 0, u64::MAX).map(Result::unwrap);
        let Some((at, _)) = extents.find(|(_, run)| run.kind == ExtentKind::Data) else {
            continue;
        };
        let error = disk.read_at(&mut [0], at).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::NeedsParent,
            "{}: {error}",
            record.id
        );
    }
}

#[test]
fn bad_ranges_fail_and_all_the_rest_is_right() {
    let mut seen = 0;
    for record in records() {
        let doubtful = record.expect.result == Verdict::OkOrError;
        if record.expect.result != Verdict::ReadError && !doubtful {
            continue;
        }
        let id = &record.id;
        let image = match open(file(&record.path())) {
            Ok(image) if names_parent(&image) => continue,
            Ok(image) => image,
            Err(error) => {
                assert!(doubtful, "{id}: {error}");
                continue;
            }
        };
        let disk = LoneLayer::new(Box::new(image));
        let bad = &record.expect.bad_ranges;
        assert_eq!(Some(disk.size()), record.virtual_size, "{id}");
        let mut failed = 0;
        for range in bad {
            for at in [range.offset, range.offset + range.len - 1] {
                match disk.read_at(&mut [0], at) {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{id}: {error}");
                        failed += 1;
                    }
                    Ok(()) => assert!(doubtful, "{id}: {at:#x} is read"),
                }
            }
        }
        if failed == bad.len() * 2 {
            let sparse = sha256_sparse_without(&disk, bad).unwrap();
            assert_eq!(Some(&sparse), record.sparse_bad_zeroed.as_ref(), "{id}");
        } else {
            // Clusters past the end of the file read as zeros, as QEMU reads them.
            let sparse = sha256_sparse(&disk).unwrap();
            let zeroed = Some(&sparse) == record.sparse_bad_zeroed.as_ref();
            assert!(
                zeroed || Some(&sparse) == record.sha256_sparse.as_ref(),
                "{id}"
            );
        }
        seen += 1;
    }
    assert!(corpus().is_none() || seen >= 4, "{seen}");
}

fn manifest() -> Value {
    let source = std::env::var_os("DISKWEAVE_CORPUS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let text = std::fs::read(source.unwrap_or(beside).join("manifest.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn snapshots_have_their_own_sizes_and_contents() {
    let Some(corpus) = corpus() else { return };
    let mut seen = 0;
    for of in manifest()["images"].as_array().unwrap() {
        let Some(snapshots) = of["snapshots"].as_array() else {
            continue;
        };
        let record = corpus.get(of["id"].as_str().unwrap());
        let id = &record.id;
        let storage = file(&record.path());
        let listed = open(Arc::clone(&storage)).unwrap().snapshots().unwrap();
        assert_eq!(listed.len(), snapshots.len(), "{id}");
        for (snapshot, ours) in snapshots.iter().zip(&listed) {
            assert_eq!(Some(ours.id.as_str()), snapshot["id"].as_str(), "{id}");
            assert_eq!(Some(ours.name.as_str()), snapshot["name"].as_str(), "{id}");
            for wanted in [&ours.id, &ours.name] {
                let options = OpenOptions::read_only();
                let image = Qcow2Image::open_snapshot(Arc::clone(&storage), wanted, &options);
                let disk = LoneLayer::new(Box::new(image.unwrap()));
                assert_eq!(Some(disk.size()), snapshot["virtual_size"].as_u64(), "{id}");
                let sparse = sha256_sparse(&disk).unwrap();
                assert_eq!(
                    Some(sparse.as_str()),
                    snapshot["sha256_sparse"].as_str(),
                    "{id}"
                );
            }
            seen += 1;
        }
        let none = Qcow2Image::open_snapshot(storage, "no such", &OpenOptions::read_only());
        assert_eq!(none.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(seen >= 13, "{seen}");
}

#[test]
fn reading_and_checking_change_no_byte_of_any_file() {
    for record in records() {
        let storage = CountingStorage::new(file(&record.path()));
        if let Ok(image) = open(storage.clone()) {
            let _ = image.snapshots();
            let disk = LoneLayer::new(Box::new(image));
            if disk.size() <= SMALL {
                let _ = sha256_sparse(&disk);
            }
            disk.flush().unwrap();
        }
        let _ = check(storage.clone());
        assert!(storage.changes().is_empty(), "{}", record.id);
        if record.total_size() <= SMALL {
            record.assert_unharmed();
        }
    }
}
