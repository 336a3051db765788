//! `convert`.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use support::{MIB, dw, family, family_dir, names, run, save};
use testkit::corpus::sha256_file;
use testkit::oracle::{QemuImg, QemuIo};
use testkit::vhdx_builder::{VhdxBuilder, chain_disk};

#[test]
fn a_child_becomes_the_disk_it_shows_in_the_current_directory() {
    let dir = family_dir();
    let (base, child) = family();
    assert_eq!(
        dw(dir.path(), "convert -O raw child.vhdx disk.raw").ok(),
        ""
    );
    let disk = std::fs::read(dir.path().join("disk.raw")).unwrap();
    assert!(disk == chain_disk(&[&child, &base]));
    assert_eq!(names(dir.path()), ["base.vhdx", "child.vhdx", "disk.raw"]);
    for line in [
        "-q",
        "-p",
        "-m 3",
        "-S 0",
        "-S 64k",
        "--progress none",
        "-p -q",
        "-f vhdx",
    ] {
        dw(dir.path(), &format!("convert {line} child.vhdx again.raw")).ok();
        assert!(
            std::fs::read(dir.path().join("again.raw")).unwrap() == disk,
            "{line}"
        );
    }
}

#[test]
fn sparse_size_decides_over_holes() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "empty.vhdx", &VhdxBuilder::new(8 * MIB));
    let allocated = |options: &str| {
        dw(dir.path(), &format!("convert {options} empty.vhdx raw")).ok();
        std::fs::metadata(dir.path().join("raw")).unwrap().blocks() * 512
    };
    assert!(allocated("-q") < MIB);
    assert!(allocated("-S 0") >= 8 * MIB);
    assert!(allocated("-S 1M") < MIB);
}

#[test]
fn progress_for_programs_is_one_object_a_line_from_nothing_to_all() {
    let dir = family_dir();
    let said = dw(dir.path(), "convert --progress json -m 4 child.vhdx raw");
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    let lines: Vec<Value> = said
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let done: Vec<u64> = lines
        .iter()
        .map(|line| line["done"].as_u64().unwrap())
        .collect();
    assert!(lines.iter().all(|line| line["total"] == 4 * MIB));
    assert!(done.is_sorted(), "{done:?}");
    assert_eq!((done[0], *done.last().unwrap()), (0, 4 * MIB));
}

#[test]
fn a_failure_leaves_the_destination_as_it_was_and_nothing_beside_it() {
    let dir = family_dir();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, "precious").unwrap();
    std::fs::copy(
        dir.path().join("child.vhdx"),
        dir.path().join("orphan.vhdx"),
    )
    .unwrap();
    let listed = names(dir.path());
    dw(dir.path(), "convert --parents none orphan.vhdx raw").fails(1);
    dw(dir.path(), "convert gone.vhdx raw").fails(1);
    let refused = dw(dir.path(), "convert -O vmdk base.vhdx raw").fails(1);
    assert!(refused.contains("vmdk"), "{refused}");
    dw(dir.path(), "convert base.vhdx no/such/place").fails(1);
    dw(dir.path(), "convert base.vhdx .").fails(1);
    assert_eq!(std::fs::read(&raw).unwrap(), b"precious");
    assert_eq!(names(dir.path()), listed);
}

#[test]
fn a_disk_is_not_written_over_its_own_parent() {
    let dir = family_dir();
    let base = dir.path().join("base.vhdx");
    let before = sha256_file(&base);
    for destination in ["base.vhdx", "child.vhdx", "./base.vhdx"] {
        let line = format!("convert child.vhdx {destination}");
        let refused = dw(dir.path(), &line).fails(1);
        assert!(refused.contains("source is read from"), "{refused}");
        // Reading unlocked opens no back door.
        dw(dir.path(), &line.replace("convert", "convert -U")).fails(1);
    }
    assert_eq!(sha256_file(&base), before);
}

