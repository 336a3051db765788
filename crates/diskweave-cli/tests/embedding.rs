//! `clone`, `fork` and `dependents`: children, and who needs what.

#![cfg(target_os = "linux")]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{MIB, dw, family, family_dir, names, save};
use testkit::counting::Canary;
use testkit::oracle::{QemuImg, QemuIo};
use testkit::vhdx_builder::{ParentLocator, VhdxBuilder, ids};

fn info(dir: &Path, image: &str) -> Value {
    dw(dir, &format!("info --output json {image}")).json()
}

/// `a` and `b` read the same.
fn same(dir: &Path, a: &str, b: &str) {
    assert_eq!(dw(dir, &format!("compare -q {a} {b}")).code, 0, "{a} {b}");
}

#[test]
fn a_clone_is_of_its_bases_format_or_of_the_one_that_is_said() {
    let dir = family_dir();
    let dir = dir.path();
    dw(dir, "convert -q -O raw base.vhdx base.raw").ok();
    dw(dir, "convert -q -O qcow2 base.vhdx base.qcow2").ok();
    for (base, said, made) in [
        ("base.vhdx", "", "vhdx"),
        ("child.vhdx", "", "vhdx"),
        ("base.raw", "", "qcow2"),
        ("base.qcow2", "", "qcow2"),
        ("base.vhdx", " -O qcow2", "qcow2"),
        ("base.raw", " -O vhdx", "vhdx"),
        ("base.qcow2", " -o cluster_size=4k", "qcow2"),
        ("base.raw", " -f raw -o cluster_size=4k", "qcow2"),
        ("base.vhdx", " -o block_size=2M", "vhdx"),
    ] {
        assert_eq!(dw(dir, &format!("clone{said} {base} new")).ok(), "");
        let told = info(dir, "new");
        assert_eq!(told["format"], made, "{base}{said}");
        if said.contains("cluster_size") {
            assert_eq!(told["cluster-size"], 4096);
        }
        if said.contains("block_size") {
            assert_eq!(told["format-specific"]["data"]["block-size"], 2 * MIB);
        }
        same(dir, base, "new");
        std::fs::remove_file(dir.join("new")).unwrap();
    }
    for line in [
        "clone base.vhdx child.vhdx",
        "clone --overwrite child.vhdx base.vhdx",
        "clone -O raw base.vhdx new",
        "clone -O qcow2 -o backing_file=other base.vhdx new",
        "clone -O qcow2 -o data_file=data base.vhdx new",
        "clone missing new",
    ] {
        let before = names(dir);
        dw(dir, line).fails(1);
        assert_eq!(names(dir), before, "{line}");
    }
    dw(dir, "clone --overwrite child.vhdx base.qcow2").ok();
    same(dir, "child.vhdx", "base.qcow2");
}

