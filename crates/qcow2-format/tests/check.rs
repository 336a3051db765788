//! What checking finds, and that `qemu-img check` finds the same.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use blockdev_core::{CheckReport, ErrorKind, Severity};
use common::{MIB, be64, check, file, first_l2, made, memory, qemu, set64};
use serde_json::Value;
use testkit::corpus::{Record, corpus};
use testkit::oracle::QemuImg;

/// What `qemu-img check` tells of an image, if it can open it.
fn judged(img: &QemuImg, record: &Record) -> Option<Value> {
    let path = record.path();
    let mut options = format!("driver=qcow2,file.filename={}", path.display());
    // A data file's name is resolved against the working directory here.
    for part in record.files.iter().filter(|part| part.path != record.file) {
        let data = record.dir().parent().unwrap().join(&part.path);
        if record.has("external-data-file") || record.id.contains("datafile") {
            options += &format!(",data-file.filename={}", data.display());
        }
    }
    let ran = img.run(&["check", "--output=json", "--image-opts", &options]);
    serde_json::from_slice(&ran.stdout).ok()
}

fn figures(report: &CheckReport) -> [(&'static str, u64); 7] {
    [
        ("corruptions", report.corruptions),
        ("leaks", report.leaks),
        ("total-clusters", report.total_blocks),
        ("allocated-clusters", report.allocated_blocks),
        ("fragmented-clusters", report.fragmented_blocks),
        ("compressed-clusters", report.compressed_blocks),
        ("image-end-offset", report.image_end_offset),
    ]
}

/// Where the figures differ from QEMU's, which leaves out zeros.
fn differences(report: &CheckReport, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, ours) in figures(report) {
        let theirs = theirs[name].as_u64().unwrap_or(0);
        if ours != theirs {
            found.push(format!("{name}: {ours} for {theirs}"));
        }
    }
    found
}

