//! `amend`, beside what `qemu-img` makes of the same.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::{MIB, dw};
use testkit::oracle::{QemuImg, QemuIo};

#[test]
fn a_qcow2_becomes_what_qemu_makes_of_it() {
    let (Some(qemu), Some(io)) = (QemuImg::find(), QemuIo::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let [ours, theirs] = ["ours.qcow2", "theirs.qcow2"].map(|name| dir.join(name));
    for path in [&ours, &theirs] {
        qemu.create("qcow2", path, 4 * MIB, "").unwrap();
        io.run("qcow2", path, &["write -P 7 100k 1M", "write -z 2M 64k"])
            .unwrap();
    }
    for options in [
        "refcount_bits=64,lazy_refcounts=on",
        "size=5M",
        "lazy_refcounts=off",
        "refcount_bits=16",
        "compat=0.10",
        "compat=1.1",
    ] {
        dw(dir, &format!("amend -o {options} ours.qcow2")).ok();
        let line = ["amend", "-f", "qcow2", "-o", options, "theirs.qcow2"];
        qemu.run_in(dir, &line).ok().unwrap();
        let [mut a, mut b] = [&ours, &theirs].map(|path| qemu.info("qcow2", path).unwrap());
        for info in [&mut a, &mut b] {
            // Where it is and how the host stores it.
            for key in [
                "filename",
                "actual-size",
                "children",
                "full-backing-filename",
            ] {
                info.as_object_mut().unwrap().remove(key);
            }
        }
        assert_eq!(a, b, "{options}");
        assert_eq!(qemu.check("qcow2", &ours).code, 0, "{options}");
    }
    assert!(qemu.same(("qcow2", &ours), ("qcow2", &theirs)).unwrap());
}

#[test]
fn a_vhdx_becomes_fixed_and_dynamic_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    dw(dir, "create -f vhdx -o block_size=1M a.vhdx 3M").ok();
    let subformat = || {
        let info = dw(dir, "info --output json a.vhdx").json();
        info["format-specific"]["data"]["subformat"]
            .as_str()
            .unwrap()
            .to_string()
    };
    let dynamic = fs::metadata(dir.join("a.vhdx")).unwrap().len();
    dw(dir, "amend -o subformat=fixed a.vhdx").ok();
    assert_eq!(subformat(), "fixed");
    assert!(fs::metadata(dir.join("a.vhdx")).unwrap().len() >= dynamic + 3 * MIB);
    dw(dir, "amend -o subformat=dynamic,size=5M a.vhdx").ok();
    assert_eq!(subformat(), "dynamic");
    assert_eq!(
        dw(dir, "info --output json a.vhdx").json()["virtual-size"],
        5 * MIB
    );
    dw(dir, "check -q a.vhdx").ok();
}

#[test]
fn what_cannot_be_amended_is_refused_and_the_image_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    dw(dir, "create -f qcow2 a.qcow2 4M").ok();
    dw(dir, "create -f vhdx a.vhdx 4M").ok();
    fs::write(dir.join("a.raw"), vec![1; 512]).unwrap();
    let before = ["a.qcow2", "a.vhdx"].map(|name| fs::read(dir.join(name)).unwrap());
    for (line, says) in [
        ("amend -o cluster_size=4k a.qcow2", "cannot be amended"),
        ("amend -o refcount_bits=3 a.qcow2", "a power of two"),
        ("amend -o compat=2.0 a.qcow2", "0.10 or 1.1"),
        ("amend -o backing_file=x a.qcow2", "rebase"),
        ("amend -o data_file=x a.qcow2", "no external data file"),
        ("amend -o size=1M a.qcow2", "--shrink"),
        ("amend -o subformat=thin a.vhdx", "fixed or dynamic"),
        ("amend -o compat=1.1 a.vhdx", "cannot be amended"),
        ("amend -f raw -o size=1M a.raw", "nothing to amend"),
    ] {
        let said = dw(dir, line).fails(1);
        assert!(said.contains(says), "{line}: {said}");
    }
    let after = ["a.qcow2", "a.vhdx"].map(|name| fs::read(dir.join(name)).unwrap());
    assert!(before == after);
}
