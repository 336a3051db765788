//! `info`.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;

use serde_json::Value;
use support::{MIB, dirty, dw, family_dir, run, save};
use testkit::corpus::{Verdict, corpus};
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::{ParentLocator, VhdxBuilder, ids};

/// Every key of `theirs` is in `ours` with the same value; `ours` may have more.
fn covers(ours: &Value, theirs: &Value, at: &str) {
    match theirs {
        Value::Object(fields) => {
            for (key, value) in fields {
                let ours = ours.get(key);
                let ours = ours.unwrap_or_else(|| panic!("{at}: no {key:?}"));
                covers(ours, value, &format!("{at}/{key}"));
            }
        }
        Value::Array(items) => {
            assert_eq!(ours.as_array().map(Vec::len), Some(items.len()), "{at}");
            for (n, item) in items.iter().enumerate() {
                covers(&ours[n], item, &format!("{at}/{n}"));
            }
        }
        plain => assert_eq!(ours, plain, "{at}"),
    }
}

#[test]
fn json_has_every_key_and_value_of_qemu_img() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    let mut compared = 0;
    for record in corpus
        .of_format("raw")
        .into_iter()
        .chain(corpus.of_format("vhdx"))
    {
        let by_qemu = |reader: &String| reader.starts_with("qemu-img");
        let read = record.format == "raw" || record.readers.iter().any(by_qemu);
        // QEMU does not look into a dirty image, and counts raw disks in sectors.
        let odd = record.virtual_size.is_some_and(|size| size % 512 != 0);
        if record.expect.result != Verdict::Ok || !read || record.log_replay || odd {
            continue;
        }
        let theirs = qemu.info(&record.format, &record.path()).unwrap();
        let path = record.path();
        let path = path.to_str().unwrap();
        let ours = run(
            &record.dir(),
            &["info", "-f", &record.format, "--output=json", path],
        );
        covers(&ours.json(), &theirs, &record.id);
        compared += 1;
    }
    assert!(compared >= 25, "{compared}");
}

#[test]
fn text_is_that_of_qemu_img_with_the_facts_of_the_format_added() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    for format in ["raw", "vhdx"] {
        let path = dir.path().join(format);
        qemu.create(format, &path, 5 * MIB, "").unwrap();
        let theirs = qemu.run(&["info".as_ref(), path.as_os_str()]);
        let ours = run(dir.path(), &["info".as_ref(), path.as_os_str()]).ok();
        let mut ours: Vec<&str> = ours.lines().collect();
        if let Some(from) = ours
            .iter()
            .position(|line| line.starts_with("Format specific"))
        {
            let facts = ours.split_off(from);
            let to = facts
                .iter()
                .position(|line| line.starts_with("Child"))
                .unwrap();
            assert!(facts.contains(&"    subformat: dynamic"), "{facts:?}");
            ours.extend(&facts[to..]);
        }
        let theirs = String::from_utf8(theirs.ok().unwrap()).unwrap();
        assert_eq!(ours, theirs.lines().collect::<Vec<_>>());
    }
}

#[test]
fn a_vhdx_tells_its_guids_sectors_log_and_parent() {
    let dir = family_dir();
    let info = dw(dir.path(), "info --output json child.vhdx").json();
    let facts = &info["format-specific"]["data"];
    assert_eq!(info["format-specific"]["type"], "vhdx");
    for (key, value) in [
        ("subformat", Value::from("differencing")),
        ("creator", "independent test image".into()),
        ("block-size", MIB.into()),
        ("logical-sector-size", 512.into()),
        ("physical-sector-size", 512.into()),
        ("virtual-disk-id", ids::DEFAULT_DISK_ID.to_string().into()),
        ("log-state", "empty".into()),
        ("log-size", MIB.into()),
    ] {
        assert_eq!(facts[key], value, "{key}");
    }
    let after = |guid: uuid::Uuid| uuid::Uuid::from_u128(guid.as_u128() + 1).to_string();
    assert_eq!(facts["data-write-guid"], after(ids::DEFAULT_DATA_WRITE));
    assert_eq!(facts["file-write-guid"], after(ids::DEFAULT_FILE_WRITE));
    let locator = &facts["parent-locator"];
    assert_eq!(locator["type"], ids::VHDX_LOCATOR_TYPE.to_string());
    assert_eq!(locator["entries"]["relative_path"], r".\base.vhdx");
    let linkage = format!("{{{}}}", ids::DEFAULT_DATA_WRITE);
    assert_eq!(locator["entries"]["parent_linkage"], linkage);
    assert_eq!(info["backing-filename"], r".\base.vhdx");
    assert_eq!(info["backing-filename-format"], "vhdx");
    let text = dw(dir.path(), "info child.vhdx").ok();
    assert!(text.contains("\nbacking file: .\\base.vhdx\n"), "{text}");
    assert!(text.contains("\nbacking file format: vhdx\n"), "{text}");
}

