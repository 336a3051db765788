//! `create -f vhdx -b` and `convert -O vhdx -B`: VHDX children over VHDX and over other formats.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{MIB, dw, family, names, save};
use testkit::oracle::{Libvhdi, QemuImg, VhdiInfo};
use testkit::vhdx_builder::{VhdxBuilder, chain_disk};

/// A directory with `base.vhdx`, and with its disk as `base.raw` and, where QEMU is, `base.qcow2`.
fn bases() -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (base, _) = family();
    save(dir.path(), "base.vhdx", &base);
    let disk = chain_disk(&[&base]);
    std::fs::write(dir.path().join("base.raw"), &disk).unwrap();
    dw(dir.path(), "convert -q -O qcow2 base.vhdx base.qcow2").ok();
    (dir, disk)
}

fn info(dir: &Path, image: &str) -> Value {
    dw(dir, &format!("info --output json {image}")).json()
}

/// The disk of `image` as it is read with the default policy.
fn disk(dir: &Path, image: &str) -> Vec<u8> {
    dw(dir, &format!("convert -q -O raw {image} read.raw")).ok();
    std::fs::read(dir.join("read.raw")).unwrap()
}

#[test]
fn a_child_over_a_vhdx_says_who_and_where_its_parent_is() {
    let (dir, content) = bases();
    let dir = dir.path();
    dw(dir, "create -f vhdx -b base.vhdx child.vhdx").ok();
    let told = info(dir, "child.vhdx");
    let parent = info(dir, "base.vhdx");
    assert_eq!(told["virtual-size"], 4 * MIB);
    assert_eq!(told["backing-filename"], "base.vhdx");
    assert_eq!(told["backing-filename-format"], "vhdx");
    let (facts, parents) = (
        &told["format-specific"]["data"],
        &parent["format-specific"]["data"],
    );
    assert_eq!(facts["subformat"], "differencing");
    for inherited in [
        "block-size",
        "logical-sector-size",
        "physical-sector-size",
        "virtual-disk-id",
    ] {
        assert_eq!(facts[inherited], parents[inherited], "{inherited}");
    }
    let locator = &facts["parent-locator"];
    assert_eq!(locator["type"], "b04aefb7-d19e-4a81-b789-25b8e9445913");
    let linkage = format!("{{{}}}", parents["data-write-guid"].as_str().unwrap());
    assert_eq!(locator["entries"]["parent_linkage"], linkage.as_str());
    let absolute = std::fs::canonicalize(dir.join("base.vhdx")).unwrap();
    assert_eq!(
        locator["entries"]["absolute_win32_path"],
        absolute.to_str().unwrap()
    );
    assert_eq!(locator["entries"]["relative_path"], "base.vhdx");
    assert_eq!(locator["entries"].as_object().unwrap().len(), 3);
    let human = dw(dir, "info child.vhdx").ok();
    assert!(human.contains("backing file: base.vhdx"), "{human}");
    assert!(human.contains("subformat: differencing"), "{human}");
    assert!(disk(dir, "child.vhdx") == content);
    assert_eq!(dw(dir, "check -q child.vhdx").code, 0);

    // As another reader sees it.
    let Some(vhdi) = VhdiInfo::find() else { return };
    let seen = vhdi.info(&dir.join("child.vhdx")).unwrap();
    let field = |name: &str| {
        let mut all = seen.iter();
        all.find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .unwrap()
    };
    assert_eq!(field("Disk type"), "Differential");
    assert_eq!(format!("{{{}}}", field("Parent identifier")), linkage);
    assert_eq!(field("Parent filename"), absolute.to_str().unwrap());
}

#[test]
fn options_of_a_child() {
    let (dir, content) = bases();
    let dir = dir.path();
    let options = "subformat=differencing,block_size=8M,log_size=2M,logical_sector_size=512,\
                   physical_sector_size=512,data_write_guid=5e9b69e7-d1a9-4d4c-9893-977956436a04";
    dw(
        dir,
        &format!("create -f vhdx -F vhdx -b base.vhdx -o {options} child.vhdx 6M"),
    )
    .ok();
    let told = info(dir, "child.vhdx");
    let facts = &told["format-specific"]["data"];
    assert_eq!(told["virtual-size"], 6 * MIB);
    assert_eq!(facts["block-size"], 8 * MIB);
    assert_eq!(facts["log-size"], 2 * MIB);
    assert_eq!(
        facts["data-write-guid"],
        "5e9b69e7-d1a9-4d4c-9893-977956436a04"
    );
    let mut expected = content;
    expected.resize(6 << 20, 0);
    assert!(disk(dir, "child.vhdx") == expected);
    // Shorter than the parent.
    dw(dir, "create -f vhdx -b base.vhdx child.vhdx 1M").ok();
    assert!(disk(dir, "child.vhdx") == expected[..1 << 20]);
}

