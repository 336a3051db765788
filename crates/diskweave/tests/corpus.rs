//! Every raw and VHDX image whose content is known from somewhere else.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use diskweave::chain::Chain;
use diskweave::core::locate::ChainPolicy;
use diskweave::core::{BlockDevice, ErrorKind, Extents, LoneLayer, RawLayer};
use diskweave::{Comparison, ImageInfo, NoProgress, OpenDisk, check, compare};
use support::{beneath, open_record, to_raw, unlocked};
use testkit::corpus::{
    Corpus, Record, Verdict, corpus, sha256_sparse, sha256_sparse_without, sha256_virtual,
};

/// Larger disks are hashed without their zeros, and not written out.
const LARGE: u64 = 2 << 30;

fn records(corpus: &Corpus) -> Vec<&Record> {
    let mut records = corpus.of_format("raw");
    records.extend(corpus.of_format("vhdx"));
    assert!(records.len() >= 60, "{} images", records.len());
    records
}

/// Holds what was opened against what is known of the image.
fn judge(record: &Record, opened: diskweave::core::Result<Chain>) {
    let id = &record.id;
    match record.expect.result {
        Verdict::Ok => {
            let disk = opened.unwrap_or_else(|error| panic!("{id}: {error}"));
            assert_eq!(Some(disk.size()), record.virtual_size, "{id}");
            let sparse = sha256_sparse(&disk).unwrap_or_else(|e| panic!("{id}: {e}"));
            assert_eq!(Some(sparse), record.sha256_sparse, "{id}");
            if disk.size() <= LARGE / 8 {
                let whole = sha256_virtual(&disk).unwrap();
                assert_eq!(Some(whole), record.sha256_virtual, "{id}");
            }
        }
        Verdict::OpenError => assert!(opened.is_err(), "{id} was opened"),
        Verdict::ReadError | Verdict::OkOrError => {
            let Ok(disk) = opened else { return };
            let doubtful = record.expect.result == Verdict::OkOrError;
            if record.expect.bad_ranges.is_empty() || (doubtful && sha256_sparse(&disk).is_ok()) {
                let sparse = sha256_sparse(&disk).unwrap_or_else(|e| panic!("{id}: {e}"));
                assert_eq!(Some(sparse), record.sha256_sparse, "{id}");
                return;
            }
            for bad in &record.expect.bad_ranges {
                let mut byte = [0];
                assert!(disk.read_at(&mut byte, bad.offset).is_err(), "{id}");
            }
            let rest = sha256_sparse_without(&disk, &record.expect.bad_ranges).unwrap();
            assert_eq!(Some(rest), record.sparse_bad_zeroed, "{id}");
        }
    }
}

#[test]
fn every_image_has_its_size_and_content_and_every_bad_one_is_refused() {
    let Some(corpus) = corpus() else { return };
    for record in records(corpus) {
        judge(record, open_record(record));
    }
}

#[test]
fn every_qcow2_image_alone_or_over_whatever_base_has_its_size_and_content() {
    let Some(corpus) = corpus() else { return };
    let records = corpus.of_format("qcow2");
    assert!(records.len() > 100, "{} images", records.len());
    for record in records {
        let id = &record.id;
        if record.has("encrypted-luks") || record.has("encrypted-aes") {
            let refused = open_record(record).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{id}");
        } else if record.has("backing-format-missing") {
            let refused = open_record(record).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Policy, "{id}: never guessed");
            let format = if record.has("backing-raw") {
                "raw"
            } else {
                "qcow2"
            };
            let said = beneath(&record.path())
                .format("qcow2")
                .parent_format(format);
            judge(record, said.open(record.path()));
        } else if record.has("probe-trap") {
            // Declared raw, and a stranger's bytes say otherwise: whoever knows must say so.
            let refused = open_record(record).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotRecognised, "{id}");
            let trusted = OpenDisk::new().policy(ChainPolicy::Any).format("qcow2");
            judge(record, trusted.open(record.path()));
        } else {
            judge(record, open_record(record));
        }
    }
}

