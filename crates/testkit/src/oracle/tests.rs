use super::*;
use crate::corpus::{corpus, sha256_file};

#[test]
fn qemu_img_reads_judges_and_compares() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    let record = corpus.get("vhdx-own-basic");
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    qemu.to_raw("vhdx", &record.path(), &raw).unwrap();
    assert_eq!(Some(sha256_file(&raw)), record.sha256_virtual);
    let info = qemu.info("vhdx", &record.path()).unwrap();
    assert_eq!(info["virtual-size"].as_u64(), record.virtual_size);
    let map = qemu.map("vhdx", &record.path()).unwrap();
    assert!(!map.as_array().unwrap().is_empty());
    assert_eq!(qemu.check("vhdx", &record.path()).code, 0);
    let same = |a: &Path, b: &Path| qemu.same(("vhdx", a), ("raw", b)).unwrap();
    assert!(same(&record.path(), &raw));
    std::fs::write(&raw, vec![9; 9 << 20]).unwrap();
    assert!(!same(&record.path(), &raw));
    let bad = corpus.get("vhdx-bad-signature");
    assert!(qemu.info("vhdx", &bad.path()).is_err());
}

#[test]
fn qemu_repairs_a_copy_with_a_dirty_log() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    let record = corpus.get("vhdx-log-bat-update");
    let dir = tempfile::tempdir().unwrap();
    let copy = record.copy_to(dir.path());
    let raw = dir.path().join("raw");
    assert!(qemu.to_raw("vhdx", &copy, &raw).is_err(), "log not empty");
    assert_eq!(qemu.repair("vhdx", &copy).code, 0);
    qemu.to_raw("vhdx", &copy, &raw).unwrap();
    assert_eq!(Some(sha256_file(&raw)), record.sha256_virtual);
    record.assert_unharmed();
}

#[test]
fn qemu_io_holds_an_image_for_as_long_as_it_is_told() {
    let (Some(io), Some(img)) = (QemuIo::find(), QemuImg::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.vhdx");
    img.create("vhdx", &image, 8 << 20, "block_size=1M")
        .unwrap();
    let held = io.hold_writable("vhdx", &image).unwrap();
    assert!(img.info("vhdx", &image).is_err(), "it is locked");
    assert!(io.hold_writable("vhdx", &image).is_err());
    drop(held);
    let first = io.hold_read_only("vhdx", &image).unwrap();
    let second = io.hold_read_only("vhdx", &image).unwrap();
    assert_ne!(first.pid(), second.pid());
    assert!(io.hold_writable("vhdx", &image).is_err());
    first.kill();
    drop(second);
    let seen = io
        .run("vhdx", &image, &["write -P 0x5a 0 4k", "read -P 0x5a 0 4k"])
        .unwrap();
    assert!(seen.contains("read 4096/4096"), "{seen}");
    let complaint = io.hold_read_only("vhdx", &dir.path().join("gone"));
    assert!(complaint.unwrap_err().contains("gone"));
}

#[test]
fn libvhdi_reads_chains() {
    let (Some(corpus), Some(vhdi)) = (corpus(), Libvhdi::find()) else {
        return;
    };
    let basic = corpus.get("vhdx-own-basic");
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    let (size, hash) = vhdi.dump(&[&basic.path()], &raw).unwrap();
    assert_eq!(Some(size), basic.virtual_size);
    assert_eq!(Some(&hash), basic.sha256_virtual.as_ref());
    assert_eq!(sha256_file(&raw), hash);
    let child = corpus.get("vhdx-diff-lss4096");
    if child.readers.iter().any(|reader| reader == "libvhdi") {
        let parent = child.dir().join("base.vhdx");
        let (_, hash) = vhdi.sha256(&[&child.path(), &parent]).unwrap();
        assert_eq!(Some(hash), child.sha256_virtual);
    }
    let bad = corpus.get("vhdx-bad-signature");
    assert!(vhdi.sha256(&[&bad.path()]).is_err());
    let Some(info) = VhdiInfo::find() else { return };
    let fields = info.info(&child.path()).unwrap();
    let disk_type = fields.iter().find(|(name, _)| name == "Disk type");
    assert_eq!(disk_type.unwrap().1, "Differential");
}

#[test]
fn seven_zip_reads_a_child_with_its_parent() {
    let (Some(corpus), Some(zip)) = (corpus(), SevenZip::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    for id in ["vhdx-own-basic", "vhdx-diff-2"] {
        let record = corpus.get(id);
        zip.to_raw(&record.path(), &raw).unwrap();
        assert_eq!(Some(sha256_file(&raw)), record.sha256_virtual, "{id}");
    }
    let dirty = corpus.get("vhdx-log-bat-update");
    assert!(zip.to_raw(&dirty.path(), &raw).is_err());
    let list = zip.list(&corpus.get("vhdx-own-basic").path()).unwrap();
    assert!(list.contains("BlockSize: 2097152"), "{list}");
}
