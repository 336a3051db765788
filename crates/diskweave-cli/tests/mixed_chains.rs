//! Chains whose images are of different formats, sizes and units, and names with a protocol.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{MIB, dw, family, run, save};
use testkit::corpus::{corpus, sha256_file};
use testkit::oracle::{QemuImg, QemuIo};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder, chain_disk};

/// A VHDX child over `base.qcow2` and one over `base.raw`, both of the content of a third image, and
/// what the child's disk is.
fn vhdx_over_others(dir: &Path) -> Option<Vec<u8>> {
    let qemu = QemuImg::find()?;
    let (base, _) = family();
    let raw = dir.join("base.raw");
    std::fs::write(&raw, chain_disk(&[&base])).unwrap();
    let target = dir.join("base.qcow2");
    let made = [
        "convert",
        "-O",
        "qcow2",
        raw.to_str().unwrap(),
        target.to_str().unwrap(),
    ];
    qemu.run(&made).ok().unwrap();
    let mut disk = None;
    for (parent, name) in [
        ("base.qcow2", "over-qcow2.vhdx"),
        ("base.raw", "over-raw.vhdx"),
    ] {
        let child = VhdxBuilder::child_of(&base, parent)
            .block(0, BlockContent::partial(BlockData::Pattern(4), 8..24))
            .block(1, BlockContent::Zero);
        save(dir, name, &child);
        disk = Some(chain_disk(&[&child, &base]));
    }
    disk
}

#[test]
fn a_vhdx_child_reads_a_parent_of_another_format_when_told_so_twice() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = vhdx_over_others(dir.path()) else {
        return;
    };
    for (child, format) in [("over-qcow2.vhdx", "qcow2"), ("over-raw.vhdx", "raw")] {
        let convert = format!("convert -q -O raw {child} out");
        let refused = dw(dir.path(), &convert).fails(1);
        assert!(refused.contains("base."), "{refused}");
        // Neither word alone is enough.
        dw(dir.path(), &format!("{convert} --any-parent")).fails(1);
        dw(dir.path(), &format!("{convert} --parent-format {format}")).fails(1);
        assert!(!dir.path().join("out").exists());
        let both = format!("--any-parent --parent-format {format}");
        for parents in ["beneath", "any"] {
            dw(dir.path(), &format!("{convert} {both} --parents {parents}")).ok();
            assert!(
                std::fs::read(dir.path().join("out")).unwrap() == disk,
                "{child}"
            );
            std::fs::remove_file(dir.path().join("out")).unwrap();
        }
        let map = dw(dir.path(), &format!("map --output json {both} {child}")).json();
        assert_eq!(map[0]["depth"], 1);
    }
}

#[test]
fn a_qcow2_over_a_vhdx_child_over_a_qcow2_is_one_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (Some(mut disk), Some(qemu), Some(io)) = (
        vhdx_over_others(dir.path()),
        QemuImg::find(),
        QemuIo::find(),
    ) else {
        return;
    };
    let top = dir.path().join("top.qcow2");
    // QEMU opens no VHDX child, so the name is put in without a look at the file.
    let args = [
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "vhdx",
        "-b",
        "over-qcow2.vhdx",
    ];
    let mut args = args.to_vec();
    args.extend([top.to_str().unwrap(), "4M"]);
    qemu.run(&args).ok().unwrap();
    // Whole clusters, for which nothing below is needed; the image is written to without its parent.
    let alone = dir.path().join("alone.qcow2");
    qemu.create("qcow2", &alone, 4 * MIB, "").unwrap();
    io.run("qcow2", &alone, &["write -P 9 3M 64k"]).unwrap();
    let rebase = ["rebase", "-u", "-F", "vhdx", "-b", "over-qcow2.vhdx"];
    qemu.run(&[&rebase[..], &[alone.to_str().unwrap()]].concat())
        .ok()
        .unwrap();
    let both = "--any-parent --parent-format qcow2";
    dw(dir.path(), &format!("convert -q {both} top.qcow2 out")).ok();
    assert!(std::fs::read(dir.path().join("out")).unwrap() == disk);
    disk[3 << 20..(3 << 20) + (64 << 10)].fill(9);
    dw(dir.path(), &format!("convert -q {both} alone.qcow2 out")).ok();
    assert!(std::fs::read(dir.path().join("out")).unwrap() == disk);
    let same = dw(dir.path(), &format!("compare {both} alone.qcow2 out"));
    assert_eq!(same.ok(), "Images are identical.\n");
}

