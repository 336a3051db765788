//! `convert`.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use support::{MIB, dw, family, family_dir, names, save};
use testkit::corpus::sha256_file;
use testkit::oracle::QemuIo;
use testkit::vhdx_builder::{VhdxBuilder, chain_disk};

#[test]
fn a_child_becomes_the_disk_it_shows_in_the_current_directory() {
    let dir = family_dir();
    let (base, child) = family();
    assert_eq!(
        dw(dir.path(), "convert -O raw child.vhdx disk.raw").ok(),
        ""
    );
    let disk = std::fs::read(dir.path().join("disk.raw")).unwrap();
    assert!(disk == chain_disk(&[&child, &base]));
    assert_eq!(names(dir.path()), ["base.vhdx", "child.vhdx", "disk.raw"]);
    for line in [
        "-q",
        "-p",
        "-m 3",
        "-S 0",
        "-S 64k",
        "--progress none",
        "-p -q",
        "-f vhdx",
    ] {
        dw(dir.path(), &format!("convert {line} child.vhdx again.raw")).ok();
        assert!(
            std::fs::read(dir.path().join("again.raw")).unwrap() == disk,
            "{line}"
        );
    }
}

#[test]
fn sparse_size_decides_over_holes() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "empty.vhdx", &VhdxBuilder::new(8 * MIB));
    let allocated = |options: &str| {
        dw(dir.path(), &format!("convert {options} empty.vhdx raw")).ok();
        std::fs::metadata(dir.path().join("raw")).unwrap().blocks() * 512
    };
    assert!(allocated("-q") < MIB);
    assert!(allocated("-S 0") >= 8 * MIB);
    assert!(allocated("-S 1M") < MIB);
}

#[test]
fn progress_for_programs_is_one_object_a_line_from_nothing_to_all() {
    let dir = family_dir();
    let said = dw(dir.path(), "convert --progress json -m 4 child.vhdx raw");
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    let lines: Vec<Value> = said
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let done: Vec<u64> = lines
        .iter()
        .map(|line| line["done"].as_u64().unwrap())
        .collect();
    assert!(lines.iter().all(|line| line["total"] == 4 * MIB));
    assert!(done.is_sorted(), "{done:?}");
    assert_eq!((done[0], *done.last().unwrap()), (0, 4 * MIB));
}

#[test]
fn a_failure_leaves_the_destination_as_it_was_and_nothing_beside_it() {
    let dir = family_dir();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, "precious").unwrap();
    std::fs::copy(
        dir.path().join("child.vhdx"),
        dir.path().join("orphan.vhdx"),
    )
    .unwrap();
    let listed = names(dir.path());
    dw(dir.path(), "convert --parents none orphan.vhdx raw").fails(1);
    dw(dir.path(), "convert gone.vhdx raw").fails(1);
    let refused = dw(dir.path(), "convert -O qcow2 base.vhdx raw").fails(1);
    assert!(refused.contains("qcow2"), "{refused}");
    dw(dir.path(), "convert base.vhdx no/such/place").fails(1);
    dw(dir.path(), "convert base.vhdx .").fails(1);
    assert_eq!(std::fs::read(&raw).unwrap(), b"precious");
    assert_eq!(names(dir.path()), listed);
}

#[test]
fn a_disk_is_not_written_over_its_own_parent() {
    let dir = family_dir();
    let base = dir.path().join("base.vhdx");
    let before = sha256_file(&base);
    for destination in ["base.vhdx", "child.vhdx", "./base.vhdx"] {
        let line = format!("convert child.vhdx {destination}");
        let refused = dw(dir.path(), &line).fails(1);
        assert!(refused.contains("source is read from"), "{refused}");
        // Reading unlocked opens no back door.
        dw(dir.path(), &line.replace("convert", "convert -U")).fails(1);
    }
    assert_eq!(sha256_file(&base), before);
}

#[test]
fn a_locked_destination_is_no_occasion_to_advise_reading_it_unlocked() {
    let Some(io) = QemuIo::find() else { return };
    let dir = family_dir();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, vec![7; 4096]).unwrap();
    let held = io.hold_writable("raw", &raw).unwrap();
    let refused = dw(dir.path(), "convert child.vhdx raw").fails(1);
    assert!(refused.contains("another process"), "{refused}");
    assert!(!refused.contains("hint"), "{refused}");
    drop(held);
    assert_eq!(std::fs::read(&raw).unwrap(), vec![7; 4096]);
}

#[test]
fn an_empty_disk_of_64_gib_is_converted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "empty.vhdx", &VhdxBuilder::new(64 << 30));
    let started = std::time::Instant::now();
    dw(dir.path(), "convert empty.vhdx raw").ok();
    let elapsed = started.elapsed();
    // QEMU takes seconds; a loaded machine is given some time.
    assert!(elapsed < std::time::Duration::from_secs(1), "{elapsed:?}");
    let raw = std::fs::metadata(dir.path().join("raw")).unwrap();
    assert_eq!((raw.len(), raw.blocks() < 16), (64 << 30, true));
}