#[test]
fn the_backing_chain_is_told_from_the_top_down() {
    let dir = family_dir();
    let chain = dw(dir.path(), "info --backing-chain --output json child.vhdx").json();
    let names = |chain: &Value| {
        let images = chain.as_array().unwrap();
        let names = images
            .iter()
            .map(|image| image["filename"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&chain), ["child.vhdx", "./base.vhdx"]);
    assert_eq!(chain[0]["full-backing-filename"], "./base.vhdx");
    let text = dw(dir.path(), "info --backing-chain child.vhdx").ok();
    assert!(text.contains("(actual path: ./base.vhdx)"), "{text}");
    assert!(text.contains("\n\nimage: ./base.vhdx\n"), "{text}");
    // What is above a missing parent is told before the complaint.
    std::fs::remove_file(dir.path().join("base.vhdx")).unwrap();
    let said = dw(dir.path(), "info --backing-chain --output json child.vhdx");
    let chain: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(names(&chain), ["child.vhdx"]);
    assert!(said.fails(1).contains("base.vhdx"));
    // Alone it needs no parent.
    dw(dir.path(), "info child.vhdx").ok();
}

#[test]
fn an_unclean_image_says_so_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "dirty.vhdx", &dirty());
    let before = testkit::corpus::sha256_file(&path);
    let info = dw(dir.path(), "info --output json dirty.vhdx").json();
    assert_eq!(info["dirty-flag"], true);
    let facts = &info["format-specific"]["data"];
    assert_eq!(facts["log-state"], "replayed in memory");
    assert_eq!(facts["log-guid"], ids::DEFAULT_LOG.to_string());
    let text = dw(dir.path(), "info dirty.vhdx").ok();
    assert!(text.contains("\ncleanly shut down: no\n"), "{text}");
    let ignored = dw(
        dir.path(),
        "info --recovery ignore --output json dirty.vhdx",
    )
    .json();
    assert_eq!(ignored["format-specific"]["data"]["log-state"], "ignored");
    let refused = dw(dir.path(), "info --recovery refuse dirty.vhdx").fails(1);
    assert!(refused.contains("log"), "{refused}");
    assert_eq!(testkit::corpus::sha256_file(&path), before);
}

#[test]
fn a_locator_that_steers_terminals_is_spelled_out() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\nimage: safe.vhdx\u{202e}";
    let locator = ParentLocator::relative(ids::DEFAULT_DATA_WRITE, evil).pair(evil, evil);
    let image = VhdxBuilder::new(MIB).creator(evil).differencing(locator);
    save(dir.path(), "evil.vhdx", &image);
    for line in [
        "info evil.vhdx",
        "info --backing-chain evil.vhdx",
        "chain evil.vhdx",
        "map evil.vhdx",
        "convert evil.vhdx raw",
        "compare evil.vhdx evil.vhdx",
        "check evil.vhdx",
        "sections evil.vhdx metadata",
        "sections evil.vhdx header",
        "info --parents any --backing-chain evil.vhdx",
        "chain --parents any evil.vhdx",
    ] {
        let said = dw(dir.path(), line);
        for c in said.out.chars().chain(said.err.chars()) {
            assert!(c == '\n' || !c.is_control(), "{line}: {c:?} in {said:?}");
            assert_ne!(c, '\u{202e}', "{line}");
        }
        let lines = |text: &str| text.lines().any(|line| line == "image: safe.vhdx");
        assert!(!lines(&said.out), "{line}: a name made a line of its own");
    }
    // Programs get the name itself.
    let info = dw(dir.path(), "info --output json evil.vhdx").json();
    assert_eq!(info["backing-filename"], evil);
}

