//! `sections`.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{MIB, dirty, dw, family, family_dir, save};
use testkit::corpus::sha256_file;
use testkit::vhdx_builder::{Damage, Slot, VhdxBuilder, ids};

fn section(dir: &std::path::Path, file: &str, name: &str) -> Value {
    let text = dw(dir, &format!("sections {file} {name}")).ok();
    let json = dw(dir, &format!("sections --output json {file} {name}")).json();
    // People and programs are told the same: every key is a label of the text.
    labels(&json, &text);
    json
}

fn labels(value: &Value, text: &str) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                assert!(text.contains(&format!("{key}:")), "{key} is not in {text}");
                labels(value, text);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| labels(item, text)),
        Value::String(leaf) => assert!(text.contains(leaf.as_str()), "{leaf} is not in {text}"),
        _ => {}
    }
}

#[test]
fn both_headers_are_shown_and_which_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let image = VhdxBuilder::new(MIB)
        .header_sequences(7, 9)
        .damage_header(Slot::Second, Damage::Checksum);
    save(dir.path(), "disk", &image);
    let header = section(dir.path(), "disk", "header");
    assert_eq!(header["file-identifier"]["signature"], "vhdxfile");
    assert_eq!(
        header["file-identifier"]["creator"],
        "independent test image"
    );
    assert_eq!(header["current"], 1);
    let (first, second) = (&header["header-1"], &header["header-2"]);
    assert_eq!(
        (&first["valid"], &second["valid"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        (&first["offset"], &second["offset"]),
        (&"0x10000".into(), &"0x20000".into())
    );
    assert_eq!(
        (&first["sequence-number"], &second["sequence-number"]),
        (&7.into(), &9.into())
    );
    assert_eq!(first["checksum"], first["computed-checksum"]);
    assert_ne!(second["checksum"], second["computed-checksum"]);
    assert_eq!(
        first["file-write-guid"],
        ids::DEFAULT_FILE_WRITE.to_string()
    );
    assert_eq!(
        first["data-write-guid"],
        ids::DEFAULT_DATA_WRITE.to_string()
    );
    assert_eq!(
        (&first["version"], &first["log-version"]),
        (&1.into(), &0.into())
    );
    assert_eq!(
        (&first["log-length"], &first["log-offset"]),
        (&MIB.into(), &"0x100000".into())
    );
}

#[test]
fn region_tables_name_the_regions_and_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let image = VhdxBuilder::new(MIB).damage_region_table(Slot::First, Damage::Signature);
    save(dir.path(), "disk", &image);
    let layout = image.layout();
    let region = section(dir.path(), "disk", "region");
    assert_eq!(region["current"], 2);
    assert_eq!(region["region-table-1"]["valid"], false);
    let entries = region["region-table-2"]["entries"].as_array().unwrap();
    let entry = |guid: uuid::Uuid| {
        let mut entries = entries.iter();
        entries
            .find(|entry| entry["guid"] == guid.to_string())
            .unwrap()
    };
    let bat = entry(ids::BAT_REGION);
    assert_eq!(bat["file-offset"], format!("{:#x}", layout.bat_offset));
    assert_eq!(bat["length"], layout.bat_length);
    assert_eq!(bat["required"], true);
    let metadata = entry(ids::METADATA_REGION);
    assert_eq!(
        metadata["file-offset"],
        format!("{:#x}", layout.metadata_offset)
    );
}

