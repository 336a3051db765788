//! `create`.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{MIB, dw, names};
use testkit::oracle::{QemuImg, QemuIo};

#[test]
fn an_empty_image_is_what_qemu_makes_of_the_same_words() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.raw"), vec![7; 3 << 20]).unwrap();
    for words in [
        "-f raw NAME 10M",
        "NAME 1000",
        "-f qcow2 NAME 10M",
        "-f qcow2 -o compat=0.10,cluster_size=4k NAME 1000",
        "-f qcow2 -o extended_l2=on,lazy_refcounts=on,refcount_bits=1 NAME 1G",
        "-f qcow2 -o compression_type=zstd -b base.raw -F raw NAME",
        "-f qcow2 -o backing_file=base.raw,backing_fmt=raw NAME 9M",
        "-f qcow2 -u -b not/there -F raw NAME 9M",
    ] {
        let told = |name: &str| -> Value {
            let format = if words.contains("qcow2") {
                "qcow2"
            } else {
                "raw"
            };
            let path = dir.path().join(name);
            let mut told = qemu.info(format, &path).unwrap();
            let known = told.as_object_mut().unwrap();
            // The place and the space of the file are its own.
            for key in ["filename", "actual-size", "children"] {
                known.remove(key);
            }
            known.get_mut("full-backing-filename").map(Value::take);
            // It opens the backing file, which is not there under -u.
            if format == "qcow2" && !words.contains("-u") {
                assert_eq!(qemu.check(format, &path).code, 0, "{words}");
            }
            told
        };
        dw(
            dir.path(),
            &format!("create {}", words.replace("NAME", "ours")),
        )
        .ok();
        let theirs = dir.path().join("theirs");
        let line = words.replace("NAME", theirs.to_str().unwrap());
        let args: Vec<&str> = ["create", "-q"]
            .into_iter()
            .chain(line.split(' '))
            .collect();
        qemu.run(&args).ok().unwrap();
        assert_eq!(told("ours"), told("theirs"), "{words}");
    }
    for options in ["subformat=dynamic", "subformat=fixed", "block_size=1M"] {
        let line = format!("create -f vhdx -o {options} disk.vhdx 20M");
        dw(dir.path(), &line).ok();
        let told = qemu.info("vhdx", &dir.path().join("disk.vhdx")).unwrap();
        assert_eq!(told["virtual-size"], 20 * MIB);
        assert_eq!(dw(dir.path(), "check -q disk.vhdx").code, 0);
    }
}

#[test]
fn an_old_file_stays_until_the_new_one_is_whole() {
    let Some(io) = QemuIo::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old");
    std::fs::write(&old, vec![3; 4096]).unwrap();
    for (line, told) in [
        ("-f qcow2 old", "size"),
        ("-f qcow2 -b gone -F raw old", "gone"),
        ("-f qcow2 -b gone old", "(-f)"),
        ("-f qcow2 -b old -F raw old", "read from"),
        ("-f qcow2 -b old -F qcow2 other", "old"),
        ("-f qcow2 -o cluster_size=3k old 1M", "cluster_size"),
        ("-f qcow2 old 18446744073709551615", "too large"),
        ("-f raw -b old -F raw other 1M", "only qcow2 and vhdx"),
        ("-f vhdx old 65T", "size"),
        ("-f vmdk old 1M", "vmdk"),
        ("-f raw . 1M", "regular file"),
    ] {
        let refused = dw(dir.path(), &format!("create {line}")).fails(1);
        assert!(refused.to_lowercase().contains(told), "{line}: {refused}");
        assert_eq!(names(dir.path()), ["old"], "{line}");
        assert_eq!(std::fs::read(&old).unwrap(), vec![3; 4096], "{line}");
    }
    let held = io.hold_writable("raw", &old).unwrap();
    let refused = dw(dir.path(), "create -f qcow2 old 1M").fails(1);
    assert!(refused.contains("another process"), "{refused}");
    drop(held);
    dw(dir.path(), "create -f qcow2 old 1M").ok();
    assert!(std::fs::read(&old).unwrap().starts_with(b"QFI"));
}

