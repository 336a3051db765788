//! `map`.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;
use support::{MIB, dw, family, family_dir, pattern, run, save};
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::{BlockContent, VhdxBuilder, chain_disk};

/// Raw files with holes in all places.
fn raw_files(dir: &Path) -> Vec<&'static str> {
    let make = |name: &str, len: u64, data: &[(u64, usize)]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(len).unwrap();
        for (at, len) in data {
            file.write_all_at(&vec![7; *len], *at).unwrap();
        }
    };
    make("hole", 10 * MIB, &[]);
    make("middle", 10 * MIB, &[(MIB, 100_000), (3 * MIB, 1)]);
    make("ends", 10 * MIB, &[(0, 5000), (10 * MIB - 4096, 4096)]);
    make("full", 64 << 10, &[(0, 64 << 10)]);
    vec!["hole", "middle", "ends", "full"]
}

#[test]
fn raw_files_are_mapped_byte_for_byte_as_by_qemu_img() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in raw_files(dir.path()) {
        let path = dir.path().join(name);
        let path = path.to_str().unwrap();
        let lines: [&[&str]; 6] = [
            &["map", "-f", "raw", "--output=json", path],
            &["map", "-f", "raw", path],
            &[
                "map",
                "-f",
                "raw",
                "--output=json",
                "-s",
                "1M",
                "-l",
                "2M",
                path,
            ],
            &["map", "-f", "raw", "--output=json", "-s", "1000k", path],
            &[
                "map",
                "-f",
                "raw",
                "--output=json",
                "--start-offset=512",
                "--max-length=1024",
                path,
            ],
            &["map", "-f", "raw", "-s", "1M", "-l", "64k", path],
        ];
        for line in lines {
            if name == "full" && line.contains(&"-s") {
                // QEMU tells of one run of no bytes past the end.
                continue;
            }
            let theirs = String::from_utf8(qemu.run(line).ok().unwrap()).unwrap();
            assert_eq!(run(dir.path(), line).ok(), theirs, "{line:?}");
        }
    }
}

#[test]
fn nothing_is_past_the_end() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("raw"))
        .unwrap()
        .set_len(MIB)
        .unwrap();
    File::create(dir.path().join("empty")).unwrap();
    for line in [
        "map --output json -s 2M raw",
        "map --output json -s 1M raw",
        "map --output json empty",
    ] {
        assert_eq!(
            dw(dir.path(), line).json(),
            Value::Array(Vec::new()),
            "{line}"
        );
    }
    let refused = dw(dir.path(), "map -s 1x raw");
    assert_eq!(refused.code, 1);
}

#[test]
fn each_run_of_a_chain_is_where_the_map_says_it_is() {
    let dir = family_dir();
    let (base, child) = family();
    let disk = chain_disk(&[&child, &base]);
    let map = dw(dir.path(), "map --output json child.vhdx").json();
    let files = ["child.vhdx", "base.vhdx"].map(|name| File::open(dir.path().join(name)).unwrap());
    let mut next = 0;
    for run in map.as_array().unwrap() {
        let number = |key: &str| usize::try_from(run[key].as_u64().unwrap()).unwrap();
        let flag = |key: &str| run[key].as_bool().unwrap();
        let (start, len) = (number("start"), number("length"));
        assert_eq!(start, next, "no gap");
        next += len;
        let bytes = &disk[start..start + len];
        assert_eq!(flag("data"), run.get("offset").is_some(), "{run}");
        assert_eq!(flag("zero"), !flag("data"), "{run}");
        assert!(!flag("compressed"));
        if flag("data") {
            let mut stored = vec![0; len];
            let offset = run["offset"].as_u64().unwrap();
            files[number("depth")]
                .read_exact_at(&mut stored, offset)
                .unwrap();
            assert!(stored == bytes, "{run}");
        } else {
            assert!(bytes.iter().all(|byte| *byte == 0), "{run}");
        }
    }
    assert_eq!(next, disk.len());
    let line = |start: u64, length: u64, rest: &str| {
        format!("{{ \"start\": {start}, \"length\": {length}, {rest}}}")
    };
    let text = dw(dir.path(), "map --output json child.vhdx").ok();
    // The child's ZERO block is present and zeros; block 2 is nobody's.
    let zero = r#""depth": 0, "present": true, "zero": true, "data": false, "compressed": false"#;
    assert!(text.contains(&line(MIB, MIB, zero)), "{text}");
    let absent =
        r#""depth": 1, "present": false, "zero": true, "data": false, "compressed": false"#;
    assert!(text.contains(&line(2 * MIB, MIB, absent)), "{text}");
    let rows = dw(dir.path(), "map child.vhdx").ok();
    let columns: Vec<Vec<&str>> = rows
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(columns[0], ["Offset", "Length", "Mapped", "to", "File"]);
    assert_eq!(
        (columns[1][0], columns[1][1], columns[1][3]),
        ("0", "0x1000", "./base.vhdx")
    );
    assert_eq!(
        (columns[2][0], columns[2][1], columns[2][3]),
        ("0x1000", "0x2000", "child.vhdx")
    );
}

#[test]
fn without_its_parent_a_child_maps_what_it_has_and_calls_nothing_zeros_that_may_not_be() {
    let dir = family_dir();
    let map = dw(dir.path(), "map --parents none --output json child.vhdx").json();
    let first = &map[0];
    assert_eq!(
        (&first["present"], &first["zero"]),
        (&false.into(), &false.into())
    );
    assert_eq!(map[1]["data"], true);
    std::fs::remove_file(dir.path().join("base.vhdx")).unwrap();
    let complaint = dw(dir.path(), "map child.vhdx").fails(1);
    assert!(complaint.contains("base.vhdx"), "{complaint}");
}

#[test]
fn blocks_side_by_side_are_one_run_and_zero_blocks_are_told_from_absent_ones() {
    let dir = tempfile::tempdir().unwrap();
    let image = VhdxBuilder::new(64 * MIB)
        .block(4, pattern(1))
        .block(5, pattern(2))
        .block(6, BlockContent::Zero)
        .block(7, BlockContent::Unmapped { kept: None });
    save(dir.path(), "disk.vhdx", &image);
    let place = image.layout().blocks[&4];
    let map = dw(dir.path(), "map --output json disk.vhdx").json();
    let runs: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            let number = |key: &str| run[key].as_u64();
            let (start, len) = (number("start").unwrap(), number("length").unwrap());
            (
                start / MIB,
                len / MIB,
                run["present"] == true,
                number("offset"),
            )
        })
        .collect();
    let expected = [
        (0, 4, false, None),
        (4, 2, true, Some(place)),
        (6, 2, true, None),
        (8, 56, false, None),
    ];
    assert_eq!(runs, expected);
}
