//! `chain`, and what the choice of parents means for every command.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{MIB, dw, family, family_dir, save};
use testkit::vhdx_builder::{ParentLocator, VhdxBuilder, ids};

#[test]
fn a_tree_shows_each_layer_its_identity_and_how_it_was_found() {
    let dir = family_dir();
    let text = dw(dir.path(), "chain child.vhdx").ok();
    let lines: Vec<&str> = text.lines().collect();
    let guid = ids::DEFAULT_DATA_WRITE;
    let child = uuid::Uuid::from_u128(guid.as_u128() + 1);
    assert_eq!(lines[0], format!("child.vhdx  vhdx  4 MiB  {{{child}}}"));
    let parent =
        format!(r#"└─ ./base.vhdx  vhdx  4 MiB  {{{guid}}}  found by relative ".\base.vhdx""#);
    assert_eq!(lines[1..], [parent]);
    let json = dw(dir.path(), "chain --output json child.vhdx").json();
    assert_eq!(json["complete"], true);
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    assert_eq!(
        (&layers[0]["depth"], &layers[0]["found-by"]),
        (&0.into(), &"given".into())
    );
    let parent = &layers[1];
    assert_eq!(
        (&parent["found-by"], &parent["name"]),
        (&"relative".into(), &r".\base.vhdx".into())
    );
    assert_eq!(parent["content-id"], guid.to_string());
    assert_eq!(parent["virtual-size"], 4 * MIB);
}

#[test]
fn a_missing_parent_is_shown_by_every_name_it_has_and_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let locator = ParentLocator::relative(ids::DEFAULT_DATA_WRITE, r".\gone.vhdx")
        .absolute_win32_path(r"C:\images\gone.vhdx");
    save(
        dir.path(),
        "child.vhdx",
        &VhdxBuilder::new(MIB).differencing(locator),
    );
    let said = dw(dir.path(), "chain child.vhdx");
    let not_open = r#"└─ not open: relative ".\gone.vhdx", absolute "C:\images\gone.vhdx""#;
    assert!(said.out.contains(not_open), "{said:?}");
    let complaint = said.fails(1);
    assert!(complaint.contains("gone.vhdx"), "{complaint}");
    let said = dw(dir.path(), "chain --output json child.vhdx");
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["complete"], false);
    said.fails(1);
    // Not asked for, it is not missed.
    let alone = dw(dir.path(), "chain --parents none child.vhdx").ok();
    assert!(alone.contains("not open"), "{alone}");
}

#[test]
fn a_parent_of_other_content_is_refused_with_the_way_out() {
    let dir = family_dir();
    let (base, _) = family();
    let other = uuid::Uuid::from_u128(5);
    save(dir.path(), "base.vhdx", &base.data_write_guid(other));
    for line in [
        "map child.vhdx",
        "convert child.vhdx raw",
        "chain child.vhdx",
        "info --backing-chain child.vhdx",
    ] {
        let complaint = dw(dir.path(), line).fails(1);
        assert!(
            complaint.contains(&other.to_string()),
            "{line}: {complaint}"
        );
        assert!(complaint.contains("--any-parent"), "{line}: {complaint}");
    }
    dw(dir.path(), "convert --any-parent child.vhdx raw").ok();
}

#[test]
fn parents_elsewhere_need_a_word_from_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let (base, _) = family();
    save(dir.path(), "base.vhdx", &base);
    save(
        &images,
        "child.vhdx",
        &VhdxBuilder::child_of(&base, r"..\base.vhdx"),
    );
    for line in [
        "map child.vhdx",
        "convert child.vhdx raw",
        "chain child.vhdx",
        "info --backing-chain child.vhdx",
    ] {
        let complaint = dw(&images, line).fails(1);
        assert!(complaint.contains("--parents any"), "{line}: {complaint}");
        assert!(complaint.contains("base.vhdx"), "{line}: {complaint}");
        let (verb, rest) = line.split_once(' ').unwrap();
        dw(&images, &format!("{verb} --parents any {rest}")).ok();
    }
    let complaint = dw(&images, "compare child.vhdx child.vhdx").fails(2);
    assert!(complaint.contains("--parents any"), "{complaint}");
    // From above, by a path: the directory that counts is the image's.
    dw(dir.path(), "map images/child.vhdx").fails(1);
    dw(dir.path(), "map --parents any images/child.vhdx").ok();
    let complaint = dw(&images, "convert --parents none child.vhdx raw2").fails(1);
    assert!(complaint.contains("parent"), "{complaint}");
}

#[test]
fn errors_name_structure_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let image = VhdxBuilder::new(4 * MIB).raw_bat(2, (77 << 20) | 6);
    let entry = image.layout().bat_entry_offset(2);
    save(dir.path(), "disk.vhdx", &image);
    for line in ["convert disk.vhdx raw", "map disk.vhdx"] {
        let complaint = dw(dir.path(), line).fails(1);
        let place = format!("BAT entry at {entry:#x}: ");
        assert!(complaint.contains(&place), "{line}: {complaint}");
        assert!(
            complaint.starts_with("diskweave: 'disk.vhdx'"),
            "{complaint}"
        );
    }
}
