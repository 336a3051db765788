//! Every VHDX image of the corpus: content, refusals, recovery, and what other tools say.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::Path;
use std::sync::Arc;

use blockdev_core::{
    BlockDevice, ErrorKind, FileOptions, FileRole, FileStorage, Layer, LoneLayer, OpenOptions,
    Recovery, Storage,
};
use common::{MIB, open, replay, with};
use testkit::conformance;
use testkit::corpus::{
    Record, Verdict, corpus, sha256_sparse, sha256_sparse_without, sha256_virtual,
};
use testkit::counting::CountingStorage;
use testkit::oracle::QemuImg;
use vhdx_format::{LogState, VhdxImage, inspect};

/// Hashing a whole disk is for disks of this size; all are compared by the sparse hash.
const SMALL: u64 = 64 * MIB;

fn records() -> Vec<&'static Record> {
    let records = corpus().map_or_else(Vec::new, |corpus| corpus.of_format("vhdx"));
    assert!(
        corpus().is_none() || records.len() >= 60,
        "the corpus lost its VHDX images"
    );
    records
}

fn is_child(record: &Record) -> bool {
    record.has("differencing")
}

fn file(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, FileOptions::read_only()).expect("the file can be opened"))
}

fn writable(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, FileOptions::read_write()).expect("the copy can be opened"))
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
fn every_good_image_shows_the_size_and_content_of_the_manifest() {
    for record in records() {
        if record.expect.result != Verdict::Ok || is_child(record) {
            continue;
        }
        let image = open(file(&record.path())).unwrap_or_else(|e| panic!("{}: {e}", record.id));
        let replayed = matches!(image.log_state(), LogState::ReplayedInMemory { .. });
        assert_eq!(replayed, record.log_replay, "{}: log", record.id);
        same_content(&LoneLayer::new(Box::new(image)), record);
    }
}

#[test]
fn small_good_images_behave_as_block_devices_must() {
    for record in records() {
        let small = record.virtual_size.is_some_and(|size| size <= 12 * MIB);
        if record.expect.result != Verdict::Ok || is_child(record) || !small {
            continue;
        }
        let image = open(file(&record.path())).unwrap();
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
    // "Cannot open" helps nobody: the kind says whether to repair, to update, or to look elsewhere.
    let kinds = [
        ("vhdx-bad-block-size-3M", ErrorKind::Corrupt, "BlockSize"),
        (
            "vhdx-bad-both-headers",
            ErrorKind::Corrupt,
            "neither copy of the header",
        ),
        (
            "vhdx-bad-both-regions",
            ErrorKind::Corrupt,
            "neither copy of the region table",
        ),
        (
            "vhdx-bad-metadata-signature",
            ErrorKind::Corrupt,
            "signature",
        ),
        (
            "vhdx-bad-no-bat-region",
            ErrorKind::Corrupt,
            "BAT region is missing",
        ),
        (
            "vhdx-bad-required-region",
            ErrorKind::Unsupported,
            "required",
        ),
        (
            "vhdx-bad-sector-1024",
            ErrorKind::Corrupt,
            "LogicalSectorSize",
        ),
        ("vhdx-bad-signature", ErrorKind::NotRecognised, "vhdxfile"),
        ("vhdx-bad-size-exceeds-bat", ErrorKind::Corrupt, "BAT"),
        (
            "vhdx-bad-truncated-1M",
            ErrorKind::Corrupt,
            "ends inside the file",
        ),
    ];
    let mut seen = 0;
    for record in records() {
        if record.expect.result != Verdict::OpenError || is_child(record) {
            continue;
        }
        let (_, kind, words) = kinds
            .iter()
            .find(|(id, ..)| *id == record.id)
            .unwrap_or_else(|| panic!("{}: no kind is known for it", record.id));
        let storage = file(&record.path());
        let Err(error) = open(Arc::clone(&storage)) else {
            panic!("{}: it opens", record.id);
        };
        assert_eq!(error.kind(), *kind, "{}: {error}", record.id);
        assert!(error.to_string().contains(words), "{}: {error}", record.id);
        drop(error);
        assert_eq!(Arc::strong_count(&storage), 1, "{}: leaked", record.id);
        seen += 1;
    }
    assert!(corpus().is_none() || seen == kinds.len());
}

#[test]
fn doubtful_images_give_an_error_or_the_right_content_and_never_something_else() {
    for record in records() {
        if record.expect.result != Verdict::OkOrError {
            continue;
        }
        let id = &record.id;
        let image = match open(file(&record.path())) {
            Ok(image) => image,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{id}: {error}");
                continue;
            }
        };
        let disk = LoneLayer::new(Box::new(image));
        let bad = &record.expect.bad_ranges;
        assert_eq!(Some(disk.size()), record.virtual_size, "{id}");
        for range in bad {
            for at in [range.offset, range.offset + range.len - 1] {
                let error = disk.read_at(&mut [0], at).expect_err("a bad range fails");
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{id}: {error}");
            }
        }
        let sparse = sha256_sparse_without(&disk, bad).unwrap();
        let right = if bad.is_empty() {
            &record.sha256_sparse
        } else {
            &record.sparse_bad_zeroed
        };
        assert_eq!(Some(&sparse), right.as_ref(), "{id}");
    }
}

