//! `map` of every raw and qcow2 image of the corpus, as `qemu-img map` tells it.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::run;
use testkit::corpus::{Record, Verdict, corpus};
use testkit::oracle::QemuImg;

/// Why an image is left out, if it is.
fn left_out(record: &Record) -> Option<&'static str> {
    if record.expect.result == Verdict::OpenError {
        // QEMU 10.0.2 maps some of them for as long as there is memory.
        return Some("not to be opened");
    }
    if record.features.iter().any(|of| of.starts_with("encrypted")) {
        return Some("refused by us");
    }
    if record.has("backing-vhdx") {
        return Some("QEMU's VHDX driver tells of no places and no zeros");
    }
    if record.format == "raw" && record.has("size-not-sector-multiple") {
        return Some("QEMU counts raw disks in whole sectors");
    }
    None
}

/// The runs that QEMU tells of, but for three things it does otherwise:
///
/// - the place of a cluster some of whose subclusters hold nothing is told for these as well, though
///   no byte of theirs is there;
/// - where the tables look as if they had been made before the data, holes of the host file are
///   looked for, and told as data that are zeros: how the host stores a file is not the image's word;
/// - of an empty disk there is one run of no bytes.
fn as_we_tell(theirs: &[Value]) -> Vec<Value> {
    let mut runs: Vec<Value> = Vec::new();
    for run in theirs {
        let mut run = run.clone();
        if run["length"] == 0 {
            continue;
        }
        if run["present"] == false {
            run.as_object_mut().unwrap().remove("offset");
        }
        if run["data"] == true {
            run["zero"] = false.into();
        }
        match runs.last_mut() {
            Some(last) if follows(last, &run) => {
                let len = |run: &Value| run["length"].as_u64().unwrap();
                last["length"] = (len(last) + len(&run)).into();
            }
            _ => runs.push(run),
        }
    }
    runs
}

fn follows(last: &Value, next: &Value) -> bool {
    let same = |key: &str| last[key] == next[key];
    ["depth", "present", "zero", "data", "compressed"]
        .into_iter()
        .all(same)
        && match (last["offset"].as_u64(), next["offset"].as_u64()) {
            (None, None) => true,
            (Some(a), Some(b)) => a + last["length"].as_u64().unwrap() == b,
            _ => false,
        }
}

/// Both tools' answers to `map` with `flags` in the image's own folder, and whether they are whole:
/// where one complains, so does the other.
fn answers(qemu: &QemuImg, record: &Record, flags: &[&str]) -> (bool, String, String) {
    let path = record.path();
    let name = path.file_name().unwrap().to_str().unwrap();
    let dir = path.parent().unwrap();
    let mut args = vec!["map", "-f", &record.format];
    args.extend(flags);
    args.push(name);
    let theirs = qemu.run_in(dir, &args);
    args.extend(["--parents", "any"]);
    if record.has("backing-format-missing") {
        let format = if record.has("backing-raw") {
            "raw"
        } else {
            "qcow2"
        };
        args.extend(["--parent-format", format]);
    }
    let ours = run(dir, &args);
    let id = &record.id;
    assert_eq!(theirs.code == Some(0), ours.code == 0, "{id}: {ours:?}");
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    (ours.code == 0, ours.out, theirs)
}

fn images() -> Vec<&'static Record> {
    let corpus = corpus().into_iter();
    corpus
        .flat_map(|corpus| [corpus.of_format("raw"), corpus.of_format("qcow2")])
        .flatten()
        .filter(|record| left_out(record).is_none())
        .collect()
}

fn same_runs(qemu: &QemuImg, record: &Record, flags: &[&str]) -> bool {
    let flags = [&["--output=json"], flags].concat();
    let (whole, ours, theirs) = answers(qemu, record, &flags);
    if !whole {
        return false;
    }
    let [ours, theirs] = [ours, theirs].map(|text| serde_json::from_str::<Vec<Value>>(&text));
    let (ours, theirs) = (ours.unwrap(), as_we_tell(&theirs.unwrap()));
    for (mine, other) in ours.iter().zip(&theirs) {
        assert_eq!(mine, other, "{} {flags:?}", record.id);
    }
    assert_eq!(ours.len(), theirs.len(), "{} {flags:?}", record.id);
    true
}

#[test]
fn every_run_is_the_one_qemu_img_tells_of() {
    let Some(qemu) = QemuImg::find() else { return };
    let images = images();
    let compared = images
        .iter()
        .filter(|record| same_runs(&qemu, record, &[]))
        .count();
    assert!(images.is_empty() || compared > 85, "{compared}");
}

#[test]
fn a_part_of_a_disk_is_told_as_qemu_img_tells_it() {
    let Some(qemu) = QemuImg::find() else { return };
    let parts: [&[&str]; 3] = [
        &["-s", "100k", "-l", "777k"],
        &["-s", "100001", "-l", "1777"],
        &["--start-offset=2098000"],
    ];
    for record in images() {
        for part in parts {
            // Past the end QEMU tells of one run of no bytes, or of what is nowhere.
            if record.virtual_size.is_some_and(|size| size > 4 << 20) {
                same_runs(&qemu, record, part);
            }
        }
    }
}

#[test]
fn people_are_shown_the_rows_of_qemu_img() {
    let Some(qemu) = QemuImg::find() else { return };
    let mut compared = 0;
    for record in images() {
        if differs_in_rows(&qemu, record) {
            continue;
        }
        // A complaint about packed clusters comes after the rows before them.
        let (_, ours, theirs) = answers(&qemu, record, &[]);
        assert_eq!(plain_paths(&ours), theirs, "{}", record.id);
        compared += 1;
    }
    assert!(compared == 0 || compared > 80, "{compared}");
}

/// True where QEMU shows holes of the host file, which rows leave out so that they cannot be put back;
/// and of damaged images, of whose last run before the damage QEMU shows no row.
fn differs_in_rows(qemu: &QemuImg, record: &Record) -> bool {
    let (whole, _, theirs) = answers(qemu, record, &["--output=json"]);
    let holes = r#""zero": true, "data": true"#;
    !whole || theirs.contains(holes)
}

/// Files beside the image without the `./` of the policy's folder.
fn plain_paths(rows: &str) -> String {
    let rows = rows.lines().map(|row| match row.rsplit_once(' ') {
        Some((columns, path)) => {
            let path = Path::new(path).strip_prefix(".").unwrap_or(Path::new(path));
            format!("{columns} {}\n", path.display())
        }
        None => format!("{row}\n"),
    });
    rows.collect()
}