/// Length, time of the last change and a hash of all bytes of the file at `path`.
fn fingerprint(path: &Path) -> (u64, SystemTime, String) {
    let metadata = std::fs::metadata(path).unwrap();
    let bytes = LoneLayer::new(Box::new(RawLayer::open(Arc::new(unlocked(path))).unwrap()));
    let hash = sha256_sparse(&bytes).unwrap();
    (metadata.len(), metadata.modified().unwrap(), hash)
}

/// Does to an image everything that only looks at it.
fn look_at(record: &Record) {
    let (id, path) = (&record.id, record.path());
    let open = beneath(&path).format(&record.format);
    let checked = check(&path, &open);
    let Ok((disk, _)) = open.open_partial(&path) else {
        return;
    };
    let infos = ImageInfo::of_chain(&disk).unwrap();
    assert_eq!(infos.len(), disk.layer_count(), "{id}");
    assert_eq!(infos[0].file_len, std::fs::metadata(&path).unwrap().len());
    let mapped: u64 = Extents::new(&disk, 0, u64::MAX)
        .filter_map(|run| run.ok())
        .map(|(_, run)| run.len)
        .sum();
    if record.expect.result != Verdict::Ok {
        return;
    }
    assert_eq!(Some(mapped), record.virtual_size, "{id}");
    if let Some(report) = checked.unwrap().report {
        assert!(report.is_clean(), "{id}: {:?}", report.findings);
    }
    let again = open.open(&path).unwrap();
    let same = compare(&disk, &again, true, &NoProgress).unwrap();
    let identical = Comparison::Identical {
        sizes_differ: false,
    };
    assert_eq!(same, identical, "{id}");
    if disk.size() <= LARGE {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("raw");
        to_raw(&disk, &raw).unwrap();
        let copy = OpenDisk::new().format("raw").open(&raw).unwrap();
        assert_eq!(
            sha256_sparse(&copy).ok(),
            record.sha256_sparse,
            "{id} as raw"
        );
    }
}

#[test]
fn no_file_changes_while_its_image_is_opened_read_checked_compared_and_converted() {
    let Some(corpus) = corpus() else { return };
    for record in records(corpus) {
        // Bytes, holes and length, without the time it takes to hash gigabytes of holes.
        let files = || {
            let root = record.dir();
            let root = root.parent().unwrap();
            let paths = record.files.iter().map(|file| root.join(&file.path));
            paths.map(|path| fingerprint(&path)).collect::<Vec<_>>()
        };
        let before = files();
        look_at(record);
        assert_eq!(files(), before, "{}", record.id);
    }
}

#[test]
fn a_checkpoint_whose_parent_is_lost_still_tells_all_about_itself() {
    let Some(corpus) = corpus() else { return };
    for id in ["real-hyperv-avhdx-orphan", "vhdx-diff-missing-parent"] {
        let record = corpus.get(id);
        let path = record.path();
        let refused = beneath(&path).open(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NeedsParent, "{id}: {refused}");
        let (disk, problem) = beneath(&path).open_partial(&path).unwrap();
        assert_eq!(problem.unwrap().kind(), ErrorKind::NeedsParent);
        assert!(disk.is_detached());
        let info = &ImageInfo::of_chain(&disk).unwrap()[0];
        assert!(info.virtual_size > 0 && info.parent.is_some());
        assert!(info.parent_path.is_none());
        assert!(testkit::conformance::detached(&disk) > 0, "{id}");
    }
}

#[test]
fn a_format_is_guessed_right_for_every_image_that_opens() {
    let Some(corpus) = corpus() else { return };
    for record in records(corpus) {
        if record.expect.result != Verdict::Ok {
            continue;
        }
        let found = diskweave::probe(&unlocked(&record.path())).unwrap();
        let name = found.map_or("raw", |driver| driver.name());
        assert_eq!(name, record.format, "{}", record.id);
    }
}
