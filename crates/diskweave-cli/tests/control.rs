//! `resize`, `snapshot -c|-a|-d` and `check -r`, beside what `qemu-img` makes of the same.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{MIB, run};
use testkit::oracle::{QemuImg, QemuIo};

fn made(dir: &Path) -> Option<(QemuImg, QemuIo)> {
    let (qemu, io) = (QemuImg::find()?, QemuIo::find()?);
    let path = dir.join("a.qcow2");
    qemu.create("qcow2", &path, 4 * MIB, "").unwrap();
    io.run("qcow2", &path, &["write -P 7 0 1M", "write -P 8 3M 64k"])
        .unwrap();
    Some((qemu, io))
}

#[test]
fn a_disk_takes_another_size_and_loses_its_end_only_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let Some((qemu, io)) = made(dir.path()) else {
        return;
    };
    let path = dir.path().join("a.qcow2");
    assert_eq!(
        run(dir.path(), &["resize", "a.qcow2", "+4M"]).ok(),
        "Image resized.\n"
    );
    let refused = run(dir.path(), &["resize", "a.qcow2", "2M"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("--shrink"), "{refused:?}");
    run(dir.path(), &["resize", "-q", "--shrink", "a.qcow2", "-6M"]).ok();
    run(dir.path(), &["resize", "-q", "a.qcow2", "4M"]).ok();
    assert_eq!(qemu.info("qcow2", &path).unwrap()["virtual-size"], 4 * MIB);
    // What was cut off does not come back.
    io.run("qcow2", &path, &["read -P 7 0 1M", "read -P 0 1M 3M"])
        .unwrap();
    assert_eq!(qemu.check("qcow2", &path).code, 0);
    let refused = run(dir.path(), &["resize", "-f", "vhdx", "a.qcow2", "8M"]);
    assert_eq!(refused.code, 1);
}

#[test]
fn snapshots_are_taken_applied_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let Some((qemu, io)) = made(dir.path()) else {
        return;
    };
    let path = dir.path().join("a.qcow2");
    run(dir.path(), &["snapshot", "-c", "first", "a.qcow2"]).ok();
    let listed = qemu
        .run(&["snapshot", "-l", path.to_str().unwrap()])
        .ok()
        .unwrap();
    assert!(String::from_utf8(listed).unwrap().contains("first"));
    io.run("qcow2", &path, &["write -P 9 0 2M"]).unwrap();
    assert_eq!(
        run(dir.path(), &["snapshot", "-c", "first", "a.qcow2"]).code,
        1
    );
    run(dir.path(), &["snapshot", "-a", "first", "a.qcow2"]).ok();
    io.run("qcow2", &path, &["read -P 7 0 1M", "read -P 0 1M 1M"])
        .unwrap();
    run(dir.path(), &["snapshot", "-d", "first", "a.qcow2"]).ok();
    assert_eq!(
        run(dir.path(), &["snapshot", "-d", "first", "a.qcow2"]).code,
        1
    );
    assert_eq!(run(dir.path(), &["snapshot", "a.qcow2"]).ok(), "");
    assert_eq!(qemu.check("qcow2", &path).code, 0);
    io.run("qcow2", &path, &["write -P 1 0 64k", "read -P 8 3M 64k"])
        .unwrap();
    assert_eq!(qemu.check("qcow2", &path).code, 0);
}

#[test]
fn leaks_and_wrong_refcounts_are_repaired_and_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let Some((qemu, _)) = made(dir.path()) else {
        return;
    };
    let path = dir.path().join("a.qcow2");
    // The refcount of the cluster behind the last one: a leak. That of the first data cluster: too low.
    let whole = std::fs::read(&path).unwrap();
    let mut leaking = whole.clone();
    leaking.resize(whole.len() + 65_536, 0);
    let block = 131_072;
    let at = block + whole.len() / 65_536 * 2;
    leaking[at + 1] = 1;
    std::fs::write(&path, &leaking).unwrap();
    assert_eq!(run(dir.path(), &["check", "a.qcow2"]).code, 3);
    let told = run(dir.path(), &["check", "-r", "leaks", "a.qcow2"]).ok();
    assert!(
        told.contains("    1 leaked clusters\n    0 corruptions\n"),
        "{told}"
    );
    assert_eq!(qemu.check("qcow2", &path).code, 0);
    let mut low = whole;
    low[block + 5 * 2 + 1] = 0;
    std::fs::write(&path, &low).unwrap();
    assert_eq!(run(dir.path(), &["check", "a.qcow2"]).code, 2);
    assert_eq!(
        run(dir.path(), &["check", "-q", "-r", "leaks", "a.qcow2"]).code,
        2
    );
    let told = run(
        dir.path(),
        &["check", "-r", "all", "--output", "json", "a.qcow2"],
    )
    .ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["corruptions-fixed"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(qemu.check("qcow2", &path).code, 0);
    assert_eq!(run(dir.path(), &["check", "-r", "all", "a.qcow2"]).code, 0);
}