#[test]
fn children_open_alone_and_never_invent_what_the_parent_holds() {
    let mut lacking = 0;
    for record in records() {
        if !is_child(record) {
            continue;
        }
        let id = &record.id;
        let image = open(file(&record.path())).unwrap_or_else(|error| panic!("{id}: {error}"));
        let locator = image.parent_locator().expect("a child has a locator");
        assert!(!locator.linkages().is_empty(), "{id}");
        let parents = image.file_refs();
        assert_eq!(parents.len(), 1, "{id}");
        assert_eq!(parents[0].role, FileRole::Parent);
        assert!(
            !parents[0].expected.is_empty() && !parents[0].names.is_empty(),
            "{id}"
        );
        assert_eq!(image.headers().current().unwrap().version, 1);
        assert!(!image.items().virtual_disk_id.is_nil(), "{id}");
        let disk = LoneLayer::new(Box::new(image));
        if let Some(size) = record.virtual_size {
            assert_eq!(disk.size(), size, "{id}");
        }
        lacking += u64::from(conformance::detached(&disk) > 0);
    }
    assert!(
        corpus().is_none() || lacking >= 5,
        "some child lacks something"
    );
}

#[test]
fn a_read_only_open_read_and_check_changes_no_byte_of_any_file() {
    for record in records() {
        for (n, part) in record.files.iter().enumerate() {
            let path = record.dir().parent().unwrap().join(&part.path);
            let storage = CountingStorage::new(file(&path));
            for recovery in [Recovery::Auto, Recovery::Ignore, Recovery::Refuse] {
                if let Ok(image) = VhdxImage::open(storage.clone(), &with(recovery)) {
                    let disk = LoneLayer::new(Box::new(image));
                    if n == 0 && disk.size() <= SMALL {
                        let _ = sha256_sparse(&disk);
                    }
                    disk.flush().unwrap();
                }
            }
            let _ = vhdx_format::check(storage.clone(), &OpenOptions::read_only());
            assert!(storage.changes().is_empty(), "{}", record.id);
        }
        if record.total_size() <= SMALL {
            record.assert_unharmed();
        }
    }
}

#[test]
fn checking_finds_nothing_in_good_images_and_something_in_every_bad_one() {
    for record in records() {
        let id = &record.id;
        let report = match vhdx_format::check(file(&record.path()), &OpenOptions::read_only()) {
            Ok(report) => report,
            Err(error) => {
                assert_eq!(id, "vhdx-bad-signature", "{error}");
                assert_eq!(error.kind(), ErrorKind::NotRecognised);
                continue;
            }
        };
        let alone = record.expect.kind.as_deref() == Some("missing-backing");
        if record.expect.result == Verdict::Ok || alone {
            assert!(report.is_clean(), "{id}: {:#?}", report.findings);
            assert!(
                report.total_blocks > 0 && report.image_end_offset > 0,
                "{id}"
            );
        } else {
            assert!(report.corruptions > 0, "{id}: {:#?}", report.findings);
        }
    }
}

