//! `convert -l` and `measure -l`: the disks of internal snapshots.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{MIB, dw, names, run};
use testkit::oracle::{QemuImg, QemuIo};

/// `over.qcow2` over `base.raw`, with a snapshot of id 1 called `2`, of id 2 called `1`, and of id 3
/// called `third`, and other content in each; the disk has grown by `growth` after each.
fn image(dir: &Path, growth: &str) -> Option<QemuImg> {
    let (qemu, io) = (QemuImg::find()?, QemuIo::find()?);
    let base = vec![0x55; 3 << 20];
    std::fs::write(dir.join("base.raw"), base).unwrap();
    let path = dir.join("over.qcow2");
    let name = path.to_str().unwrap();
    let made = [
        "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", name,
    ];
    qemu.run_in(dir, &made).ok().unwrap();
    for (byte, snapshot) in [("1", "2"), ("2", "1"), ("3", "third")] {
        let write = format!("write -q -P {byte} {byte}00k 100k");
        io.run("qcow2", &path, &[&write]).unwrap();
        qemu.run(&["snapshot", "-c", snapshot, name]).ok().unwrap();
        qemu.run(&["resize", "-q", name, growth]).ok().unwrap();
    }
    Some(qemu)
}

#[test]
fn the_disk_of_a_snapshot_is_what_qemu_reads() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(qemu) = image(dir, "+0") else { return };
    let mut seen = Vec::new();
    for wanted in [
        "1",
        "2",
        "third",
        "snapshot.id=1",
        "snapshot.name=1",
        "snapshot.id=3,snapshot.name=third",
    ] {
        let args = ["convert", "-l", wanted, "over.qcow2"];
        run(dir, &[&args[..], &["ours.raw"]].concat()).ok();
        let theirs = [&args[..], &["-O", "raw", "theirs.raw"]].concat();
        qemu.run_in(dir, &theirs).ok().unwrap();
        let ours = std::fs::read(dir.join("ours.raw")).unwrap();
        assert!(
            ours == std::fs::read(dir.join("theirs.raw")).unwrap(),
            "{wanted}"
        );
        let args = ["measure", "-l", wanted, "-O", "qcow2", "over.qcow2"];
        let theirs = qemu.run_in(dir, &args).ok().unwrap();
        let measured = run(dir, &args).ok();
        assert_eq!(measured, String::from_utf8(theirs).unwrap(), "{wanted}");
        seen.push(ours);
    }
    assert!(seen[0] == seen[3] && seen[1] == seen[4] && seen[2] == seen[5]);
    assert!(seen[0] != seen[1], "the id counts before the name");
}

/// QEMU 10.0.2 takes the size the disk has now, and fills the rest from wherever.
#[test]
fn a_snapshot_is_as_long_as_the_disk_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(qemu) = image(dir, "+1M") else {
        return;
    };
    for (wanted, len) in [("1", 3), ("2", 4), ("3", 5)] {
        dw(dir, &format!("convert -l {wanted} over.qcow2 ours.raw")).ok();
        let theirs = [
            "convert",
            "-l",
            wanted,
            "-O",
            "raw",
            "over.qcow2",
            "theirs.raw",
        ];
        qemu.run_in(dir, &theirs).ok().unwrap();
        let ours = std::fs::read(dir.join("ours.raw")).unwrap();
        let theirs = std::fs::read(dir.join("theirs.raw")).unwrap();
        assert_eq!(ours.len() as u64, len * MIB);
        assert!(theirs.starts_with(&ours), "{wanted}");
    }
}

#[test]
fn what_is_no_snapshot_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if image(dir, "+0").is_none() {
        return;
    }
    let listed = names(dir);
    for (line, told) in [
        ("-l fourth over.qcow2", "\"fourth\""),
        ("-l snapshot.id=third over.qcow2", "third"),
        ("-l snapshot.id=1,snapshot.name=1 over.qcow2", "named \"1\""),
        ("-l 1 base.raw", "no internal snapshots"),
    ] {
        let refused = dw(dir, &format!("convert {line} made")).fails(1);
        assert!(refused.contains(told), "{line}: {refused}");
        assert_eq!(dw(dir, &format!("measure {line}")).code, 1, "{line}");
    }
    assert_eq!(
        dw(dir, "convert -l snapshot.uuid=1 over.qcow2 made").code,
        1
    );
    assert_eq!(dw(dir, "measure -l 1 --size 1M").code, 1);
    assert_eq!(names(dir), listed);
}
