//! Thousands of damaged images: no panic, no run longer than a second.
//!
//! `DISKWEAVE_MUTATIONS` multiplies the number of runs; the seed of a failing one is in its message.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{MIB, made, qemu, quickly};
use qcow2_format::fuzz;
use testkit::mutate::Mutator;

const SHAPES: &[&str] = &[
    "compat=0.10,cluster_size=4k",
    "compat=1.1,cluster_size=512,refcount_bits=1",
    "compat=1.1,cluster_size=4k,refcount_bits=64",
    "compat=1.1,cluster_size=16k,extended_l2=on",
    "compat=1.1,cluster_size=4k,compression_type=zstd",
    "compat=1.1,cluster_size=64k",
    "compat=1.1,cluster_size=2M",
    "compat=1.1,cluster_size=2M,extended_l2=on",
];

fn scale() -> u64 {
    let text = std::env::var("DISKWEAVE_MUTATIONS").unwrap_or_default();
    text.parse().unwrap_or(1)
}

fn run(what: &str, data: &[u8], body: fn(&[u8])) {
    quickly(what, Duration::from_secs(1), || {
        let result = catch_unwind(AssertUnwindSafe(|| body(data)));
        assert!(result.is_ok(), "{what} panics");
    });
}

#[test]
fn damaged_images_do_no_harm() {
    let Some((img, io)) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        let mut writes = vec!["write -P 1 0 64k", "write -z 256k 64k"];
        if !shape.contains("2M") {
            // What is compressed is a whole cluster.
            writes.push("write -c -P 2 128k 64k");
        }
        made(dir.path(), "a.qcow2", MIB, shape, &writes);
        let path = dir.path().join("a.qcow2");
        let name = path.to_str().unwrap();
        if !shape.contains("refcount_bits=1") {
            img.run(&["snapshot", "-c", "s", name]).ok().unwrap();
            io.run("qcow2", &path, &["write -P 3 0 16k"]).unwrap();
        }
        if !shape.contains("0.10") {
            img.run(&["bitmap", "--add", name, "b"]).ok().unwrap();
        }
        let image = std::fs::read(&path).unwrap();
        let field = |at: usize| common::index(common::be64(&image, at));
        let (l2, _) = common::first_l2(&image);
        let tables = [0, 0, field(40), field(48), field(64), l2];
        let focus: Vec<_> = tables.iter().map(|at| *at..at + 160).collect();
        let mut copy = image.clone();
        // Images of large clusters take longer to copy than to read.
        let runs = if shape.contains("2M") { 50 } else { 800 };
        for seed in 0..runs * scale() {
            Mutator::new(seed).focused(focus.clone()).mutate(&mut copy);
            let what = |body| format!("{body} of {shape} under seed {seed}");
            match seed % 3 {
                0 => run(&what("reading"), &copy, fuzz::open_and_read),
                1 => run(&what("checking"), &copy, fuzz::check),
                _ => {
                    run(
                        &what("structures"),
                        &copy[..copy.len().min(8192)],
                        fuzz::structures,
                    );
                    run(&what("checking"), &copy, fuzz::check);
                }
            }
            copy.clone_from(&image);
        }
    }
}