#[test]
fn a_dirty_image_is_refused_or_shown_as_it_lies_when_the_caller_says_so() {
    for record in records().into_iter().filter(|record| record.log_replay) {
        let storage = file(&record.path());
        let refused = VhdxImage::open(storage.clone(), &with(Recovery::Refuse)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NeedsRecovery, "{}", record.id);
        let ignored = VhdxImage::open(storage, &with(Recovery::Ignore)).unwrap();
        assert_eq!(ignored.log_state(), LogState::Ignored);
    }
}

#[test]
fn replayed_in_a_copy_a_dirty_image_is_clean_for_good_and_equals_the_replay_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    for record in records().into_iter().filter(|record| record.log_replay) {
        let id = &record.id;
        let path = record.copy_to(dir.path());
        let before = inspect::headers(&*file(&path)).unwrap();
        let before = *before.current().unwrap();
        let image = replay(writable(&path)).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert!(
            matches!(image.log_state(), LogState::Replayed { .. }),
            "{id}"
        );
        drop(image);
        let storage = file(&path);
        let image = VhdxImage::open(storage, &with(Recovery::Refuse)).expect("it is clean now");
        assert_eq!(image.log_state(), LogState::Empty);
        assert_ne!(
            image.header().file_write_guid,
            before.file_write_guid,
            "{id}"
        );
        assert_eq!(
            image.header().data_write_guid,
            before.data_write_guid,
            "{id}"
        );
        if is_child(record) {
            let in_memory = open(file(&record.path())).unwrap();
            same_layers(&image, &in_memory, id);
        } else {
            same_content(&LoneLayer::new(Box::new(image)), record);
        }
        let report = vhdx_format::check(file(&path), &OpenOptions::read_only()).unwrap();
        assert!(report.is_clean(), "{id}: {:#?}", report.findings);
    }
}

/// What two images hold by themselves is the same.
fn same_layers(a: &VhdxImage, b: &VhdxImage, id: &str) {
    let mut at = 0;
    while at < common::size(a) {
        let len = common::index((common::size(a) - at).min(MIB));
        let (of_a, of_b) = (common::read_own(a, at, len), common::read_own(b, at, len));
        assert!(of_a.1.iter().eq(of_b.1.iter()), "{id}: holes at {at:#x}");
        assert!(of_a.0 == of_b.0, "{id}: content at {at:#x}");
        at += len as u64;
    }
}

#[test]
fn qemu_agrees_with_our_replay_and_we_with_its_repair() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for record in records().into_iter().filter(|record| record.log_replay) {
        // QEMU knows no differencing disks.
        if is_child(record) {
            continue;
        }
        let id = &record.id;
        let (ours, theirs) = (record.copy_to(&ours), record.copy_to(&theirs));
        drop(replay(writable(&ours)).unwrap());
        let repaired = qemu.repair("vhdx", &theirs);
        assert_eq!(repaired.code, 0, "{id}: {}", repaired.stderr);
        // What QEMU made of the log, read by us …
        let image = VhdxImage::open(file(&theirs), &with(Recovery::Refuse)).unwrap();
        same_content(&LoneLayer::new(Box::new(image)), record);
        // … and what we made of it, judged and read by QEMU.
        let checked = qemu.check("vhdx", &ours);
        assert_eq!(checked.code, 0, "{id}: {}", checked.stderr);
        if record
            .virtual_size
            .is_some_and(|size| size <= 2 * common::GIB)
        {
            let same = qemu.same(("vhdx", &ours), ("vhdx", &theirs));
            assert_eq!(same, Ok(true), "{id}");
        }
    }
}
