//! `snapshot`.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use support::{MIB, command, dw, run, save};
use testkit::corpus::{Record, Verdict, corpus};
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::VhdxBuilder;

/// Images of the corpus that open and are not encrypted.
fn images() -> Vec<&'static Record> {
    let corpus = corpus().into_iter();
    let encrypted = |record: &Record| record.features.iter().any(|f| f.starts_with("encrypted"));
    corpus
        .flat_map(|corpus| corpus.of_format("qcow2"))
        .filter(|record| record.expect.result == Verdict::Ok && !encrypted(record))
        .collect()
}

#[test]
fn the_table_is_that_of_qemu_img() {
    let Some(qemu) = QemuImg::find() else { return };
    let mut with_snapshots = 0;
    for record in images() {
        let (path, dir) = (record.path(), record.dir());
        let args = ["snapshot", "-l", path.to_str().unwrap()];
        let theirs = qemu.run_in(path.parent().unwrap(), &args).ok().unwrap();
        let ours = run(&dir, &args).ok();
        assert_eq!(ours, String::from_utf8(theirs).unwrap(), "{}", record.id);
        with_snapshots += usize::from(!ours.is_empty());
    }
    assert!(
        images().is_empty() || with_snapshots >= 4,
        "{with_snapshots}"
    );
}

/// An image with one snapshot, of a machine that had run for long and was not counted.
fn old_machine(dir: &std::path::Path) -> Option<()> {
    let qemu = QemuImg::find()?;
    let path = dir.join("a.qcow2");
    qemu.create("qcow2", &path, MIB, "").unwrap();
    let made = qemu.run(&["snapshot", "-c", "größer\u{7}", path.to_str().unwrap()]);
    made.ok().unwrap();
    let mut image = std::fs::read(&path).unwrap();
    let at = u64::from_be_bytes(image[64..72].try_into().unwrap());
    let at = usize::try_from(at).unwrap();
    let clock = (123_456 * 3600 + 59 * 60 + 7) * 1_000_000_000u64 + 123_456_789;
    image[at + 16..at + 20].copy_from_slice(&1_700_000_000u32.to_be_bytes());
    image[at + 24..at + 32].copy_from_slice(&clock.to_be_bytes());
    image[at + 40..at + 48].copy_from_slice(&(5u64 << 30).to_be_bytes());
    image[at + 56..at + 64].fill(0xFF);
    std::fs::write(path, image).unwrap();
    Some(())
}

#[test]
fn dates_are_local_and_names_cannot_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    if old_machine(dir.path()).is_none() {
        return;
    }
    for (zone, date) in [
        ("UTC", "2023-11-14 22:13:20"),
        ("EST5EDT,M3.2.0,M11.1.0", "2023-11-14 17:13:20"),
    ] {
        let said = command(dir.path())
            .env("TZ", zone)
            .args(["snapshot", "-l", "a.qcow2"])
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let row = format!("1       größer\\u{{7}}       5 GiB {date} 123456:59:07.123         --");
        assert_eq!(said.lines().nth(2), Some(&*row));
    }
    let snapshots = dw(dir.path(), "snapshot --output json a.qcow2").json();
    assert_eq!(snapshots[0]["name"], "größer\u{7}");
    assert_eq!(snapshots[0]["vm-clock-nsec"], 123_456_789);
    assert!(snapshots[0].get("icount").is_none());
}

#[test]
fn formats_without_snapshots_have_none() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "a.vhdx", &VhdxBuilder::new(MIB));
    assert_eq!(dw(dir.path(), "snapshot -l a.vhdx").ok(), "");
    let json = dw(dir.path(), "snapshot -l --output json a.vhdx").json();
    assert_eq!(json, serde_json::json!([]));
    dw(dir.path(), "snapshot -l gone").fails(1);
}