#[test]
fn what_is_set_aside_is_what_qemu_sets_aside() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut bytes = vec![0; 3 << 20];
    bytes[(1 << 20) + 5] = 9;
    std::fs::write(dir.path().join("disk.raw"), &bytes).unwrap();
    for how in ["metadata", "falloc", "full"] {
        for more in [
            "cluster_size=64k",
            "cluster_size=4k,compat=0.10",
            "extended_l2=on",
        ] {
            let options = format!("preallocation={how},{more}");
            dw(
                dir.path(),
                &format!("create -f qcow2 -o {options} ours 20M"),
            )
            .ok();
            qemu.create("qcow2", &theirs, 20 << 20, &options).unwrap();
            let checked = [&ours, &theirs].map(|path| {
                let checked = qemu.check("qcow2", path);
                assert_eq!(checked.code, 0, "{options}");
                checked.report.unwrap()["allocated-clusters"].clone()
            });
            assert_eq!(checked[0], checked[1], "{options}");
            let space = [&ours, &theirs].map(|path| {
                use std::os::unix::fs::MetadataExt;
                std::fs::metadata(path).unwrap().blocks() * 512 >= 20 << 20
            });
            assert_eq!(space, [how != "metadata"; 2], "{options}");
            let line = format!("convert -O qcow2 -o {options} disk.raw ours");
            dw(dir.path(), &line).ok();
            let raw = dir.path().join("disk.raw");
            assert!(
                qemu.same(("qcow2", &ours), ("raw", &raw)).unwrap(),
                "{options}"
            );
            assert_eq!(qemu.check("qcow2", &ours).code, 0, "{options}");
        }
    }
    for line in ["convert -c", "convert -B disk.raw -F raw"] {
        let line = format!("{line} -O qcow2 -o preallocation=full disk.raw made");
        let refused = dw(dir.path(), &line).fails(1);
        assert!(refused.contains("preallocation"), "{refused}");
    }
}

#[test]
fn raw_images_have_the_space_that_qemu_gives_them() {
    use std::os::unix::fs::MetadataExt;
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut bytes = vec![0; 3 << 20];
    bytes[(1 << 20) + 5] = 9;
    std::fs::write(dir.join("disk.raw"), &bytes).unwrap();
    for how in ["off", "falloc", "full"] {
        let option = format!("preallocation={how}");
        for args in [
            &["create", "-q", "-f", "raw", "-o", &option, "made", "3M"][..],
            &["create", "-q", "-f", "raw", "-o", &option, "made", "0"],
            &[
                "convert", "-q", "-f", "raw", "-O", "raw", "-o", &option, "disk.raw", "made",
            ],
        ] {
            let made = |ours: bool| {
                if ours {
                    support::run(dir, args).ok();
                } else {
                    qemu.run_in(dir, args).ok().unwrap();
                }
                let path = dir.join("made");
                let told = std::fs::metadata(&path).unwrap();
                let content = std::fs::read(&path).unwrap();
                std::fs::remove_file(path).unwrap();
                (content, told.blocks() * 512 >= 3 << 20)
            };
            let (ours, theirs) = (made(true), made(false));
            assert!(ours == theirs, "{args:?}: {} {}", ours.1, theirs.1);
            let whole = how != "off" && !args.contains(&"0");
            assert_eq!(ours.1, whole, "{args:?}");
        }
    }
    for option in ["preallocation=metadata", "preallocation=", "size=3M"] {
        let line = format!("create -f raw -o {option} made 3M");
        dw(dir, &line).fails(1);
    }
    assert_eq!(names(dir), ["disk.raw"]);
}

#[test]
fn no_image_is_its_own_backing_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("sub")).unwrap();
    let refused = |line: &str| {
        let refused = dw(dir, &format!("create -u -f qcow2 -F raw {line} 1M")).fails(1);
        assert!(
            refused.contains("its own backing file"),
            "{line}: {refused}"
        );
    };
    for line in ["-b x x", "-b ./x x", "-b x sub/x", "-o backing_file=x x"] {
        refused(line);
    }
    assert_eq!(names(dir), ["sub"]);
    dw(dir, "create -u -f qcow2 -F raw -b ../x sub/x 1M").ok();
    std::os::unix::fs::symlink("x", dir.join("sub/link")).unwrap();
    refused("-b link sub/x");
    dw(dir, "create -f qcow2 -F raw -b gone y 1M").fails(1);
    assert_eq!(names(&dir.join("sub")), ["link", "x"]);
}
