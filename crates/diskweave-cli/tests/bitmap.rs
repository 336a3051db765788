//! `bitmap`: what is listed.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::{MIB, dw, pattern, save};
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::VhdxBuilder;

#[test]
fn bitmaps_that_qemu_made_are_listed_with_what_they_are() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "create -q -f qcow2 a 4M",
        "bitmap --add a b0",
        "bitmap --add -g 4k --disable a b1",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        qemu.run_in(dir.path(), &words).ok().unwrap();
    }
    let expected = json!([
        { "flags": ["auto"], "name": "b0", "granularity": 65536 },
        { "flags": [], "name": "b1", "granularity": 4096 },
    ]);
    assert_eq!(dw(dir.path(), "bitmap --output json a").json(), expected);
    let text = dw(dir.path(), "bitmap a").ok();
    let lines = [
        "Bitmaps: 2",
        "       65536 b0 (auto)",
        "        4096 b1",
        "",
    ];
    assert_eq!(text, lines.join("\n"));
}

#[test]
fn an_image_without_bitmaps_has_none_to_list() {
    let dir = tempfile::tempdir().unwrap();
    let image = VhdxBuilder::new(4 * MIB).block(0, pattern(1));
    save(dir.path(), "disk.vhdx", &image);
    assert_eq!(dw(dir.path(), "bitmap disk.vhdx").ok(), "Bitmaps: 0\n");
    assert_eq!(
        dw(dir.path(), "bitmap --output json disk.vhdx").json(),
        json!([])
    );
}
