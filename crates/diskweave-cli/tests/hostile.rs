//! What a stranger's image, a busy one or a closed pipe cannot make the command do.

#![cfg(target_os = "linux")]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{MIB, command, dw, family, run, save};
use testkit::counting::Canary;
use testkit::oracle::QemuIo;
use testkit::vhdx_builder::{BlockContent, BlockData, ParentLocator, VhdxBuilder, ids};

/// Every verb that changes what it is given, on `image`.
fn every_change(image: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["commit", image],
        vec!["rebase", "-b", "", image],
        vec!["rebase", "-b", "other.raw", "-F", "raw", image],
        vec!["stream", image],
        vec!["flatten", image, "out.vhdx"],
        vec!["diff", image],
        vec!["diff", "other.raw", image],
        vec!["apply", image, "other.raw"],
        vec!["relink", image],
        vec!["serve", "-k", "nbd", "--writable", image],
    ]
}

/// Every verb that changes no image, with its default policy, on `image`.
fn every_verb(image: &str) -> Vec<Vec<&str>> {
    let mut lines = vec![
        vec!["info", image],
        vec!["info", "--output", "json", "--backing-chain", image],
        vec!["info", "--backing-chain", image],
        vec!["map", image],
        vec!["map", "--output", "json", image],
        vec!["convert", image, "out.raw"],
        vec!["compare", image, image],
        vec!["compare", "-s", image, "other.raw"],
        vec!["check", image],
        vec!["chain", image],
        vec!["chain", "--output", "json", image],
    ];
    for section in ["header", "region", "metadata", "bat", "log"] {
        lines.push(vec!["sections", image, section]);
    }
    lines
}

#[test]
fn no_verb_opens_a_file_outside_the_images_directory() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    std::fs::create_dir(&images).unwrap();
    std::fs::write(images.join("other.raw"), vec![0; 4 << 20]).unwrap();
    let (base, _) = family();
    let canary = save(dir.path(), "canary.vhdx", &base);
    std::os::unix::fs::symlink(&canary, images.join("link.vhdx")).unwrap();
    std::os::unix::fs::symlink(dir.path(), images.join("up")).unwrap();
    let absolute = canary.to_str().unwrap().to_owned();
    let names = [
        ("dotdot.vhdx", r"..\canary.vhdx".to_owned()),
        ("link-to.vhdx", "link.vhdx".to_owned()),
        ("nested.vhdx", "up/canary.vhdx".to_owned()),
        ("absolute.vhdx", absolute.clone()),
        ("extended.vhdx", format!(r"\\?\{absolute}")),
    ];
    for (child, name) in &names {
        let locator = ParentLocator::relative(ids::DEFAULT_DATA_WRITE, name)
            .absolute_win32_path(name)
            .volume_path(name);
        save(
            &images,
            child,
            &VhdxBuilder::new(4 * MIB).differencing(locator),
        );
        let watch = Canary::watch(&canary);
        for line in every_verb(child).into_iter().chain(every_change(child)) {
            run(&images, &line);
        }
        run(&images, &["serve", "-k", "nbd", child]);
        watch.assert_never_opened();
        // It would have been a good parent.
        let mut watch = Canary::watch(&canary);
        run(&images, &["map", "--parents", "any", child]).ok();
        assert!(watch.opens() > 0);
    }
}

