//! `convert -n`: into what is there.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::{MIB, dw, names, run};
use testkit::oracle::{QemuImg, QemuIo};

/// `disk.raw` of 2 MiB: data, a hole, stored zeros, data.
fn source(dir: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 2 << 20];
    bytes[..100_000].fill(1);
    bytes[(2 << 20) - 5000..].fill(2);
    let file = std::fs::File::create(dir.join("disk.raw")).unwrap();
    file.set_len(2 * MIB).unwrap();
    for range in [0..100_000, 1 << 20..2 << 20] {
        let at = range.start as u64;
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[range], at).unwrap();
    }
    bytes
}

#[test]
fn the_start_of_the_target_becomes_the_disk_and_the_rest_stays() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let bytes = source(dir);
    for flags in [&[][..], &["-S", "0"], &["-S", "64k"], &["-W"], &["-m", "3"]] {
        let written = |ours: bool| {
            let path = dir.join("target");
            std::fs::write(&path, vec![9; 3 << 20]).unwrap();
            let inode = std::fs::metadata(&path).unwrap().ino();
            let args = [
                "convert", "-n", "-f", "raw", "-O", "raw", "disk.raw", "target",
            ];
            let args = [&args[..], flags].concat();
            if ours {
                run(dir, &args).ok();
            } else {
                qemu.run_in(dir, &args).ok().unwrap();
            }
            let told = std::fs::metadata(&path).unwrap();
            assert_eq!(told.ino(), inode, "the file is the same");
            let whole = told.blocks() * 512 >= 3 * MIB;
            (std::fs::read(&path).unwrap(), whole)
        };
        let (ours, theirs) = (written(true), written(false));
        assert!(ours == theirs, "{flags:?}");
        assert!(ours.0[..2 << 20] == bytes && ours.0[2 << 20..] == vec![9; 1 << 20]);
        assert_eq!(ours.1, flags.contains(&"0"), "{flags:?}");
    }
    assert_eq!(names(dir), ["disk.raw", "target"]);
}

#[test]
fn zeros_are_not_written_over_what_is_said_to_be_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let bytes = source(dir);
    std::fs::write(dir.join("target"), vec![9; 2 << 20]).unwrap();
    dw(dir, "convert -n --target-is-zero disk.raw target").ok();
    let written = std::fs::read(dir.join("target")).unwrap();
    assert!(written[..98_304] == bytes[..98_304]);
    assert!(written[200_000..1 << 20].iter().all(|byte| *byte == 9));
}

#[test]
fn nothing_is_touched_where_it_cannot_be_done() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    source(dir);
    let target = dir.join("target");
    std::fs::write(&target, vec![9; (2 << 20) - 512]).unwrap();
    let own = std::fs::read(dir.join("disk.raw")).unwrap();
    for (line, told) in [
        ("-n disk.raw target", "smaller"),
        ("-n disk.raw gone", "gone"),
        ("-n disk.raw disk.raw", "source is read from"),
        ("-n -O qcow2 disk.raw target", "not a qcow2 image"),
        ("-n -O vhdx disk.raw target", "target"),
        ("-n -O qcow2 disk.raw gone", "gone"),
        ("-n -o preallocation=full disk.raw target", "-o"),
        ("-n -c disk.raw target", "compressed"),
        ("-n -B disk.raw -F raw disk.raw target", "backing"),
    ] {
        let refused = dw(dir, &format!("convert {line}")).fails(1);
        assert!(refused.contains(told), "{line}: {refused}");
    }
    assert_eq!(dw(dir, "convert --target-is-zero disk.raw target").code, 1);
    let Some(io) = QemuIo::find() else { return };
    let held = io.hold_writable("raw", &target).unwrap();
    let refused = dw(dir, "convert -n disk.raw target").fails(1);
    assert!(refused.contains("another process"), "{refused}");
    drop(held);
    assert_eq!(std::fs::read(&target).unwrap(), vec![9; (2 << 20) - 512]);
    assert!(std::fs::read(dir.join("disk.raw")).unwrap() == own);
    assert_eq!(names(dir), ["disk.raw", "target"]);
}

/// An image that is written into stays what it is: its options, its snapshots, its parents.
#[test]
fn an_image_of_any_format_takes_the_disk_and_stays_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let bytes = source(dir);
    std::fs::write(dir.join("base.raw"), vec![9; 3 << 20]).unwrap();
    for (made, format) in [
        ("create -f qcow2 -o compat=0.10 target 3M", "qcow2"),
        (
            "create -f qcow2 -o extended_l2=on -b base.raw -F raw target",
            "qcow2",
        ),
        ("create -f vhdx -o block_size=1M target 3M", "vhdx"),
        ("create -f vhdx -b base.raw -F raw target", "vhdx"),
        ("convert -O vhdx base.raw target", "vhdx"),
    ] {
        dw(dir, made).ok();
        let info = || {
            let mut info = dw(dir, "info --output json target").json();
            let info = info.as_object_mut().unwrap();
            ["virtual-size", "cluster-size", "backing-filename"].map(|key| info.remove(key))
        };
        let before = info();
        dw(dir, &format!("convert -n -O {format} disk.raw target")).ok();
        assert_eq!(info(), before, "{made}");
        dw(dir, "check -q target").ok();
        dw(dir, "convert -O raw target flat").ok();
        let flat = std::fs::read(dir.join("flat")).unwrap();
        assert!(flat[..2 << 20] == bytes, "{made}");
        let below = if made.contains("base.raw") { 9 } else { 0 };
        assert!(
            flat[2 << 20..] == vec![below; 1 << 20],
            "{made}: what is past the end stays"
        );
        let refused = dw(dir, &format!("convert -n -O {format} target target")).fails(1);
        assert!(refused.contains("source is read from"), "{refused}");
        let refused = dw(dir, &format!("convert -n -O {format} base.raw target"));
        assert_eq!(
            refused.code, 0,
            "its own parent is read, and not written to: {refused:?}"
        );
        dw(dir, &format!("convert -n -c -O {format} disk.raw target")).fails(1);
        std::fs::remove_file(dir.join("target")).unwrap();
    }
}
