//! `check`: findings and exit codes.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{MIB, dirty, dw, pattern, save};
use testkit::corpus::{Verdict, corpus, sha256_file};
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::{Damage, Placement, Slot, VhdxBuilder};

#[test]
fn exit_codes_sum_the_findings_up() {
    let dir = tempfile::tempdir().unwrap();
    let clean = VhdxBuilder::new(4 * MIB).block(1, pattern(1));
    save(dir.path(), "clean", &clean);
    save(dir.path(), "dirty", &dirty());
    let overlap = clean.layout().blocks[&1] | 6;
    save(dir.path(), "corrupt", &clean.clone().raw_bat(2, overlap));
    // Space between blocks is nobody's, which is no fault in this format.
    save(
        dir.path(),
        "gaps",
        &clean.clone().placement(Placement::Gaps(3)),
    );
    std::fs::write(dir.path().join("raw"), vec![0; 4096]).unwrap();
    for (name, code) in [("clean", 0), ("dirty", 0), ("corrupt", 2), ("gaps", 0)] {
        let said = dw(dir.path(), &format!("check {name}"));
        assert_eq!(said.code, code, "{name}: {said:?}");
        let json = dw(dir.path(), &format!("check --output json {name}"));
        assert_eq!(json.code, code, "{name}");
        let report: Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(report["filename"], name);
        assert_eq!(report["format"], "vhdx");
        assert_eq!(report["check-errors"], 0);
        assert_eq!(report.get("corruptions").is_some(), code == 2, "{report}");
        assert!(report.get("leaks").is_none(), "{report}");
        assert_eq!(dw(dir.path(), &format!("check -q {name}")).out, "");
    }
    let nothing = dw(dir.path(), "check raw").fails(63);
    assert!(nothing.contains("does not support checks"), "{nothing}");
    dw(dir.path(), "check gone").fails(1);
    dw(dir.path(), "check -f vhdx raw").fails(1);
}

#[test]
fn bad_arguments_are_no_corruption() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "check",
        "check --nonsense x",
        "info",
        "map -s x y",
        "nonsense",
    ] {
        assert_eq!(dw(dir.path(), line).code, 1, "{line}");
    }
    for line in ["--help", "--version", "check --help"] {
        assert_eq!(dw(dir.path(), line).code, 0, "{line}");
    }
}

#[test]
fn a_finding_has_section_code_place_and_rule() {
    let dir = tempfile::tempdir().unwrap();
    let image = VhdxBuilder::new(4 * MIB)
        .block(1, pattern(1))
        .damage_header(Slot::Second, Damage::Checksum);
    save(dir.path(), "disk", &image);
    let report: Value =
        serde_json::from_str(&dw(dir.path(), "check --output json disk").out).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|finding| finding["offset"] == 128 << 10);
    let finding = finding.unwrap_or_else(|| panic!("{report}"));
    for key in ["severity", "section", "code", "message"] {
        assert!(!finding[key].as_str().unwrap().is_empty(), "{finding}");
    }
    assert!(
        finding["reference"].as_str().unwrap().contains("2.2.2"),
        "{finding}"
    );
    let text = dw(dir.path(), "check disk").out;
    assert!(text.contains("0x20000"), "{text}");
}

#[test]
fn what_qemu_finds_clean_is_clean() {
    let (Some(corpus), Some(qemu)) = (corpus(), QemuImg::find()) else {
        return;
    };
    for record in corpus.of_format("vhdx") {
        if record.expect.result != Verdict::Ok || record.log_replay {
            continue;
        }
        let path = record.path();
        let said = support::run(&record.dir(), &["check".as_ref(), path.as_os_str()]);
        assert_eq!(said.code, 0, "{}: {said:?}", record.id);
        assert!(said.out.contains("No errors were found on the image."));
        let theirs = qemu.check("vhdx", &path);
        assert!(theirs.code <= 1, "{}: {theirs:?}", record.id);
    }
}

#[test]
fn a_dirty_log_is_reported_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "dirty", &dirty());
    let before = sha256_file(&path);
    let said = dw(dir.path(), "check dirty").ok();
    assert!(said.contains("log"), "{said}");
    assert_eq!(sha256_file(&path), before);
}

#[test]
fn images_that_must_be_refused_never_check_clean() {
    let Some(corpus) = corpus() else { return };
    for record in corpus.of_format("vhdx") {
        let lacks_parent = record.expect.kind.as_deref() == Some("missing-backing");
        if record.expect.result != Verdict::OpenError || lacks_parent {
            continue;
        }
        let path = record.path();
        let said = support::run(
            &record.dir(),
            &[
                "check".as_ref(),
                "-f".as_ref(),
                "vhdx".as_ref(),
                path.as_os_str(),
            ],
        );
        assert!(matches!(said.code, 1 | 2), "{}: {said:?}", record.id);
    }
}
