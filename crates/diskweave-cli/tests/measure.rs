//! `measure`: against `qemu-img measure`, and against what `convert` makes.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{MIB, dw, family_dir, run};
use testkit::corpus::{Record, Verdict, corpus};
use testkit::oracle::QemuImg;

/// What the image of a disk takes in qcow2.
const OPTIONS: [&str; 6] = [
    "cluster_size=64k",
    "cluster_size=512",
    "cluster_size=2M",
    "refcount_bits=1",
    "refcount_bits=64,cluster_size=4k",
    "extended_l2=on,cluster_size=16k",
];

#[test]
fn empty_disks_take_what_qemu_img_says() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let sizes = ["0", "512", "65536", "1M", "1073742336", "5G", "1T"];
    let mut compared = 0;
    for size in sizes {
        let raw = ["measure", "--output=json", "--size", size];
        let qcow2 = OPTIONS.map(|of| [&raw[..], &["-O", "qcow2", "-o", of]].concat());
        for args in qcow2.into_iter().chain([raw.to_vec()]) {
            let (theirs, ours) = (qemu.run(&args), run(dir.path(), &args));
            assert_eq!(theirs.code == Some(0), ours.code == 0, "{args:?}: {ours:?}");
            if ours.code == 0 {
                let theirs: Value = serde_json::from_slice(&theirs.stdout).unwrap();
                assert_eq!(ours.json(), theirs, "{args:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 45, "{compared}");
}

/// Images that open, but for those over a VHDX, of which QEMU tells no zeros, and over what is not
/// said to be of any format.
fn sources() -> Vec<&'static Record> {
    let corpus = corpus().into_iter();
    let odd = |record: &Record| {
        let odd = [
            "encrypted-aes",
            "encrypted-luks",
            "backing-vhdx",
            "backing-format-missing",
        ];
        odd.iter().any(|feature| record.has(feature))
    };
    corpus
        .flat_map(|corpus| [corpus.of_format("raw"), corpus.of_format("qcow2")])
        .flatten()
        .filter(|record| record.expect.result == Verdict::Ok && !odd(record))
        .collect()
}

/// True where QEMU takes holes of the host file for zeros of the image: where the tables look as if
/// they had been made before the data.
fn counts_host_holes(qemu: &QemuImg, record: &Record) -> bool {
    let path = record.path();
    let args = [
        "map",
        "-f",
        &record.format,
        "--output=json",
        path.to_str().unwrap(),
    ];
    let map = qemu.run_in(path.parent().unwrap(), &args).stdout;
    String::from_utf8(map)
        .unwrap()
        .contains(r#""zero": true, "data": true"#)
}

#[test]
fn disks_of_the_corpus_take_what_qemu_img_says() {
    let Some(qemu) = QemuImg::find() else { return };
    let mut compared = 0;
    for record in sources() {
        let path = record.path();
        let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap());
        if counts_host_holes(&qemu, record) {
            continue;
        }
        let base = ["measure", "-f", &record.format, name.to_str().unwrap()];
        for flags in [
            &["-O", "raw"][..],
            &["-O", "qcow2", "--output=json"],
            &["-O", "qcow2"],
            &["-O", "qcow2", "--output=json", "-o", "cluster_size=4k"],
            &["-O", "qcow2", "--output=json", "-o", "compat=0.10"],
        ] {
            let args = [&base[..], flags].concat();
            let theirs = qemu.run_in(dir, &args);
            let ours = run(dir, &[&args[..], &["--parents", "any"]].concat());
            let id = &record.id;
            assert_eq!(
                theirs.code == Some(0),
                ours.code == 0,
                "{id}: {ours:?} {}",
                theirs.stderr
            );
            if ours.code == 0 {
                let theirs = String::from_utf8(theirs.stdout).unwrap();
                assert_eq!(ours.out, theirs, "{id} {flags:?}");
                compared += 1;
            }
        }
    }
    assert!(sources().is_empty() || compared > 400, "{compared}");
}

#[test]
fn what_is_set_aside_or_spared_counts_as_qemu_img_counts_it() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("disk.raw")).unwrap();
    file.set_len(3 * MIB).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 100_000], MIB).unwrap();
    for (format, options) in [
        ("qcow2", "preallocation=off"),
        ("qcow2", "preallocation=metadata"),
        ("qcow2", "preallocation=falloc"),
        ("qcow2", "preallocation=full,cluster_size=4k"),
        ("qcow2", "backing_file=gone,backing_fmt=raw"),
        ("qcow2", "backing_file=gone"),
        ("raw", "preallocation=falloc"),
        ("raw", "preallocation=full"),
    ] {
        for of in [&["disk.raw", "-f", "raw"][..], &["--size", "1G"]] {
            let args = [&["measure", "-O", format, "-o", options], of].concat();
            let theirs = qemu.run_in(dir.path(), &args).ok().unwrap();
            let ours = run(dir.path(), &args).ok();
            assert_eq!(ours, String::from_utf8(theirs).unwrap(), "{args:?}");
        }
    }
}

#[test]
fn nothing_that_is_made_is_longer_than_was_measured() {
    let dir = family_dir();
    let path = dir.path();
    let file = std::fs::File::create(path.join("sparse")).unwrap();
    file.set_len(40 * MIB + 512).unwrap();
    for (at, len) in [
        (0, 1),
        (MIB + 5, 70_000),
        (9 * MIB, 3 << 20),
        (40 * MIB, 512),
    ] {
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; len], at).unwrap();
    }
    let mut exact = 0;
    for source in ["sparse", "child.vhdx", "base.vhdx"] {
        for target in [
            "-O raw",
            "-O vhdx",
            "-O vhdx -o block_size=1M",
            "-O vhdx -o block_size=1M,subformat=fixed,log_size=4M",
            "-O qcow2",
            "-O qcow2 -o cluster_size=512",
            "-O qcow2 -o cluster_size=2M,refcount_bits=1",
            "-O qcow2 -o cluster_size=16k,extended_l2=on,refcount_bits=64",
        ] {
            let measured = dw(path, &format!("measure --output json {target} {source}")).json();
            dw(path, &format!("convert -q {target} {source} made")).ok();
            let made = path.join("made").metadata().unwrap().len();
            let required = measured["required"].as_u64().unwrap();
            let full = measured["fully-allocated"].as_u64().unwrap();
            assert!(
                made <= required && required <= full,
                "{target} {source}: {made} {measured}"
            );
            // What the source says to be stored may be zeros.
            if target.starts_with("-O vhdx") {
                assert_eq!(made, required, "{target} {source}");
                exact += 1;
            }
        }
    }
    assert_eq!(exact, 9);
}

#[test]
fn either_a_size_or_a_file_is_measured() {
    let dir = family_dir();
    for line in [
        "measure",
        "measure --size 1M child.vhdx",
        "measure -O floppy --size 1M",
        "measure -O qcow2 -o cluster_size=256 --size 1M",
        "measure -O qcow2 --size 9000000000000000000",
        "measure --size 18446744073709551615",
        "measure --parents none -O qcow2 child.vhdx",
        "measure gone",
    ] {
        assert_eq!(dw(dir.path(), line).code, 1, "{line}");
    }
}
