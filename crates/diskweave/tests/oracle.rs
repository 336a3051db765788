//! What `qemu-img` makes of the same images.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use diskweave::core::{BlockDevice, ExtentKind, Extents};
use support::{beneath, first_difference, open_record, to_raw};
use testkit::corpus::{Record, Verdict, corpus, sha256_file};
use testkit::oracle::QemuImg;

/// Larger disks fit no raw file of most file systems.
const MOST: u64 = 1 << 40;

fn qemu_reads(record: &Record) -> bool {
    let by_qemu = |reader: &String| reader.starts_with("qemu-img");
    record.format == "raw" || record.readers.iter().any(by_qemu)
}

#[test]
fn a_raw_copy_is_byte_for_byte_the_one_that_qemu_makes() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    let mut compared = 0;
    for record in corpus
        .of_format("raw")
        .into_iter()
        .chain(corpus.of_format("vhdx"))
    {
        let small = record.virtual_size.is_some_and(|size| size <= MOST);
        // A dirty log is another test: QEMU wants to write to the image first.
        if record.expect.result != Verdict::Ok || !qemu_reads(record) || record.log_replay || !small
        {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        qemu.to_raw(&record.format, &record.path(), &theirs)
            .unwrap();
        to_raw(&open_record(record).unwrap(), &ours).unwrap();
        assert_eq!(first_difference(&ours, &theirs), None, "{}", record.id);
        let len = |path| std::fs::metadata(path).unwrap().len();
        assert_eq!(Some(len(&ours)), record.virtual_size, "{}", record.id);
        // QEMU counts raw disks in sectors.
        assert_eq!(len(&ours).next_multiple_of(512), len(&theirs));
        compared += 1;
    }
    assert!(compared >= 30, "only {compared} images");
}

#[test]
fn a_log_replayed_in_memory_shows_what_qemu_shows_after_repairing_a_copy() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    let mut compared = 0;
    for record in corpus.of_format("vhdx") {
        let small = record.virtual_size.is_some_and(|size| size <= MOST);
        if !record.log_replay || !small || record.has("differencing") {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let copy = record.copy_to(dir.path());
        let before = sha256_file(&copy);
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        // Ours first, from the very file that is repaired afterwards.
        to_raw(&beneath(&copy).open(&copy).unwrap(), &ours).unwrap();
        assert_eq!(sha256_file(&copy), before, "{}", record.id);
        assert_eq!(qemu.repair("vhdx", &copy).code, 0, "{}", record.id);
        assert_ne!(sha256_file(&copy), before, "QEMU had something to do");
        qemu.to_raw("vhdx", &copy, &theirs).unwrap();
        assert_eq!(first_difference(&ours, &theirs), None, "{}", record.id);
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} images");
}

#[test]
fn holes_and_data_of_raw_files_lie_where_qemu_sees_them() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    for record in corpus.of_format("raw") {
        // QEMU counts raw disks in sectors: past the end of the file it sees a hole.
        if record.virtual_size.is_some_and(|size| size % 512 != 0) {
            continue;
        }
        let map = qemu.map("raw", &record.path()).unwrap();
        let theirs: Vec<(u64, u64, bool, Option<u64>)> = map
            .as_array()
            .unwrap()
            .iter()
            .map(|run| {
                let number = |key: &str| run[key].as_u64();
                let data = run["data"].as_bool().unwrap();
                let (start, len) = (number("start").unwrap(), number("length").unwrap());
                (start, len, data, number("offset"))
            })
            .collect();
        let disk = open_record(record).unwrap();
        let ours: Vec<_> = Extents::new(&disk, 0, disk.size())
            .map(|run| {
                let (start, run) = run.unwrap();
                let data = run.kind == ExtentKind::Data;
                (start, run.len, data, run.host.map(|host| host.offset))
            })
            .collect();
        assert_eq!(ours, theirs, "{}", record.id);
    }
}