#[test]
fn the_figures_are_those_of_qemu_img_check_on_every_image_of_the_corpus() {
    let (Some(corpus), Some(img)) = (corpus(), QemuImg::find()) else {
        return;
    };
    let mut compared = 0;
    let mut wrong = Vec::new();
    for record in corpus.of_format("qcow2") {
        let id = &record.id;
        // QEMU follows the circle of backing files without end.
        if id == "q-bad-backing-self" {
            continue;
        }
        // QEMU takes what lies at the unaligned place for an L2 table, and counts what it finds.
        if id == "q-badread-l1-unaligned" {
            let ours = check(file(&record.path())).unwrap();
            assert_eq!(ours.findings[0].code, "l1-unaligned");
            continue;
        }
        let ours = check(file(&record.path()));
        let Some(theirs) = judged(&img, record) else {
            continue;
        };
        let ours = ours.unwrap_or_else(|error| panic!("{id}: {error}"));
        let differences = differences(&ours, &theirs);
        if !differences.is_empty() {
            let findings: Vec<_> = ours
                .findings
                .iter()
                .take(5)
                .map(ToString::to_string)
                .collect();
            wrong.push(format!("{id}: {differences:?} {findings:#?}"));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 75, "{compared} compared");
}

#[test]
fn images_that_do_not_open_are_reported_or_refused_by_kind() {
    let Some(corpus) = corpus() else { return };
    for record in corpus.of_format("qcow2") {
        let Some(kind) = record.expect.kind.as_deref() else {
            continue;
        };
        let id = &record.id;
        match (kind, check(file(&record.path()))) {
            ("invalid-header" | "truncated", Ok(report)) if !id.contains("soft") => {
                assert!(report.corruptions > 0, "{id}");
            }
            ("bad-magic", Err(error)) => assert_eq!(error.kind(), ErrorKind::NotRecognised),
            ("unsupported-feature" | "unsupported-version", Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{id}");
            }
            (_, Ok(_)) => {}
            (kind, Err(error)) => panic!("{id} ({kind}): {error}"),
        }
    }
}

/// A small image with a snapshot, an overwritten cluster and a compressed one.
fn sample() -> Option<(tempfile::TempDir, Vec<u8>)> {
    let (img, io) = qemu()?;
    let dir = tempfile::tempdir().unwrap();
    let writes = ["write -P 1 0 256k", "write -c -P 2 1M 64k"];
    made(dir.path(), "a.qcow2", 4 * MIB, "cluster_size=64k", &writes);
    let path = dir.path().join("a.qcow2");
    let path = path.to_str().unwrap();
    img.run(&["snapshot", "-c", "one", path]).ok().unwrap();
    io.run("qcow2", path.as_ref(), &["write -P 3 64k 64k"])
        .unwrap();
    let image = std::fs::read(path).unwrap();
    Some((dir, image))
}

/// Checks `image` and lets QEMU do the same.
fn both(dir: &tempfile::TempDir, image: &[u8]) -> (CheckReport, Option<Value>) {
    let path = dir.path().join("damaged.qcow2");
    std::fs::write(&path, image).unwrap();
    let theirs = QemuImg::find().unwrap().check("qcow2", &path).report;
    (check(memory(image)).unwrap(), theirs)
}

#[test]
fn each_damage_is_found_by_its_code_and_counted_as_qemu_counts_it() {
    type Damage = fn(&mut Vec<u8>);
    let Some((dir, image)) = sample() else { return };
    let (clean, theirs) = both(&dir, &image);
    assert!(clean.is_clean(), "{:#?}", clean.findings);
    assert_eq!(differences(&clean, &theirs.unwrap()), [""; 0]);
    fn entry(image: &mut [u8], change: impl Fn(u64) -> u64) {
        let (_, at) = first_l2(image);
        let new = change(be64(image, at));
        set64(image, at, new);
    }
    fn l1(image: &mut [u8], change: impl Fn(u64) -> u64) {
        let at = common::index(be64(image, 40));
        let new = change(be64(image, at));
        set64(image, at, new);
    }
    fn refcount_of(image: &mut [u8], cluster: usize, value: u16) {
        let block = common::index(be64(image, common::index(be64(image, 48))));
        image[block + cluster * 2..][..2].copy_from_slice(&value.to_be_bytes());
    }
    // Name, damage, code of a finding, whether QEMU's figures are the same.
    let table: &[(&str, Damage, &str, bool)] = &[
        (
            "data-copied",
            |i| entry(i, |e| e ^ 1 << 63),
            "copied-flag",
            true,
        ),
        ("l2-copied", |i| l1(i, |e| e ^ 1 << 63), "copied-flag", true),
        (
            "data-outside",
            |i| entry(i, |_| 1 << 63 | 1 << 40),
            "outside-the-file",
            true,
        ),
        ("data-gone", |i| entry(i, |_| 0), "refcount-high", true),
        (
            "data-reserved",
            |i| entry(i, |e| e | 1 << 60),
            "l2-reserved",
            true,
        ),
        (
            "l1-reserved",
            |i| l1(i, |e| e | 1 << 57),
            "l1-reserved",
            true,
        ),
        (
            "data-on-header",
            |i| entry(i, |_| 1 << 63),
            "refcount-high",
            true,
        ),
        (
            "data-on-l1",
            |i| {
                let l1 = be64(i, 40);
                entry(i, |_| 1 << 63 | l1);
            },
            "refcount-low",
            true,
        ),
        (
            "table-reserved",
            |i| {
                let at = common::index(be64(i, 48)) + 8;
                set64(i, at, 0x80);
            },
            "table-reserved",
            true,
        ),
        (
            "reserved-nowhere",
            |i| {
                let at = first_l2(i).0 + 60 * 8;
                set64(i, at, 2);
            },
            "l2-reserved",
            true,
        ),
        (
            "data-unaligned",
            |i| entry(i, |e| e | 0x200 | 1 << 60),
            "l2-unaligned",
            true,
        ),
        ("leak", |i| refcount_of(i, 4, 3), "refcount-high", true),
        ("lost", |i| refcount_of(i, 0, 0), "refcount-low", true),
        // QEMU counts no more than the refcounts when two structures share a cluster with leave.
        (
            "shared-with-leave",
            |i| {
                let l1 = be64(i, 40);
                entry(i, |_| l1);
                refcount_of(i, common::index(l1 >> 16), 2);
            },
            "overlap",
            false,
        ),
        (
            "l1-on-rt",
            |i| {
                let rt = be64(i, 48);
                l1(i, |_| rt | 1 << 63);
            },
            "refcount-low",
            false,
        ),
    ];
    for (name, damage, code, same) in table {
        let mut image = image.clone();
        damage(&mut image);
        let (ours, theirs) = both(&dir, &image);
        let findings = ours.findings.iter();
        assert!(
            findings.clone().any(|finding| finding.code == *code),
            "{name}: {:#?}",
            ours.findings
        );
        if *same {
            let differences = differences(&ours, &theirs.unwrap());
            assert!(
                differences.is_empty(),
                "{name}: {differences:?} {:#?}",
                ours.findings
            );
        }
        let leaks = findings.filter(|finding| finding.severity == Severity::Leak);
        assert_eq!(leaks.count() as u64, ours.leaks, "{name}");
    }
}

#[test]
fn tables_that_all_name_each_other_do_not_make_a_check_long() {
    let Some((_dir, mut image)) = sample() else {
        return;
    };
    // An L1 table of the greatest length whose entries all name one L2 table.
    let (l2, entries) = (first_l2(&image).0 as u64, 4 << 20);
    let l1 = image.len().next_multiple_of(1 << 16);
    image.resize(l1, 0);
    for _ in 0..entries {
        image.extend_from_slice(&(l2 | 1 << 63).to_be_bytes());
    }
    common::set32(&mut image, 36, entries);
    set64(&mut image, 40, l1 as u64);
    common::quickly("a check", std::time::Duration::from_secs(20), || {
        let report = check(memory(&image)).unwrap();
        assert!(report.corruptions > 0);
    });
}

#[test]
fn a_cluster_that_a_raw_data_file_has_elsewhere_is_found() {
    // Whoever reads the data file by itself, as the image says one may, reads another disk.
    for extended in ["off", "on"] {
        if qemu().is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.raw");
        let options = format!(
            "data_file={},data_file_raw=on,extended_l2={extended},cluster_size=64k",
            data.display()
        );
        // The last cluster is in the second L2 table.
        let writes = ["write -P 1 0 256k", "write -P 1 600M 64k"];
        let image = made(dir.path(), "a.qcow2", 640 * MIB, &options, &writes);
        let clean = check(memory(&image)).unwrap();
        assert_eq!(clean.findings, [], "extended_l2={extended}");
        let width = if extended == "on" { 16 } else { 8 };
        let mut moved = image.clone();
        let at = first_l2(&image).0 + width;
        set64(&mut moved, at, 1 << 63 | 0x3_0000);
        let report = check(memory(&moved)).unwrap();
        let codes: Vec<_> = report.findings.iter().map(|f| (f.code, f.offset)).collect();
        assert_eq!(codes, [("raw-data-misplaced", Some(at as u64))]);
        assert_eq!(report.findings[0].severity, Severity::Warning);
    }
}