#[test]
fn what_cannot_be_a_child_is_refused_and_leaves_nothing() {
    let (dir, _) = bases();
    let dir = dir.path();
    let before = names(dir);
    for (line, told) in [
        ("-o subformat=differencing child 1M", "-b"),
        (
            "-b base.vhdx -o subformat=fixed child",
            "differencing, not fixed",
        ),
        (
            "-b base.vhdx -o subformat=dynamic child",
            "differencing, not dynamic",
        ),
        (
            "-b base.vhdx -o subformat=sparse child",
            "expected dynamic, fixed or differencing",
        ),
        (
            "-b base.vhdx -o logical_sector_size=4096 child",
            "LogicalSectorSize is 4096 over a parent of 512",
        ),
        (
            "-b base.vhdx -o physical_sector_size=4k child",
            "PhysicalSectorSize",
        ),
        ("-b base.vhdx -o block_size=3M child", "BlockSize"),
        ("-b base.raw child", "not a VHDX file"),
        ("-b base.vhdx -F qcow2 child", "qcow2"),
        ("-b base.vhdx -F vmdk child", "vmdk"),
        ("-F vhdx child 1M", "no backing file"),
        ("-b gone.vhdx child", "gone.vhdx"),
        ("-u -b base.vhdx child 1M", "identity"),
        ("-u -b gone.raw -F raw child 1M", "identity"),
        ("-b base.vhdx base.vhdx", "read from"),
    ] {
        let refused = dw(dir, &format!("create -f vhdx {line}")).fails(1);
        assert!(refused.contains(told), "{line}: {refused}");
        assert_eq!(names(dir), before, "{line}");
    }
}

#[test]
fn the_name_of_the_parent_starts_from_the_childs_directory() {
    let (dir, content) = bases();
    let dir = dir.path();
    std::fs::create_dir(dir.join("sub")).unwrap();
    dw(dir, "create -f vhdx -b ../base.vhdx sub/child.vhdx").ok();
    let absolute = std::fs::canonicalize(dir.join("base.vhdx")).unwrap();
    let line = format!(
        "create -f vhdx -b {} sub/by-absolute.vhdx",
        absolute.display()
    );
    dw(dir, &line).ok();
    for child in ["sub/child.vhdx", "sub/by-absolute.vhdx"] {
        let entries = &info(dir, child)["format-specific"]["data"]["parent-locator"]["entries"];
        assert_eq!(entries["relative_path"], r"..\base.vhdx", "{child}");
        assert_eq!(
            entries["absolute_win32_path"],
            absolute.to_str().unwrap(),
            "{child}"
        );
        // Above the child's directory is not where a stranger's image may lead.
        dw(dir, &format!("convert -q {child} read.raw")).fails(1);
        let line = format!("convert -q --parents any -O raw {child} read.raw");
        dw(dir, &line).ok();
        assert!(std::fs::read(dir.join("read.raw")).unwrap() == content);
    }
    // Moved together, they find each other.
    std::fs::rename(dir.join("sub"), dir.join("other")).unwrap();
    dw(
        dir,
        "compare --parents any -F vhdx other/child.vhdx base.vhdx",
    )
    .ok();
    // And by the absolute name alone.
    std::fs::create_dir_all(dir.join("a/b")).unwrap();
    std::fs::rename(dir.join("other/child.vhdx"), dir.join("a/b/child.vhdx")).unwrap();
    dw(dir, "compare --parents any a/b/child.vhdx base.vhdx").ok();
}