#[test]
fn a_file_name_that_steers_terminals_is_spelled_out() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "a\u{1b}[31m\nb.vhdx";
    save(dir.path(), evil, &VhdxBuilder::new(MIB));
    let missing = "gone\u{1b}[31m\nb.vhdx";
    for args in [
        vec!["info", evil],
        vec!["map", evil],
        vec!["chain", evil],
        vec!["check", evil],
        vec!["info", missing],
        vec!["convert", evil, "no/such/\u{1b}[2J"],
        vec!["compare", evil, missing],
        vec!["sections", missing, "bat"],
    ] {
        let said = run(dir.path(), &args);
        let all = format!("{}{}", said.out, said.err);
        assert!(!all.contains('\u{1b}'), "{args:?}: {all:?}");
        assert!(!all.contains("\nb.vhdx"), "{args:?}: {all:?}");
    }
}

#[test]
fn a_name_with_quotes_is_shown_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let name = "it's \"mine\".vhdx";
    save(dir.path(), name, &VhdxBuilder::new(MIB));
    let text = run(dir.path(), &["info", name]).ok();
    assert!(text.starts_with(&format!("image: {name}\n")), "{text}");
}

/// Without the length of the file, which QEMU counts in whole sectors.
fn in_sectors(text: String) -> String {
    let lines = text.lines().filter(|line| !line.contains("file length: "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn qcow2_images_are_told_of_as_qemu_tells_of_them() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    let mut told = 0;
    for record in corpus.of_format("qcow2") {
        let path = record.path();
        let dir = path.parent().unwrap();
        let name = path.file_name().unwrap();
        let ours = run(dir, &["info".as_ref(), "--output=json".as_ref(), name]);
        // Encrypted and damaged images are another matter.
        if record.expect.result != Verdict::Ok || ours.code != 0 {
            continue;
        }
        let (ours, theirs) = (ours.json(), qemu.info("qcow2", &path).unwrap());
        for field in [
            "virtual-size",
            "format",
            "cluster-size",
            "actual-size",
            "dirty-flag",
            "backing-filename",
            "backing-filename-format",
            "snapshots",
        ] {
            assert_eq!(ours[field], theirs[field], "{field} of {}", record.id);
        }
        assert_eq!(
            ours["format-specific"], theirs["format-specific"],
            "{}",
            record.id
        );
        let args = ["info", "-f", "qcow2"].map(OsStr::new);
        let ours = run(dir, &[&args[..], &[name]].concat()).ok();
        let theirs = qemu
            .run_in(dir, &[&args[..], &[name]].concat())
            .ok()
            .unwrap();
        let [ours, theirs] = [ours, String::from_utf8(theirs).unwrap()].map(in_sectors);
        assert_eq!(ours, theirs, "{}", record.id);
        told += 1;
    }
    assert!(told > 75, "{told} images");
}

#[test]
fn a_directory_of_bitmaps_that_cannot_be_is_an_error_and_costs_nothing() {
    let Some(corpus) = corpus() else { return };
    let mut records = corpus.of_format("qcow2").into_iter();
    let record = records.find(|record| record.id == "q-bitmap-3");
    let image = std::fs::read(record.unwrap().path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kind = 0x2385_2875u32.to_be_bytes();
    let extension = image.windows(4).position(|bytes| bytes == kind).unwrap();
    // Number, length, place.
    for (at, damage, named) in [
        (8, &[0, 1, 0, 0][..], "nb_bitmaps"),
        (8, &[0, 0, 0xFF, 0xFF], "bitmap_directory_size"),
        (16, &[0, 0, 0, 1, 0, 0, 0, 0], "bitmap_directory_size"),
        (16, &[0, 0, 0, 0, 5, 0, 0, 0], "bitmap_directory_offset"),
        (24, &[0x7F; 8], "bitmap_directory_offset"),
        (24, &[0; 8], "bitmap directory entry"),
    ] {
        let mut damaged = image.clone();
        damaged[extension + at..extension + at + damage.len()].copy_from_slice(damage);
        std::fs::write(dir.path().join("damaged"), damaged).unwrap();
        let complaint = dw(dir.path(), "info damaged").fails(1);
        assert!(complaint.contains(named), "{named}: {complaint}");
    }
}