#[test]
fn metadata_shows_entries_and_items_with_the_parent_locator() {
    let dir = family_dir();
    let metadata = section(dir.path(), "child.vhdx", "metadata");
    assert_eq!(metadata["signature"], "metadata");
    let entries = metadata["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 6, "five items and the locator");
    assert_eq!(metadata["entry-count"], 6);
    let items = &metadata["items"];
    assert_eq!(items["virtual-disk-size"], 4 * MIB);
    assert_eq!(items["virtual-disk-id"], ids::DEFAULT_DISK_ID.to_string());
    assert_eq!(items["file-parameters"]["has-parent"], true);
    assert_eq!(items["file-parameters"]["block-size"], MIB);
    assert_eq!(items["logical-sector-size"], 512);
    assert_eq!(
        items["parent-locator"]["entries"]["relative_path"],
        r".\base.vhdx"
    );
    let alone = section(dir.path(), "base.vhdx", "metadata");
    assert_eq!(alone["items"]["parent-locator"], Value::Null);
}

#[test]
fn the_bat_shows_every_entry_that_says_something() {
    let dir = family_dir();
    let (base, child) = family();
    let bat = section(dir.path(), "child.vhdx", "bat");
    assert_eq!(
        (&bat["chunk-ratio"], &bat["payload-blocks"]),
        (&4096.into(), &4.into())
    );
    assert_eq!(
        bat["entry-count"], 4097,
        "up to the bitmap of the last chunk"
    );
    let layout = child.layout();
    let entries: Vec<_> = bat["entries-not-zero"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            let index = entry["index"].as_u64().unwrap();
            (index, text("block"), text("state"), text("file-offset"))
        })
        .collect();
    let place = |offset: u64| format!("{offset:#x}");
    let expected = [
        (0, "payload", "partially present", place(layout.blocks[&0])),
        (1, "payload", "zero", place(0)),
        (4096, "sector-bitmap", "present", place(layout.bitmaps[&0])),
    ];
    let words = |text: &str| text.replace(['-', '_'], " ");
    assert_eq!(entries.len(), expected.len(), "{entries:?}");
    for (found, wanted) in entries.iter().zip(&expected) {
        assert_eq!((found.0, found.1.as_str()), (wanted.0, wanted.1));
        assert_eq!((words(&found.2).as_str(), &found.3), (wanted.2, &wanted.3));
    }
    let bat = section(dir.path(), "base.vhdx", "bat");
    assert_eq!(bat["entries-not-zero"].as_array().unwrap().len(), 3);
    assert_eq!(base.layout().blocks.len(), 3);
    save(dir.path(), "empty.vhdx", &VhdxBuilder::new(MIB));
    let none = dw(dir.path(), "sections empty.vhdx bat").ok();
    assert!(none.ends_with("entries-not-zero: none\n"), "{none}");
}

#[test]
fn the_log_shows_entries_and_what_they_would_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "dirty", &dirty());
    let before = sha256_file(&path);
    let log = section(dir.path(), "dirty", "log");
    assert_eq!(log["log-guid"], ids::DEFAULT_LOG.to_string());
    assert_eq!(log["active-entries"], 1);
    let entry = &log["entries"][0];
    assert_eq!(
        (&entry["signature"], &entry["valid"]),
        (&"loge".into(), &true.into())
    );
    assert_eq!(
        (&entry["active"], &entry["sequence-number"]),
        (&true.into(), &1.into())
    );
    let layout = dirty().layout();
    let written: Vec<&str> = entry["descriptors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|descriptor| descriptor["file-offset"].as_str().unwrap())
        .collect();
    assert!(
        written.contains(&format!("{:#x}", layout.bat_offset).as_str()),
        "{written:?}"
    );
    save(dir.path(), "clean", &VhdxBuilder::new(MIB));
    let clean = section(dir.path(), "clean", "log");
    assert_eq!(clean["active-entries"], 0);
    // The table of blocks is shown as it is after replay, unless as it lies on disk is wanted.
    let count = |line: &str| {
        let bat = dw(dir.path(), line).json();
        bat["entries-not-zero"].as_array().unwrap().len()
    };
    assert_eq!(count("sections --output json dirty bat"), 2);
    assert_eq!(
        count("sections --recovery ignore --output json dirty bat"),
        1
    );
    assert_eq!(sha256_file(&path), before);
}

#[test]
fn a_file_without_such_structures_is_refused_by_each_section() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("raw"), vec![0; 4 << 20]).unwrap();
    std::fs::write(dir.path().join("empty"), b"").unwrap();
    for name in ["header", "region", "metadata", "bat", "log"] {
        for file in ["raw", "empty", "gone"] {
            dw(dir.path(), &format!("sections {file} {name}")).fails(1);
        }
    }
    assert_eq!(dw(dir.path(), "sections raw nonsense").code, 1);
}
