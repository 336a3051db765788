//! What the command does to VHDX images in place: `resize`, `compact`, `check -r`, `relink`, and
//! `salvage` of what is beyond that.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use support::{MIB, dirty, dw, family, family_dir, pattern, save};
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::{Damage, Slot, VhdxBuilder, chain_disk};

fn flat(dir: &Path, image: &str) -> Vec<u8> {
    dw(dir, &format!("convert -O raw {image} flat")).ok();
    fs::read(dir.join("flat")).unwrap()
}

fn base() -> VhdxBuilder {
    family().0
}

#[test]
fn a_disk_takes_another_size_and_loses_its_end_only_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "a.vhdx", &base());
    let mut content = flat(dir.path(), "a.vhdx");
    assert_eq!(dw(dir.path(), "resize a.vhdx +3M").ok(), "Image resized.\n");
    let refused = dw(dir.path(), "resize a.vhdx 2M").fails(1);
    assert!(refused.contains("--shrink"), "{refused}");
    dw(dir.path(), "resize -q --shrink a.vhdx 1536K").ok();
    dw(dir.path(), "resize -q a.vhdx 4M").ok();
    content[1536 << 10..].fill(0);
    assert!(
        flat(dir.path(), "a.vhdx") == content,
        "what was cut off does not come back"
    );
    dw(dir.path(), "check -q a.vhdx").ok();
    if let Some(qemu) = QemuImg::find() {
        assert_eq!(qemu.info("vhdx", &path).unwrap()["virtual-size"], 4 * MIB);
        assert_eq!(qemu.check("vhdx", &path).code, 0);
    }
}

#[test]
fn a_disk_of_large_sectors_has_a_size_of_whole_ones() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "a.vhdx", &base().logical_sector_size(4096));
    dw(dir.path(), "resize -q a.vhdx 5000000").ok();
    let info = dw(dir.path(), "info --output json a.vhdx").json();
    assert_eq!(info["virtual-size"], 5_001_216);
}

#[test]
fn a_compacted_image_is_shorter_and_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let zeros = testkit::vhdx_builder::BlockContent::full(vec![0; 512]);
    let path = save(dir.path(), "a.vhdx", &base().block(2, zeros));
    let content = flat(dir.path(), "a.vhdx");
    let before = fs::metadata(&path).unwrap().len();
    let said = dw(dir.path(), "compact a.vhdx").ok();
    assert!(said.contains("1 blocks dropped"), "{said}");
    assert_eq!(fs::metadata(&path).unwrap().len(), before - MIB);
    assert!(flat(dir.path(), "a.vhdx") == content);
    let again = dw(dir.path(), "compact a.vhdx").ok();
    assert!(again.contains("0 blocks dropped, 0 moved"), "{again}");
    let refused = dw(dir.path(), "compact flat").fails(1);
    assert!(refused.contains("format raw"), "{refused}");
}

/// The parent is not needed for it, and need not be there.
#[test]
fn a_child_is_compacted_alone() {
    let dir = family_dir();
    let content = flat(dir.path(), "child.vhdx");
    let base = dir.path().join("base.vhdx");
    fs::rename(&base, dir.path().join("away")).unwrap();
    dw(dir.path(), "compact -q child.vhdx").ok();
    fs::rename(dir.path().join("away"), &base).unwrap();
    assert!(flat(dir.path(), "child.vhdx") == content);
}

#[test]
fn a_damaged_image_is_repaired_and_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let sound = base();
    save(dir.path(), "sound.vhdx", &sound);
    let mut content = flat(dir.path(), "sound.vhdx");
    save(dir.path(), "a.vhdx", &base().raw_bat(0, (900 << 20) | 6));
    dw(dir.path(), "check a.vhdx")
        .code
        .eq(&2)
        .then_some(())
        .unwrap();
    let said = dw(dir.path(), "check -r all a.vhdx").ok();
    assert!(said.contains("1 corruptions"), "{said}");
    assert!(said.contains("No errors were found"), "{said}");
    dw(dir.path(), "check a.vhdx").ok();
    content[..1 << 20].fill(0);
    assert!(flat(dir.path(), "a.vhdx") == content);

    save(dir.path(), "dirty.vhdx", &dirty());
    let content = flat(dir.path(), "dirty.vhdx");
    dw(dir.path(), "check -q -r leaks dirty.vhdx").ok();
    dw(dir.path(), "check -q -r all dirty.vhdx").ok();
    assert!(flat(dir.path(), "dirty.vhdx") == content);
    let info = dw(dir.path(), "info --output json dirty.vhdx").json();
    assert_eq!(info["dirty-flag"], false);
}

#[test]
fn a_parent_that_moved_is_relinked() {
    let dir = family_dir();
    let content = flat(dir.path(), "child.vhdx");
    fs::create_dir(dir.path().join("moved")).unwrap();
    fs::rename(
        dir.path().join("base.vhdx"),
        dir.path().join("moved/parent.vhdx"),
    )
    .unwrap();
    dw(dir.path(), "convert -O raw child.vhdx flat").fails(1);
    let said = dw(dir.path(), "relink child.vhdx moved/parent.vhdx").ok();
    assert_eq!(said, "Image refers to 'moved/parent.vhdx'.\n");
    assert!(flat(dir.path(), "child.vhdx") == content);
    // Names that are right already may be said again.
    dw(dir.path(), "relink -q child.vhdx").ok();
    assert!(flat(dir.path(), "child.vhdx") == content);

    // Another disk is not taken for the parent, unless that is asked for.
    save(
        dir.path(),
        "other.vhdx",
        &base().data_write_guid(uuid::Uuid::from_u128(99)),
    );
    let refused = dw(dir.path(), "relink child.vhdx other.vhdx").fails(1);
    assert!(refused.contains("--any-parent"), "{refused}");
    dw(dir.path(), "relink -q --any-parent child.vhdx other.vhdx").ok();
    assert!(
        flat(dir.path(), "child.vhdx") == content,
        "it holds the same bytes"
    );
    let refused = dw(dir.path(), "relink moved/parent.vhdx ../other.vhdx").fails(1);
    assert!(refused.contains("no parent"), "{refused}");
}

#[test]
fn what_is_left_of_a_damaged_image_is_salvaged() {
    let dir = family_dir();
    let (parent, child) = family();
    let content = chain_disk(&[&child, &parent]);
    let both = |image: VhdxBuilder| {
        let first = image.damage_region_table(Slot::First, Damage::Checksum);
        first.damage_region_table(Slot::Second, Damage::Checksum)
    };
    save(dir.path(), "broken.vhdx", &both(family().1));
    dw(dir.path(), "convert -O raw --salvage broken.vhdx flat").fails(1);
    dw(dir.path(), "salvage -O raw broken.vhdx flat").ok();
    assert!(fs::read(dir.path().join("flat")).unwrap() == content);

    // A block past the end: what is not there is zeros, and is told.
    save(
        dir.path(),
        "cut.vhdx",
        &VhdxBuilder::new(4 * MIB)
            .block_size(1 << 20)
            .block(0, pattern(1)),
    );
    let path = dir.path().join("cut.vhdx");
    let whole = flat(dir.path(), "cut.vhdx");
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - (MIB / 2))
        .unwrap();
    let said = dw(dir.path(), "salvage -f vhdx -O raw cut.vhdx flat");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("524288 bytes at 524288 cannot be read"),
        "{said:?}"
    );
    let seen = fs::read(dir.path().join("flat")).unwrap();
    assert!(seen[..512 << 10] == whole[..512 << 10]);
    assert!(seen[512 << 10..].iter().all(|byte| *byte == 0));
}