#[test]
fn a_locked_destination_is_no_occasion_to_advise_reading_it_unlocked() {
    let Some(io) = QemuIo::find() else { return };
    let dir = family_dir();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, vec![7; 4096]).unwrap();
    let held = io.hold_writable("raw", &raw).unwrap();
    let refused = dw(dir.path(), "convert child.vhdx raw").fails(1);
    assert!(refused.contains("another process"), "{refused}");
    assert!(!refused.contains("hint"), "{refused}");
    drop(held);
    assert_eq!(std::fs::read(&raw).unwrap(), vec![7; 4096]);
}

#[test]
fn an_empty_disk_of_64_gib_is_converted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "empty.vhdx", &VhdxBuilder::new(64 << 30));
    let started = std::time::Instant::now();
    dw(dir.path(), "convert empty.vhdx raw").ok();
    let elapsed = started.elapsed();
    // QEMU takes seconds; a loaded machine is given some time.
    assert!(elapsed < std::time::Duration::from_secs(1), "{elapsed:?}");
    let raw = std::fs::metadata(dir.path().join("raw")).unwrap();
    assert_eq!((raw.len(), raw.blocks() < 16), (64 << 30, true));
}

#[test]
fn every_format_is_made_from_every_other_and_qemu_agrees() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    let mut bytes = vec![0u8; 5 << 20];
    bytes[70_000..90_000].fill(7);
    bytes[(3 << 20) + 512..(4 << 20)].fill(9);
    std::fs::write(&raw, &bytes).unwrap();
    let made = [
        ("raw", "vhdx", "subformat=fixed,block_size=2M"),
        ("vhdx", "qcow2", "cluster_size=4k,refcount_bits=1"),
        ("qcow2", "vhdx", "block_size=1M,log_size=2M"),
        ("vhdx", "qcow2", "compat=0.10"),
        ("qcow2", "raw", ""),
    ];
    let mut from = "disk.raw".to_string();
    for (number, (was, format, options)) in made.into_iter().enumerate() {
        let to = format!("{number}.{format}");
        let mut args = vec!["convert", "-f", was, "-O", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend([from.as_str(), to.as_str()]);
        run(dir.path(), &args).ok();
        let path = dir.path().join(&to);
        assert!(qemu.same((format, &path), ("raw", &raw)).unwrap(), "{to}");
        let checked = run(dir.path(), &["check", "-q", "-f", format, &to]);
        assert_eq!(checked.code, if format == "raw" { 63 } else { 0 }, "{to}");
        from = to;
    }
    assert!(std::fs::read(dir.path().join(from)).unwrap() == bytes);
}

#[test]
fn options_that_a_format_does_not_have_are_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), [0; 4096]).unwrap();
    for (format, options, told) in [
        ("raw", "block_size=1M", "block_size"),
        ("vhdx", "cluster_size=64k", "cluster_size"),
        ("vhdx", "block_size=3M", "BlockSize"),
        ("vhdx", "subformat=thin", "subformat"),
        ("qcow2", "cluster_size=3k", "cluster_size"),
        ("qcow2", "refcount_bits=128", "refcount_order"),
        ("qcow2", "lazy_refcounts", "KEY=VALUE"),
        ("qcow2", "lazy_refcounts=maybe", "lazy_refcounts"),
        ("floppy", "", "floppy"),
    ] {
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend(["disk.raw", "made"]);
        let said = run(dir.path(), &args).fails(1);
        assert!(said.contains(told), "{said}");
        assert!(!dir.path().join("made").exists(), "{said}");
    }
}

#[test]
fn a_compressed_image_is_smaller_reads_the_same_and_says_how_it_is_packed() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (raw, packed) = (dir.path().join("disk.raw"), dir.path().join("packed"));
    std::fs::write(&raw, b"the quick brown fox. ".repeat(200_000)).unwrap();
    let size = std::fs::metadata(&raw).unwrap().len();
    for name in ["zlib", "zstd"] {
        let options = format!("compression_type={name}");
        let args = [
            "convert", "-c", "-O", "qcow2", "-o", &options, "disk.raw", "packed",
        ];
        run(dir.path(), &args).ok();
        assert!(std::fs::metadata(&packed).unwrap().len() < size / 4);
        assert!(qemu.same(("qcow2", &packed), ("raw", &raw)).unwrap());
        assert_eq!(qemu.check("qcow2", &packed).code, 0);
    }
    for format in ["raw", "vhdx"] {
        let line = format!("convert -c -O {format} disk.raw other");
        let refused = dw(dir.path(), &line).fails(1);
        assert!(refused.contains("qcow2"), "{refused}");
    }
}

