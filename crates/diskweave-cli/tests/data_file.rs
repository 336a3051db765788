//! qcow2 images with an external data file, made by `create` and `convert`.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;
use support::{MIB, dw, names, run};
use testkit::oracle::QemuImg;

/// The JSON that `qemu-img` answers in `dir`: there it looks for data files, wherever the image is.
fn asked(qemu: &QemuImg, dir: &Path, args: &[&str]) -> Value {
    let said = qemu.run_in(dir, args).ok().unwrap();
    serde_json::from_slice(&said).unwrap()
}

/// True when `qemu-img` finds `disk.raw` in `image`, which is sound.
fn holds_the_disk(qemu: &QemuImg, dir: &Path) -> bool {
    qemu.run_in(dir, &["check", "-q", "-f", "qcow2", "image"])
        .ok()
        .unwrap();
    let args = [
        "compare", "-q", "-f", "qcow2", "-F", "raw", "image", "disk.raw",
    ];
    qemu.run_in(dir, &args).code == Some(0)
}

/// What `qemu-img info` says of an image, but for its places on the host.
fn told(qemu: &QemuImg, dir: &Path) -> Value {
    let mut told = asked(
        qemu,
        dir,
        &["info", "-f", "qcow2", "--output=json", "image"],
    );
    let known = told.as_object_mut().unwrap();
    for key in ["filename", "actual-size", "children"] {
        known.remove(key);
    }
    told
}

/// How the disk is mapped, its length and whether the data file has all its space.
fn shape(qemu: &QemuImg, dir: &Path) -> (Value, Value, Vec<u8>, bool) {
    let (image, data) = (dir.join("image"), dir.join("data"));
    qemu.run_in(dir, &["check", "-q", "-f", "qcow2", "image"])
        .ok()
        .unwrap();
    let space = std::fs::metadata(&data).unwrap().blocks() * 512;
    let shape = (
        told(qemu, dir),
        asked(qemu, dir, &["map", "-f", "qcow2", "--output=json", "image"]),
        std::fs::read(&data).unwrap(),
        space >= 3 * MIB,
    );
    std::fs::remove_file(image).unwrap();
    std::fs::remove_file(data).unwrap();
    shape
}

#[test]
fn images_with_a_data_file_are_what_qemu_makes_of_the_same_words() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut bytes = vec![0; 3 << 20];
    bytes[(1 << 20) + 5] = 9;
    bytes[2 << 20..(2 << 20) + 200_000].fill(3);
    std::fs::write(dir.join("disk.raw"), &bytes).unwrap();
    for more in [
        "",
        ",data_file_raw=on",
        ",data_file_raw=off,cluster_size=4k",
        ",data_file_raw=on,extended_l2=on",
        ",preallocation=metadata",
        ",preallocation=falloc",
        ",preallocation=full,data_file_raw=on",
    ] {
        let option = format!("data_file=data{more}");
        for args in [
            &["create", "-q", "-f", "qcow2", "-o", &option, "image", "3M"][..],
            &[
                "convert", "-q", "-f", "raw", "-O", "qcow2", "-o", &option, "disk.raw", "image",
            ],
        ] {
            // What was there has to go.
            std::fs::write(dir.join("data"), vec![7; 5 << 20]).unwrap();
            run(dir, args).ok();
            if args[0] == "convert" {
                dw(dir, "compare -q image disk.raw").ok();
                assert!(holds_the_disk(&qemu, dir), "{args:?}");
            }
            let ours = shape(&qemu, dir);
            qemu.run_in(dir, args).ok().unwrap();
            let theirs = shape(&qemu, dir);
            assert_eq!(ours.0, theirs.0, "{args:?}");
            assert!(ours.2 == theirs.2, "{args:?}");
            assert_eq!(ours.3, theirs.3, "{args:?}");
            // Which zeros of the source are stored is the converter's choice; and whether QEMU tells
            // holes of the data file depends on how full the image's own tables are. Subclusters it
            // does not map from the start.
            if args[0] == "create" && !more.contains("extended_l2") {
                let mapped = |mut map: Value| {
                    for run in map.as_array_mut().unwrap() {
                        run["zero"] = Value::Null;
                    }
                    map
                };
                assert_eq!(mapped(ours.1), mapped(theirs.1), "{args:?}");
            }
        }
    }
}

#[test]
fn the_data_file_lies_where_the_image_will_look_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::write(dir.join("disk.raw"), vec![5; 70_000]).unwrap();
    dw(dir, "convert -O qcow2 -o data_file=data disk.raw sub/image").ok();
    assert_eq!(names(&dir.join("sub")), ["data", "image"]);
    assert_eq!(dw(dir, "compare -q sub/image disk.raw").code, 0);
    assert_eq!(
        std::fs::metadata(dir.join("sub/data")).unwrap().len(),
        70_144
    );
}

#[test]
fn over_a_backing_file_the_data_file_holds_what_differs() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("base.raw"), vec![5; 1 << 20]).unwrap();
    let mut bytes = vec![5; 1 << 20];
    bytes[100_000] = 1;
    bytes[500_000..800_000].fill(0);
    std::fs::write(dir.join("disk.raw"), bytes).unwrap();
    dw(
        dir,
        "convert -O qcow2 -B base.raw -F raw -o data_file=data disk.raw image",
    )
    .ok();
    assert!(holds_the_disk(&qemu, dir));
}

#[test]
fn what_cannot_have_a_data_file_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("disk.raw"), vec![5; 1 << 20]).unwrap();
    std::fs::write(dir.join("data"), "precious").unwrap();
    for (line, told) in [
        ("create -f qcow2 -o data_file_raw=on image 1M", "data_file"),
        (
            "create -f qcow2 -o data_file=data,compat=0.10 image 1M",
            "data file",
        ),
        (
            "create -f qcow2 -o data_file=image image 1M",
            "another file",
        ),
        (
            "create -f qcow2 -o data_file=./image image 1M",
            "another file",
        ),
        ("create -f qcow2 -o data_file=gone/data image 1M", "No such"),
        ("create -f qcow2 -o data_file=. image 1M", "regular"),
        (
            "convert -c -O qcow2 -o data_file=data disk.raw image",
            "data file",
        ),
        (
            "convert -O qcow2 -o data_file=disk.raw disk.raw image",
            "read from",
        ),
        (
            "create -f qcow2 -b disk.raw -F raw -o data_file=data,data_file_raw=on image",
            "data file",
        ),
    ] {
        let refused = dw(dir, line).fails(1);
        assert!(refused.contains(told), "{line}: {refused}");
        assert_eq!(names(dir), ["data", "disk.raw"], "{line}");
        assert_eq!(std::fs::read(dir.join("data")).unwrap(), b"precious");
    }
}