#[test]
fn a_child_over_another_format_opens_by_itself_and_is_for_no_other_reader() {
    let (dir, content) = bases();
    let dir = dir.path();
    for format in ["raw", "qcow2"] {
        let base = format!("base.{format}");
        dw(
            dir,
            &format!("create -f vhdx -b {base} -F {format} child.vhdx"),
        )
        .ok();
        assert!(disk(dir, "child.vhdx") == content, "{format}");
        let told = info(dir, "child.vhdx");
        assert_eq!(told["backing-filename-format"], format);
        let entries = &told["format-specific"]["data"]["parent-locator"]["entries"];
        assert_eq!(entries["parent_format"], format);
        assert_eq!(entries["relative_path"], base.as_str());
        let absolute = std::fs::canonicalize(dir.join(&base)).unwrap();
        assert_eq!(entries["absolute_path"], absolute.to_str().unwrap());
        assert_eq!(entries.as_object().unwrap().len(), 4);
        let human = dw(dir, "info child.vhdx").ok();
        assert!(
            human.contains(&format!("backing file format: {format}\n")),
            "{human}"
        );
        let checked = dw(dir, "check child.vhdx").ok();
        assert!(checked.contains("extension"), "{checked}");

        let refused = dw(dir, "info --strict-format child.vhdx").fails(1);
        assert!(refused.contains("extension"), "{refused}");
        if let Some(vhdi) = VhdiInfo::find() {
            let refused = vhdi.info(&dir.join("child.vhdx")).unwrap_err();
            assert!(refused.contains("type indicator"), "{refused}");
        }
        if let Some(vhdi) = Libvhdi::find() {
            let child = dir.join("child.vhdx");
            vhdi.sha256(&[&child]).unwrap_err();
        }
        if let Some(qemu) = QemuImg::find() {
            qemu.info("vhdx", &dir.join("child.vhdx")).unwrap_err();
        }

        // A child of the child, which is VHDX over VHDX.
        dw(dir, "create -f vhdx -b child.vhdx top.vhdx").ok();
        assert!(disk(dir, "top.vhdx") == content);

        // Written to: one byte, by whatever means.
        let mut bytes = std::fs::read(dir.join(&base)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(dir.join(&base), bytes).unwrap();
        let refused = dw(dir, "convert -q child.vhdx read.raw").fails(1);
        assert!(refused.contains("was written to"), "{refused}");
        assert!(refused.contains("--any-parent"), "{refused}");
        dw(dir, "convert -q --any-parent -O raw child.vhdx read.raw").ok();
    }
}

#[test]
fn a_parent_whose_data_is_in_a_file_beside_it_gets_no_child() {
    let (dir, _) = bases();
    let dir = dir.path();
    dw(
        dir,
        "convert -q -O qcow2 -o data_file=data base.raw split.qcow2",
    )
    .ok();
    let refused = dw(dir, "create -f vhdx -b split.qcow2 -F qcow2 child.vhdx").fails(1);
    assert!(refused.contains("could not be noticed"), "{refused}");
    assert!(!dir.join("child.vhdx").exists());
}

#[test]
fn converting_over_a_backing_file_stores_what_differs() {
    let (dir, content) = bases();
    let dir = dir.path();
    let mut changed = content;
    changed[5000] ^= 1;
    changed[1 << 20..2 << 20].fill(0);
    changed[(3 << 20) + 512..][..3000].fill(7);
    changed.extend(vec![0; 3000]);
    std::fs::write(dir.join("changed.raw"), &changed).unwrap();
    changed.resize(changed.len().next_multiple_of(512), 0);
    for (base, format) in [
        ("base.vhdx", "vhdx"),
        ("base.raw", "raw"),
        ("base.qcow2", "qcow2"),
    ] {
        let line = format!(
            "convert -q -f raw -O vhdx -B {base} -F {format} -o block_size=1M changed.raw child.vhdx"
        );
        dw(dir, &line).ok();
        assert!(disk(dir, "child.vhdx") == changed, "{format}");
        let bat = dw(dir, "sections --output json child.vhdx bat")
            .json()
            .to_string();
        for state in ["zero", "partially-present"] {
            assert!(bat.contains(state), "{bat}");
        }
        let len = std::fs::metadata(dir.join("child.vhdx")).unwrap().len();
        // Headers, log, metadata, BAT; two blocks and their bitmap.
        assert_eq!(len, 7 * MIB, "{format}");
        assert_eq!(dw(dir, "check -q child.vhdx").code, 0);
    }
    let refused = dw(dir, "convert -q -O vhdx -B base.raw changed.raw other.vhdx").fails(1);
    assert!(refused.contains("not a VHDX file"), "{refused}");
    assert!(!dir.join("other.vhdx").exists());
}

#[test]
fn a_child_of_a_parent_with_large_sectors_has_them_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let base = VhdxBuilder::new(4 * MIB)
        .logical_sector_size(4096)
        .physical_sector_size(4096)
        .block(1, support::pattern(5));
    save(dir, "base.vhdx", &base);
    std::fs::write(dir.join("zeros.raw"), vec![0; 4 << 20]).unwrap();
    for line in [
        "create -f vhdx -b base.vhdx child.vhdx",
        "convert -q -f raw -O vhdx -B base.vhdx zeros.raw child.vhdx",
    ] {
        dw(dir, line).ok();
        let told = info(dir, "child.vhdx");
        assert_eq!(told["format-specific"]["data"]["logical-sector-size"], 4096);
        dw(dir, "chain child.vhdx").ok();
    }
    assert!(disk(dir, "child.vhdx").iter().all(|byte| *byte == 0));
}
