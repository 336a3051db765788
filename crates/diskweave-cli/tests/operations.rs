//! `commit`, `rebase`, `stream`, `flatten`, `diff`, `apply` and `relink`, over chains that mix formats; beside
//! what `qemu-img` makes of the same where it can open them.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::json;
use support::{MIB, dw};
use testkit::oracle::{QemuImg, QemuIo};

fn flat(dir: &Path, image: &str) -> Vec<u8> {
    dw(dir, &format!("convert -O raw {image} flat")).ok();
    fs::read(dir.join("flat")).unwrap()
}

/// Writes over a disk of 4 MiB: what `diskweave` has no verb for, by way of a raw image and a child that
/// holds the difference.
fn changed(dir: &Path, parent: &str, format: &str, child: &str, at: usize, len: usize, byte: u8) {
    let mut disk = flat(dir, parent);
    disk[at..at + len].fill(byte);
    fs::write(dir.join("changed.raw"), disk).unwrap();
    let child_format = child.rsplit('.').next().unwrap();
    dw(
        dir,
        &format!("convert -O {child_format} -B {parent} -F {format} changed.raw {child}"),
    )
    .ok();
}

/// base.qcow2 ← middle.vhdx ← top.qcow2, each with bytes of its own.
fn tower(dir: &Path) -> Vec<u8> {
    fs::write(dir.join("base.raw"), vec![1; 4 << 20]).unwrap();
    dw(dir, "convert -O qcow2 base.raw base.qcow2").ok();
    changed(
        dir,
        "base.qcow2",
        "qcow2",
        "middle.vhdx",
        1 << 20,
        700_000,
        2,
    );
    changed(
        dir,
        "middle.vhdx",
        "vhdx",
        "top.qcow2",
        1_500_000,
        1 << 20,
        3,
    );
    flat(dir, "top.qcow2")
}

/// The images of the chain, as their file names.
fn chain(dir: &Path, image: &str) -> Vec<String> {
    let chain = dw(dir, &format!("info --output json --backing-chain {image}")).json();
    let images = chain.as_array().unwrap().iter();
    images
        .map(|image| {
            image["filename"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .into()
        })
        .collect()
}

#[test]
fn an_image_is_committed_into_its_parent_and_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    assert_eq!(dw(dir, "commit top.qcow2").ok(), "Image committed.\n");
    assert!(flat(dir, "top.qcow2") == disk && flat(dir, "middle.vhdx") == disk);
    let map = dw(dir, "map --output json --parents none top.qcow2").json();
    assert_eq!(
        map,
        json!([{
            "start": 0, "length": 4 * MIB, "depth": 0, "present": false, "zero": false, "data": false,
            "compressed": false
        }])
    );
    for image in ["base.qcow2", "middle.vhdx", "top.qcow2"] {
        dw(dir, &format!("check -q {image}")).ok();
    }
}

#[test]
fn the_whole_chain_is_committed_into_its_base_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    dw(dir, "commit -q -b base.qcow2 top.qcow2").ok();
    assert!(flat(dir, "base.qcow2") == disk);
    assert!(
        flat(dir, "top.qcow2") == disk,
        "the VHDX between knows its changed parent"
    );
    assert_eq!(
        chain(dir, "top.qcow2"),
        ["top.qcow2", "middle.vhdx", "base.qcow2"]
    );
    if let Some(qemu) = QemuImg::find() {
        qemu.to_raw("qcow2", &dir.join("base.qcow2"), &dir.join("theirs"))
            .unwrap();
        assert!(fs::read(dir.join("theirs")).unwrap() == disk);
    }
}

#[test]
fn a_layer_in_the_middle_is_committed_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    let middle = flat(dir, "middle.vhdx");
    let said = dw(dir, "commit --top middle.vhdx top.qcow2").ok();
    assert_eq!(
        said,
        "Image committed.\n'middle.vhdx' is in 'base.qcow2' now and no longer needed.\n"
    );
    fs::remove_file(dir.join("middle.vhdx")).unwrap();
    assert!(flat(dir, "top.qcow2") == disk && flat(dir, "base.qcow2") == middle);
    assert_eq!(chain(dir, "top.qcow2"), ["top.qcow2", "base.qcow2"]);
}