#[test]
fn an_image_in_use_is_read_only_on_demand() {
    let Some(io) = QemuIo::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (base, _) = family();
    let path = save(dir.path(), "disk.vhdx", &base);
    let held = io.hold_writable("vhdx", &path).unwrap();
    for line in every_verb("disk.vhdx") {
        let failed = if line[0] == "compare" { 2 } else { 1 };
        let complaint = run(dir.path(), &line).fails(failed);
        assert!(complaint.contains("hint: -U"), "{line:?}: {complaint}");
    }
    std::fs::write(dir.path().join("other.raw"), vec![0; 4 << 20]).unwrap();
    for mut line in every_verb("disk.vhdx") {
        line.insert(1, "-U");
        let said = run(dir.path(), &line);
        let differs = line.contains(&"other.raw");
        assert_eq!(said.code, i32::from(differs), "{line:?}: {said:?}");
    }
    // To what somebody else writes to nothing is written.
    let before = std::fs::read(&path).unwrap();
    for mut line in every_change("disk.vhdx") {
        assert_ne!(run(dir.path(), &line).code, 0, "{line:?}");
        line.insert(1, "-U");
        if !["diff", "flatten"].contains(&line[0]) {
            assert_ne!(run(dir.path(), &line).code, 0, "{line:?}");
        }
    }
    assert!(std::fs::read(&path).unwrap() == before);
    drop(held);
}

/// An image whose map and sections are far longer than a pipe holds.
fn talkative(dir: &Path) -> PathBuf {
    let every_second = (0..2048).step_by(2);
    let (base, _) = family();
    save(dir, "base.vhdx", &base);
    let mut child = VhdxBuilder::child_of(&base, "base.vhdx").virtual_size(64 * MIB);
    for block in 0..4 {
        let content = BlockContent::partial(BlockData::Pattern(block), every_second.clone());
        child = child.block(block, content);
    }
    save(dir, "child.vhdx", &child)
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    talkative(dir.path());
    for line in [
        &["map", "child.vhdx"][..],
        &["map", "--output", "json", "child.vhdx"],
    ] {
        let mut child = command(dir.path())
            .args(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        assert!(!first.is_empty());
        let mut complaint = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut complaint).unwrap();
        assert_eq!(complaint, "", "{line:?}");
        assert_eq!(child.wait().unwrap().code(), Some(141), "{line:?}");
    }
}

#[test]
fn no_verb_panics_when_nobody_reads_or_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    talkative(dir.path());
    std::fs::write(dir.path().join("other.raw"), vec![0; 64 << 20]).unwrap();
    for line in every_verb("child.vhdx") {
        // A pipe that is closed before the first byte.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let both = writer.try_clone().unwrap();
        let closed = command(dir.path())
            .args(&line)
            .stdout(writer)
            .stderr(both)
            .status();
        let code = closed.unwrap().code().expect("no signal");
        assert!(matches!(code, 0 | 1 | 2 | 141), "{line:?}: {code}");

        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = command(dir.path())
            .args(&line)
            .stdout(full)
            .output()
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!complaint.contains("panicked"), "{line:?}: {complaint}");
        if line[0] != "convert" {
            assert!(
                complaint.starts_with("diskweave: standard output: "),
                "{line:?}: {complaint}"
            );
            let failed = if line[0] == "compare" { 2 } else { 1 };
            assert_eq!(output.status.code(), Some(failed), "{line:?}");
        }
    }
}

#[test]
fn images_in_a_ring_end_every_verb_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("other.raw"), vec![0; 1 << 20]).unwrap();
    let guid = uuid::Uuid::from_u128(1);
    let image = VhdxBuilder::new(MIB)
        .data_write_guid(guid)
        .differencing(ParentLocator::relative(guid, "self.vhdx"));
    save(dir.path(), "self.vhdx", &image);
    let started = std::time::Instant::now();
    let changes = every_change("self.vhdx");
    for line in every_verb("self.vhdx").into_iter().chain(changes) {
        run(dir.path(), &line);
    }
    assert!(started.elapsed().as_secs() < 3, "{:?}", started.elapsed());
    let complaint = dw(dir.path(), "map self.vhdx").fails(1);
    assert!(complaint.contains("ring"), "{complaint}");
}

#[test]
fn what_other_programs_take_for_an_image_is_not_copied_as_a_raw_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    std::fs::write(dir.path().join("disk.vmdk"), &bytes).unwrap();
    let complaint = dw(dir.path(), "convert disk.vmdk raw").fails(1);
    assert!(complaint.contains("vmdk"), "{complaint}");
    dw(dir.path(), "convert -f raw disk.vmdk raw").ok();
}