#[test]
fn names_with_a_protocol_are_followed_for_those_who_trust_the_image_alone() {
    let Some(corpus) = corpus() else { return };
    for id in ["q-chain-json", "q-chain-file-prefix"] {
        let mut records = corpus.of_format("qcow2").into_iter();
        let record = records.find(|record| record.id == id).unwrap();
        let (path, out) = (record.path(), tempfile::tempdir().unwrap());
        let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap());
        let raw = out.path().join("raw");
        let convert = |parents: &str| {
            let args = ["convert", "-q", "--parents", parents].map(AsRef::as_ref);
            run(dir, &[&args[..], &[name, raw.as_os_str()]].concat())
        };
        for refused in ["none", "beneath"] {
            convert(refused).fails(1);
        }
        convert("any").ok();
        assert_eq!(Some(sha256_file(&raw)), record.sha256_virtual, "{id}");
    }
}

#[test]
fn what_a_json_name_says_beyond_a_file_and_its_format_is_refused_by_name() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base"), vec![7; 1 << 20]).unwrap();
    for (name, told) in [
        (r#"{"driver":"raw","file.filename":"base"}"#, None),
        (
            r#"{"driver":"raw","file.filename":"base","offset":512}"#,
            Some("offset"),
        ),
        (r#"{"driver":"nbd","file.filename":"base"}"#, Some("nbd")),
        (
            r#"{"driver":"raw","file":{"driver":"ssh","filename":"base"}}"#,
            Some("ssh"),
        ),
    ] {
        let top = dir.path().join("top");
        let name = format!("json:{name}");
        let args = [
            "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &name,
        ];
        let args = [&args[..], &[top.to_str().unwrap(), "1M"]].concat();
        // Where QEMU does not declare a format that a name contradicts, neither is one needed.
        qemu.run(&args).ok().unwrap();
        let said = dw(dir.path(), "compare --parents any -F raw top base");
        match told {
            None => assert_eq!(said.ok(), "Images are identical.\n"),
            Some(told) => {
                let complaint = said.fails(2);
                assert!(complaint.contains(told), "{complaint}");
            }
        }
    }
}

/// Chains of raw and qcow2 with other sizes and clusters in each layer, made by QEMU.
fn uneven_chains(dir: &Path, qemu: &QemuImg, io: &QemuIo) {
    let path = |name: &str| dir.join(name);
    std::fs::write(path("bottom.raw"), vec![3; 1_500_672]).unwrap();
    for (name, parent, format, size, cluster, write) in [
        (
            "mid.qcow2",
            "bottom.raw",
            "raw",
            "3M",
            "4k",
            "write -P 5 1M 4k",
        ),
        (
            "top.qcow2",
            "mid.qcow2",
            "qcow2",
            "5M",
            "64k",
            "write -P 6 2M 64k",
        ),
        (
            "short.qcow2",
            "mid.qcow2",
            "qcow2",
            "1537k",
            "2M",
            "write -z 64k 1k",
        ),
        (
            "over-short.qcow2",
            "short.qcow2",
            "qcow2",
            "4M",
            "512",
            "write -P 8 2M 512",
        ),
    ] {
        let options = format!("backing_file={parent},backing_fmt={format},cluster_size={cluster}");
        let made = path(name);
        let args = ["create", "-q", "-f", "qcow2", "-o", &options];
        let args = [&args[..], &[made.to_str().unwrap(), size]].concat();
        qemu.run(&args).ok().unwrap();
        io.run("qcow2", &made, &[write]).unwrap();
    }
}

#[test]
fn layers_of_other_sizes_and_clusters_are_mapped_and_compared_as_by_qemu_img() {
    let (Some(qemu), Some(io)) = (QemuImg::find(), QemuIo::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    uneven_chains(dir.path(), &qemu, &io);
    let images = ["mid.qcow2", "top.qcow2", "short.qcow2", "over-short.qcow2"];
    for image in images {
        let args = ["map", "-f", "qcow2", "--output=json", image];
        let theirs = String::from_utf8(qemu.run_in(dir.path(), &args).ok().unwrap()).unwrap();
        assert_eq!(run(dir.path(), &args).ok(), theirs, "{image}");
        let flat = format!("{image}.raw");
        let convert = ["convert", "-f", "qcow2", "-O", "raw", image, &flat];
        qemu.run_in(dir.path(), &convert).ok().unwrap();
    }
    for first in images {
        for second in images {
            let flat = format!("{second}.raw");
            for (other, format) in [(second, "qcow2"), (&*flat, "raw")] {
                let args = ["compare", "-f", "qcow2", "-F", format, first, other];
                let theirs = qemu.run_in(dir.path(), &args);
                let ours = run(dir.path(), &args);
                assert_eq!(Some(ours.code), theirs.code, "{args:?}");
                let theirs = String::from_utf8(theirs.stdout).unwrap();
                assert_eq!(ours.out, theirs, "{args:?}");
            }
        }
    }
}