#[test]
fn a_smaller_base_grows_and_the_tail_of_a_larger_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("base.raw"), vec![1; 1 << 20]).unwrap();
    dw(dir, "create -f qcow2 -b base.raw -F raw a.qcow2 3M").ok();
    dw(dir, "commit -q a.qcow2").ok();
    let mut grown = vec![1; 1 << 20];
    grown.resize(3 << 20, 0);
    assert!(fs::read(dir.join("base.raw")).unwrap() == grown);
    fs::write(dir.join("base.raw"), vec![1; 3 << 20]).unwrap();
    dw(dir, "create -f qcow2 -b base.raw -F raw a.qcow2 1M").ok();
    dw(dir, "commit -q a.qcow2").ok();
    assert!(fs::read(dir.join("base.raw")).unwrap() == vec![1; 3 << 20]);
}

#[test]
fn what_cannot_be_committed_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tower(dir);
    let before = fs::read(dir.join("base.qcow2")).unwrap();
    for (line, says) in [
        ("commit base.qcow2", "no parent"),
        ("commit -b changed.raw top.qcow2", "not in the chain"),
        ("commit -b top.qcow2 top.qcow2", "must be below"),
        (
            "commit --top base.qcow2 -b middle.vhdx top.qcow2",
            "must be below",
        ),
        ("commit -b gone top.qcow2", "No such file"),
    ] {
        let said = dw(dir, line).fails(1);
        assert!(said.contains(says), "{line}: {said}");
    }
    assert!(fs::read(dir.join("base.qcow2")).unwrap() == before);
}

/// A name before a colon is taken for a protocol's, and the image would not find its parent again.
#[test]
fn a_parent_with_a_colon_in_its_name_is_found_after_each_operation() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("day"), vec![1; 1 << 20]).unwrap();
    dw(dir, "convert -O qcow2 day 12:30.qcow2").ok();
    let two_above = || {
        dw(dir, "clone --overwrite 12:30.qcow2 middle.qcow2").ok();
        dw(dir, "clone --overwrite middle.qcow2 top.qcow2").ok();
    };
    for line in [
        "commit -q --top middle.qcow2 top.qcow2",
        "stream -q -b 12:30.qcow2 top.qcow2",
        "rebase -q -b 12:30.qcow2 -F qcow2 top.qcow2",
        "relink -q top.qcow2 12:30.qcow2",
        "diff -q --to top.qcow2 12:30.qcow2 middle.qcow2",
    ] {
        two_above();
        dw(dir, line).ok();
        assert_eq!(
            chain(dir, "top.qcow2"),
            ["top.qcow2", "12:30.qcow2"],
            "{line}"
        );
        assert!(flat(dir, "top.qcow2") == vec![1; 1 << 20], "{line}");
    }
}

/// Snapshots read what they do not hold from the parents as well, and nobody carries that over.
#[test]
fn an_image_is_left_alone_whose_snapshots_would_read_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tower(dir);
    dw(dir, "clone top.qcow2 upper.qcow2").ok();
    dw(dir, "snapshot -c monday top.qcow2").ok();
    let files =
        || ["base.qcow2", "middle.vhdx", "top.qcow2"].map(|file| fs::read(dir.join(file)).unwrap());
    let before = files();
    for line in [
        "commit top.qcow2",
        "commit -b base.qcow2 top.qcow2",
        "commit --top top.qcow2 upper.qcow2",
        "rebase -b base.qcow2 -F qcow2 top.qcow2",
        "rebase -b  top.qcow2",
        "stream top.qcow2",
        "stream -b base.qcow2 top.qcow2",
    ] {
        let said = dw(dir, line).fails(1);
        assert!(said.contains("snapshots"), "{line}: {said}");
        assert!(files() == before, "{line}");
    }
    dw(dir, "commit -q --top middle.vhdx top.qcow2").ok();
}

/// A VHDX reads no VHDX of other sectors as its parent, though it may read one through a qcow2 between.
#[test]
fn an_image_is_not_left_over_a_parent_of_other_sectors() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    dw(
        dir,
        "create -f vhdx -o logical_sector_size=512 base.vhdx 16M",
    )
    .ok();
    dw(dir, "create -f qcow2 -b base.vhdx -F vhdx middle.qcow2").ok();
    dw(
        dir,
        "create -f vhdx -o logical_sector_size=4096 -b middle.qcow2 -F qcow2 top.vhdx",
    )
    .ok();
    let before = fs::read(dir.join("base.vhdx")).unwrap();
    for line in [
        "commit --top middle.qcow2 top.vhdx",
        "stream -b base.vhdx top.vhdx",
    ] {
        let said = dw(dir, line).fails(1);
        assert!(said.contains("sectors"), "{line}: {said}");
        assert_eq!(
            chain(dir, "top.vhdx"),
            ["top.vhdx", "middle.qcow2", "base.vhdx"]
        );
    }
    assert!(fs::read(dir.join("base.vhdx")).unwrap() == before);
}

