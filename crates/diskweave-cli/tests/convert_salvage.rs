//! `convert --salvage`.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{MIB, dw, names};
use testkit::oracle::{QemuImg, QemuIo};

/// A qcow2 of 1 MiB, its fourth and fifth cluster placed where no cluster begins.
fn damaged(dir: &Path) -> Option<QemuImg> {
    let (qemu, io) = (QemuImg::find()?, QemuIo::find()?);
    let path = dir.join("bad.qcow2");
    qemu.create("qcow2", &path, MIB, "").unwrap();
    io.run("qcow2", &path, &["write -q -P 1 0 1M"]).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let word = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let place = |word: u64| usize::try_from(word & 0x00ff_ffff_ffff_fe00).unwrap();
    let l1 = place(word(&bytes, 40));
    let l2 = place(word(&bytes, l1));
    for cluster in [3, 4] {
        let entry = (1u64 << 63) | 0x5_0200;
        bytes[l2 + 8 * cluster..][..8].copy_from_slice(&entry.to_be_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    Some(qemu)
}

#[test]
fn what_cannot_be_read_is_zeros_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(qemu) = damaged(dir) else { return };
    let refused = dw(dir, "convert bad.qcow2 ours.raw").fails(1);
    assert!(!refused.contains("zeros now"), "{refused}");
    assert_eq!(names(dir), ["bad.qcow2"]);
    let theirs = [
        "convert",
        "--salvage",
        "-O",
        "raw",
        "bad.qcow2",
        "theirs.raw",
    ];
    qemu.run_in(dir, &theirs).ok().unwrap();
    let theirs = std::fs::read(dir.join("theirs.raw")).unwrap();
    for flags in ["-m 1", "-m 8", "-S 0"] {
        let said = dw(
            dir,
            &format!("convert --salvage {flags} bad.qcow2 ours.raw"),
        );
        assert_eq!(said.code, 0, "{said:?}");
        assert!(
            std::fs::read(dir.join("ours.raw")).unwrap() == theirs,
            "{flags}"
        );
        assert_eq!(
            said.err.matches("131072 bytes at 196608 ").count(),
            1,
            "{said:?}"
        );
        assert_eq!(said.err.lines().count(), 2, "{said:?}");
    }
    let quiet = dw(dir, "convert -q --salvage bad.qcow2 ours.raw");
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
    let both = dw(dir, "convert --salvage -O qcow2 bad.qcow2 bad.qcow2 made");
    assert_eq!((both.code, both.err.lines().count()), (0, 3), "{both:?}");
    let made = dir.join("made");
    assert_eq!(qemu.check("qcow2", &made).code, 0);
}

#[test]
fn a_missing_parent_is_not_taken_for_zeros() {
    let dir = support::family_dir();
    std::fs::remove_file(dir.path().join("base.vhdx")).unwrap();
    dw(dir.path(), "convert --salvage child.vhdx made").fails(1);
    dw(
        dir.path(),
        "convert --salvage --parents none child.vhdx made",
    )
    .fails(1);
    assert_eq!(names(dir.path()), ["child.vhdx"]);
}