#[test]
fn qemu_reads_a_clone_and_a_fork_of_what_it_made() {
    let (Some(qemu), Some(io)) = (QemuImg::find(), QemuIo::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    qemu.create("qcow2", &disk, 8 * MIB, "").unwrap();
    let before = dir.path().join("before");
    qemu.to_raw("qcow2", &disk, &before).unwrap();
    let said = dw(dir.path(), "fork disk monday").ok();
    assert_eq!(said, "Image 'disk' is over 'monday' now.\n");
    let said = dw(dir.path(), "fork disk monday").ok();
    assert_eq!(
        said,
        "Image 'disk' is over 'monday' now, as it was already.\n"
    );
    dw(dir.path(), "clone disk clone").ok();
    for image in ["disk", "clone"] {
        let seen = dir.path().join("seen");
        qemu.to_raw("qcow2", &dir.path().join(image), &seen)
            .unwrap();
        assert!(std::fs::read(&seen).unwrap() == std::fs::read(&before).unwrap());
        let told = qemu.info("qcow2", &dir.path().join(image)).unwrap();
        assert_eq!(told["backing-filename-format"], "qcow2", "{image}");
    }
    let held = io.hold_writable("qcow2", &disk).unwrap();
    let complaint = dw(dir.path(), "fork disk tuesday").fails(1);
    assert!(complaint.contains("another process"), "{complaint}");
    drop(held);
}

#[test]
fn a_fork_keeps_what_the_disk_was_and_goes_on_in_a_child() {
    let dir = family_dir();
    let dir = dir.path();
    dw(dir, "convert -q -O raw child.vhdx before.raw").ok();
    dw(dir, "fork -q child.vhdx monday.vhdx").ok();
    same(dir, "child.vhdx", "before.raw");
    same(dir, "monday.vhdx", "before.raw");
    let told = info(dir, "child.vhdx");
    assert_eq!(told["backing-filename"], "monday.vhdx");
    let complaint = dw(dir, "fork child.vhdx base.vhdx").fails(1);
    assert!(complaint.contains("already"), "{complaint}");
    let complaint = dw(dir, "fork before.raw raw.base").fails(1);
    assert!(complaint.contains("format"), "{complaint}");
    dw(dir, "fork -q -f raw -O qcow2 before.raw raw.base").ok();
    assert_eq!(info(dir, "before.raw")["format"], "qcow2");
    same(dir, "before.raw", "monday.vhdx");
}

#[test]
fn dependents_exit_with_what_they_found() {
    let dir = family_dir();
    let dir = dir.path();
    dw(dir, "clone child.vhdx top.vhdx").ok();
    let said = dw(dir, "dependents top.vhdx");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        said.out,
        "independent  ./base.vhdx\nindependent  ./child.vhdx\n"
    );
    let said = dw(dir, "dependents --output json base.vhdx .");
    assert_eq!((said.code, &*said.err), (2, ""));
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        told,
        json!({
            "dependent": ["./child.vhdx", "./top.vhdx"],
            "independent": [],
            "unknown": [],
        })
    );
    std::fs::write(dir.join("x.vmdk"), b"KDMV\x01\0\0\0").unwrap();
    let said = dw(dir, "dependents top.vhdx");
    assert_eq!(said.code, 2, "doubt is no clearance");
    assert!(
        said.out.contains("unknown      ./x.vmdk: it looks like"),
        "{said:?}"
    );
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::copy(dir.join("child.vhdx"), dir.join("sub/child.vhdx")).unwrap();
    std::fs::remove_file(dir.join("x.vmdk")).unwrap();
    assert_eq!(dw(dir, "dependents top.vhdx").code, 0);
    let said = dw(dir, "dependents --recursive top.vhdx");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.out.contains("unknown      ./sub/child.vhdx: "),
        "{said:?}"
    );
    dw(dir, "dependents missing").fails(1);
    dw(dir, "dependents top.vhdx missing").fails(1);
}

/// The child that a stranger sent, whatever is done with it, leads to no file outside its directory.
#[test]
fn no_verb_for_embedders_opens_a_file_outside_the_images_directory() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let (base, _) = family();
    let canary = save(dir.path(), "canary.vhdx", &base);
    std::os::unix::fs::symlink(&canary, images.join("link.vhdx")).unwrap();
    let absolute = canary.to_str().unwrap();
    std::fs::write(images.join("there"), b"something").unwrap();
    dw(&images, "create -f qcow2 other.qcow2 1M").ok();
    for (n, name) in [r"..\canary.vhdx", "link.vhdx", absolute]
        .iter()
        .enumerate()
    {
        let locator = ParentLocator::relative(ids::DEFAULT_DATA_WRITE, name)
            .absolute_win32_path(name)
            .volume_path(name);
        let child = VhdxBuilder::new(4 * MIB).differencing(locator);
        save(&images, "child.vhdx", &child);
        let watch = Canary::watch(&canary);
        let clone = format!("clone child.vhdx clone{n}");
        dw(&images, &clone).ok();
        dw(&images, &format!("{clone}q -O qcow2")).ok();
        dw(&images, &format!("{clone}b -o block_size=2M")).ok();
        dw(&images, "clone --overwrite child.vhdx there").fails(1);
        dw(&images, &format!("fork child.vhdx base{n}")).ok();
        dw(&images, "map child.vhdx").fails(1);
        assert_eq!(dw(&images, "dependents other.qcow2").code, 2);
        assert_eq!(dw(&images, "dependents --recursive other.qcow2 .").code, 2);
        watch.assert_never_opened();
    }
    assert_eq!(std::fs::read(images.join("there")).unwrap(), b"something");
}