/// What is zeros past the end of a short layer is so many terabytes of nothing.
#[test]
fn zeros_that_hide_nothing_cost_nothing_to_commit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for line in [
        "create -f qcow2 bottom.qcow2 64T",
        "create -f qcow2 -b bottom.qcow2 -F qcow2 base.qcow2 64T",
        "create -f qcow2 -b base.qcow2 -F qcow2 short.qcow2 1G",
        "create -f qcow2 -b short.qcow2 -F qcow2 top.qcow2 64T",
        "commit -q -b base.qcow2 top.qcow2",
        "commit -q --top short.qcow2 top.qcow2",
    ] {
        dw(dir, line).ok();
    }
    assert!(fs::metadata(dir.join("base.qcow2")).unwrap().len() < 16 << 20);
}

#[test]
fn a_rate_holds_a_commit_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    let start = std::time::Instant::now();
    dw(dir, "commit -q -r 8M top.qcow2").ok();
    assert!(
        start.elapsed().as_millis() >= 400,
        "4 MiB at 8 MiB a second"
    );
    assert!(flat(dir, "middle.vhdx") == disk);
}

#[test]
fn an_image_is_rebased_to_another_disk_of_another_format_and_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    changed(dir, "base.qcow2", "qcow2", "other.vhdx", 0, 2 << 20, 9);
    dw(dir, "rebase -b other.vhdx -F vhdx top.qcow2").ok();
    assert!(flat(dir, "top.qcow2") == disk);
    assert_eq!(
        chain(dir, "top.qcow2"),
        ["top.qcow2", "other.vhdx", "base.qcow2"]
    );
    dw(dir, "rebase -b base.raw -F raw middle.vhdx").ok();
    assert_eq!(chain(dir, "middle.vhdx"), ["middle.vhdx", "base.raw"]);
    dw(dir, "rebase -b  middle.vhdx").ok();
    let said = dw(dir, "rebase middle.vhdx").fails(1);
    assert!(said.contains("-b"), "{said}");
    assert_eq!(chain(dir, "middle.vhdx"), ["middle.vhdx"]);
    assert!(flat(dir, "middle.vhdx")[1 << 20..][..700_000] == vec![2; 700_000]);
    dw(dir, "check -q middle.vhdx").ok();
}

#[test]
fn an_unsafe_rebase_refers_to_another_disk_and_copies_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tower(dir);
    let length = fs::metadata(dir.join("top.qcow2")).unwrap().len();
    dw(dir, "rebase -u -b base.qcow2 -F qcow2 top.qcow2").ok();
    assert_eq!(chain(dir, "top.qcow2"), ["top.qcow2", "base.qcow2"]);
    let mut seen = vec![1; 4 << 20];
    // Whole clusters, with what was below when they were written.
    seen[1_500_000 / 65_536 * 65_536..][..700_000 - (1_500_000 - (1 << 20))].fill(2);
    let now = flat(dir, "top.qcow2");
    assert!(now[1_500_000..1_500_000 + (1 << 20)] == vec![3; 1 << 20]);
    assert!(
        now[1 << 20..(1 << 20) + 100] == seen[..100],
        "the VHDX is not below any more"
    );
    dw(dir, "rebase -u top.qcow2").ok();
    assert_eq!(chain(dir, "top.qcow2"), ["top.qcow2"]);
    assert!(flat(dir, "top.qcow2")[..100] == [0; 100]);
    assert_eq!(fs::metadata(dir.join("top.qcow2")).unwrap().len(), length);
    let said = dw(dir, "rebase -b top.qcow2 -F qcow2 top.qcow2").fails(1);
    assert!(said.contains("its own parent"), "{said}");
    let said = dw(dir, "rebase -b base.raw top.qcow2").fails(1);
    assert!(said.contains("-F"), "{said}");
}

#[test]
fn an_image_takes_up_what_it_has_from_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    dw(dir, "stream -b base.qcow2 top.qcow2").ok();
    assert_eq!(chain(dir, "top.qcow2"), ["top.qcow2", "base.qcow2"]);
    assert!(flat(dir, "top.qcow2") == disk);
    if let Some(qemu) = QemuImg::find() {
        let (top, theirs) = (dir.join("top.qcow2"), dir.join("theirs"));
        qemu.to_raw("qcow2", &top, &theirs).unwrap();
        assert!(fs::read(&theirs).unwrap() == disk);
        assert_eq!(qemu.check("qcow2", &top).code, 0);
    }
    dw(dir, "stream top.qcow2").ok();
    assert_eq!(chain(dir, "top.qcow2"), ["top.qcow2"]);
    fs::remove_file(dir.join("base.qcow2")).unwrap();
    assert!(flat(dir, "top.qcow2") == disk);
    let said = dw(dir, "stream -b base.raw middle.vhdx").fails(1);
    assert!(
        said.contains("base.qcow2"),
        "a chain that is not whole: {said}"
    );
}

