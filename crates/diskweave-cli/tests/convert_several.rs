//! `convert` of several sources.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use support::{dw, family_dir, names, run};
use testkit::oracle::QemuImg;

#[test]
fn several_sources_follow_each_other_as_qemu_has_it() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = family_dir();
    let dir = dir.path();
    std::fs::write(dir.join("odd.raw"), vec![7; 1200]).unwrap();
    std::fs::write(dir.join("long.raw"), vec![8; 3_000_001]).unwrap();
    std::fs::write(dir.join("empty.raw"), []).unwrap();
    qemu.create("qcow2", &dir.join("disk.qcow2"), 3 << 20, "")
        .unwrap();
    for sources in [
        &["odd.raw", "long.raw"][..],
        &["long.raw", "empty.raw", "odd.raw", "odd.raw"],
        &["base.vhdx", "odd.raw", "disk.qcow2", "long.raw"],
    ] {
        let theirs = [&["convert", "-O", "raw"], sources, &["theirs.raw"]].concat();
        qemu.run_in(dir, &theirs).ok().unwrap();
        let theirs = std::fs::read(dir.join("theirs.raw")).unwrap();
        run(dir, &[&["convert"], sources, &["ours.raw"]].concat()).ok();
        assert!(
            std::fs::read(dir.join("ours.raw")).unwrap() == theirs,
            "{sources:?}"
        );
        for format in ["qcow2", "vhdx"] {
            let args = [&["convert", "-O", format], sources, &["ours"]].concat();
            run(dir, &args).ok();
            let (ours, theirs) = (dir.join("ours"), dir.join("theirs.raw"));
            let same = qemu.same((format, &ours), ("raw", &theirs)).unwrap();
            assert!(same, "{format} {sources:?}");
        }
    }
}

#[test]
fn what_makes_no_sense_for_several_sources_is_refused() {
    let dir = family_dir();
    let dir = dir.path();
    std::fs::write(dir.join("a.raw"), vec![7; 4096]).unwrap();
    let before = std::fs::read(dir.join("a.raw")).unwrap();
    let listed = names(dir);
    for (line, told) in [
        ("-l 1 a.raw a.raw made", "several"),
        ("-O qcow2 -B a.raw -F raw a.raw a.raw made", "several"),
        ("a.raw gone made", "gone"),
        ("base.vhdx a.raw a.raw", "source is read from"),
        ("base.vhdx a.raw base.vhdx", "source is read from"),
    ] {
        let refused = dw(dir, &format!("convert {line}")).fails(1);
        assert!(refused.contains(told), "{line}: {refused}");
    }
    assert_eq!(dw(dir, "convert a.raw").code, 1);
    assert_eq!(names(dir), listed);
    assert_eq!(std::fs::read(dir.join("a.raw")).unwrap(), before);
}