#[test]
fn over_a_backing_file_only_differences_are_stored() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let (disk, over) = (
        dir.path().join("disk.raw"),
        dir.path().join("sub/over.qcow2"),
    );
    let mut bytes: Vec<u8> = (0u32..8 << 20)
        .map(|n| (n >> 12).to_le_bytes()[0])
        .collect();
    std::fs::write(dir.path().join("base.raw"), &bytes).unwrap();
    bytes[1 << 20..(1 << 20) + 200_000].fill(0);
    bytes[5 << 20] = 77;
    std::fs::write(&disk, &bytes).unwrap();
    for options in [
        "-B ../base.raw -F raw",
        "-c -o backing_file=../base.raw,backing_fmt=raw",
    ] {
        dw(
            dir.path(),
            &format!("convert -O qcow2 {options} disk.raw sub/over.qcow2"),
        )
        .ok();
        assert!(
            qemu.same(("qcow2", &over), ("raw", &disk)).unwrap(),
            "{options}"
        );
        let checked = qemu.check("qcow2", &over);
        assert_eq!(checked.code, 0, "{checked:?}");
        // One cluster of data, two edges of the zeros, and a few tables.
        let len = std::fs::metadata(&over).unwrap().len();
        assert!(len <= 8 * 65_536, "{options}: {len}");
    }
    let before = sha256_file(&over);
    for (line, told) in [
        ("-O qcow2 -B ../base.raw disk.raw sub/over.qcow2", "-F"),
        ("-O qcow2 -F raw disk.raw sub/over.qcow2", "no backing file"),
        (
            "-O qcow2 -o backing_file=../base.raw disk.raw sub/over.qcow2",
            "-F",
        ),
        (
            "-O raw -B ../base.raw -F raw disk.raw sub/over.qcow2",
            "only qcow2",
        ),
        ("-O qcow2 -B gone -F raw disk.raw sub/over.qcow2", "gone"),
        (
            "-O qcow2 -B over.qcow2 -F raw disk.raw sub/over.qcow2",
            "read from",
        ),
    ] {
        let refused = dw(dir.path(), &format!("convert {line}")).fails(1);
        assert!(refused.contains(told), "{line}: {refused}");
    }
    assert_eq!(sha256_file(&over), before);
    assert_eq!(names(&dir.path().join("sub")), ["over.qcow2"]);
}

#[test]
fn ctrl_c_leaves_the_destination_as_it_was_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    // Long enough to be packed that the signal comes in the middle.
    let mut bytes = vec![0u8; 192 << 20];
    for (n, byte) in (0u32..).zip(&mut bytes) {
        *byte = n.wrapping_mul(0x9E37_79B1).to_be_bytes()[0] & 0x3F;
    }
    std::fs::write(dir.path().join("disk.raw"), &bytes).unwrap();
    let old = dir.path().join("old");
    std::fs::write(&old, "precious").unwrap();
    for destination in ["old", "new"] {
        let mut command = support::command(dir.path());
        let args = [
            "convert",
            "-c",
            "-m",
            "1",
            "-O",
            "qcow2",
            "-o",
            "cluster_size=4k",
        ];
        let child = command
            .args(args)
            .args(["--progress", "json", "disk.raw", destination]);
        let mut child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
        // It has begun when it says how far it is.
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"done\":") || line.contains("\"done\":0,") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0);
        }
        let pid = libc::pid_t::try_from(child.id()).unwrap();
        // SAFETY: a signal to a child that is not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        std::io::Read::read_to_string(&mut said, &mut line).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
        assert_eq!(names(dir.path()), ["disk.raw", "old"]);
        assert_eq!(std::fs::read(&old).unwrap(), b"precious");
    }
}