#[test]
fn a_chain_is_written_out_as_one_image_of_any_format() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    for (line, result) in [
        ("flatten top.qcow2 one.qcow2", "one.qcow2"),
        ("flatten -O vhdx top.qcow2 one.vhdx", "one.vhdx"),
        ("flatten -O raw top.qcow2 one.raw", "one.raw"),
    ] {
        dw(dir, line).ok();
        assert_eq!(chain(dir, result), [result]);
        assert!(flat(dir, result) == disk, "{line}");
    }
}

#[test]
fn differences_are_shown_kept_and_applied_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    let shown = dw(dir, "diff --output json base.qcow2 top.qcow2");
    assert_eq!(shown.code, 1);
    let ranges: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    // From the first byte of the VHDX to the last of the top, in whole sectors.
    let end = (1_500_000_u64 + (1 << 20)).next_multiple_of(512);
    assert_eq!(ranges, json!([{"start": MIB, "length": end - MIB}]));
    let of_child = dw(dir, "diff top.qcow2");
    let start = 1_500_000_u64 / 512 * 512;
    assert_eq!(of_child.code, 1);
    assert_eq!(of_child.out, format!("{start:#x} {:#x}\n", end - start));
    assert_eq!(dw(dir, "diff top.qcow2 top.qcow2").code, 0);
    assert_eq!(dw(dir, "diff base.qcow2").code, 2);

    for (format, copy) in [("qcow2", "copy.raw"), ("vhdx", "copy.vhdx")] {
        let diff = format!("diff.{format}");
        dw(
            dir,
            &format!(
                "convert -O {} base.qcow2 {copy}",
                copy.rsplit('.').next().unwrap()
            ),
        )
        .ok();
        let old = if format == "vhdx" { copy } else { "base.qcow2" };
        dw(
            dir,
            &format!("diff --to {diff} -O {format} {old} top.qcow2"),
        )
        .ok();
        assert!(flat(dir, &diff) == disk);
        dw(dir, &format!("apply {diff} {copy}")).ok();
        assert!(flat(dir, copy) == disk, "{copy}");
        // Again, as after an interruption.
        dw(dir, &format!("apply {diff} {copy}")).ok();
        assert!(flat(dir, copy) == disk, "{copy}");
    }
    dw(dir, "create -f vhdx foreign.vhdx 4M").ok();
    let said = dw(dir, "apply diff.vhdx foreign.vhdx").fails(1);
    assert!(said.contains("its content is"), "{said}");
    let said = dw(dir, "apply copy.raw base.qcow2").fails(1);
    assert!(said.contains("no parent"), "{said}");
}

#[test]
fn a_file_is_not_the_same_disk_as_what_it_is_an_image_of() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tower(dir);
    assert_eq!(
        dw(dir, "diff -q -f raw -F qcow2 base.qcow2 base.qcow2").code,
        1
    );
    assert_eq!(
        dw(dir, "diff -q -f qcow2 -F qcow2 base.qcow2 base.qcow2").code,
        0
    );
}

#[test]
fn differences_with_a_data_file_are_applied_and_none_to_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    let line =
        "convert -O qcow2 -o data_file=diff.data -B base.qcow2 -F qcow2 top.qcow2 diff.qcow2";
    dw(dir, line).ok();
    dw(dir, "convert -O raw base.qcow2 copy.raw").ok();
    dw(dir, "apply -F raw diff.qcow2 copy.raw").ok();
    assert!(fs::read(dir.join("copy.raw")).unwrap() == disk);
    let said = dw(dir, "apply diff.qcow2 diff.qcow2").fails(1);
    assert!(said.contains("itself"), "{said}");
}

/// What these cost follows what is stored: each took hours, or gigabytes of tables.
#[test]
fn what_holds_nothing_costs_nothing_however_large_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    dw(dir, "create -f vhdx base.vhdx 64T").ok();
    dw(dir, "create -f vhdx -b base.vhdx -F vhdx top.vhdx").ok();
    dw(dir, "stream top.vhdx").ok();
    assert_eq!(chain(dir, "top.vhdx"), ["top.vhdx"]);
    dw(dir, "create -f qcow2 base.qcow2 60T").ok();
    dw(
        dir,
        "create -f qcow2 -b base.qcow2 -F qcow2 middle.qcow2 1M",
    )
    .ok();
    dw(
        dir,
        "create -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2 60T",
    )
    .ok();
    dw(dir, "commit -q top.qcow2").ok();
    dw(dir, "diff -q base.qcow2 top.qcow2").ok();
    for image in ["top.vhdx", "middle.qcow2", "top.qcow2"] {
        let stored =
            std::os::unix::fs::MetadataExt::blocks(&fs::metadata(dir.join(image)).unwrap());
        assert!(stored < 40_000, "{image}: {stored} blocks of 512 bytes");
    }
}

#[test]
fn a_qcow2_is_told_where_its_parent_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    fs::create_dir(dir.join("sub")).unwrap();
    fs::rename(dir.join("middle.vhdx"), dir.join("sub/m.vhdx")).unwrap();
    dw(dir, "convert -O raw top.qcow2 flat").fails(1);
    dw(
        dir,
        "relink --any-parent -F qcow2 sub/m.vhdx ../base.qcow2 --parents any",
    )
    .ok();
    let said = dw(dir, "relink --parents any top.qcow2 sub/m.vhdx").ok();
    assert_eq!(said, "Image refers to 'sub/m.vhdx'.\n");
    dw(dir, "convert -O raw --parents any top.qcow2 flat").ok();
    assert!(fs::read(dir.join("flat")).unwrap() == disk);
    let said = dw(dir, "relink top.qcow2 gone.vhdx").fails(1);
    assert!(said.contains("gone.vhdx"), "{said}");
    let said = dw(dir, "relink base.qcow2 changed.raw").fails(1);
    assert!(said.contains("no parent"), "{said}");
}

#[test]
fn a_name_of_any_length_is_taken_and_nothing_else_moves() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    let deep = format!("{}/{}", "d".repeat(200), "e".repeat(200));
    fs::create_dir_all(dir.join(&deep)).unwrap();
    for name in [format!("{deep}/middle.vhdx"), "m".into()] {
        let length = fs::metadata(dir.join("top.qcow2")).unwrap().len();
        fs::hard_link(dir.join("middle.vhdx"), dir.join(&name)).unwrap();
        dw(dir, &format!("relink -q --parents any top.qcow2 {name}")).ok();
        let info = dw(dir, "info --output json top.qcow2").json();
        assert_eq!(info["backing-filename"], name);
        assert_eq!(fs::metadata(dir.join("top.qcow2")).unwrap().len(), length);
        dw(dir, "check -q top.qcow2").ok();
    }
    dw(dir, "relink -q top.qcow2 middle.vhdx").ok();
    assert!(flat(dir, "top.qcow2") == disk);
}

/// What QEMU makes of a chain of its own images is what we make of it.
#[test]
fn a_commit_and_a_rebase_come_to_what_qemu_makes_of_them() {
    let (Some(qemu), Some(io)) = (QemuImg::find(), QemuIo::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (side, program) in [("ours", None), ("theirs", Some(&qemu))] {
        let side = dir.join(side);
        fs::create_dir(&side).unwrap();
        fs::write(side.join("base.raw"), vec![1; 4 << 20]).unwrap();
        fs::write(side.join("new.raw"), vec![5; 3 << 20]).unwrap();
        let run = |line: &str| match program {
            None => drop(dw(&side, line).ok()),
            Some(qemu) => {
                let words: Vec<&str> = line.split(' ').collect();
                qemu.run_in(&side, &words).ok().unwrap();
            }
        };
        for (parent, child) in [("base.raw", "a.qcow2"), ("a.qcow2", "b.qcow2")] {
            let format = parent.rsplit('.').next().unwrap();
            run(&format!(
                "create -q -f qcow2 -b {parent} -F {format} {child}"
            ));
        }
        for (image, script) in [
            ("a.qcow2", ["write -P 2 100k 1M", "write -z 3M 300k"]),
            ("b.qcow2", ["write -P 3 900k 1M", "write -z 64k 128k"]),
        ] {
            io.run("qcow2", &side.join(image), &script).unwrap();
        }
        run("commit -q b.qcow2");
        run("rebase -b new.raw -F raw b.qcow2");
        run("rebase -f qcow2 -b  b.qcow2");
        run("commit -q a.qcow2");
    }
    for image in ["base.raw", "a.qcow2", "b.qcow2"] {
        let format = image.rsplit('.').next().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|side| dir.join(side).join(image));
        assert!(
            qemu.same((format, &ours), (format, &theirs)).unwrap(),
            "{image}"
        );
        if format == "qcow2" {
            assert_eq!(qemu.check(format, &ours).code, 0);
        }
    }
}
