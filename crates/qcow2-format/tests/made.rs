//! Images of every shape that `qemu-img` makes: the content is what `qemu-img convert` says, and the
//! figures of a check are QEMU's.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use blockdev_core::LoneLayer;
use common::{MIB, check, made, memory, open, qemu};
use testkit::conformance;

const VERSIONS: &[&str] = &[
    "compat=0.10,cluster_size=512",
    "compat=0.10,cluster_size=64k",
    "compat=0.10,cluster_size=2M",
    "compat=1.1,cluster_size=512",
    "compat=1.1,cluster_size=4k",
    "compat=1.1,cluster_size=64k",
    "compat=1.1,cluster_size=2M",
    "compat=1.1,cluster_size=512,refcount_bits=1",
    "compat=1.1,cluster_size=4k,refcount_bits=1",
    "compat=1.1,cluster_size=1k,refcount_bits=2",
    "compat=1.1,cluster_size=16k,refcount_bits=4",
    "compat=1.1,cluster_size=64k,refcount_bits=8",
    "compat=1.1,cluster_size=4k,refcount_bits=32",
    "compat=1.1,cluster_size=512,refcount_bits=64",
    "compat=1.1,lazy_refcounts=on",
    "compat=1.1,preallocation=metadata",
    "compat=1.1,preallocation=falloc,cluster_size=4k",
    "compat=1.1,extended_l2=on,cluster_size=16k",
    "compat=1.1,extended_l2=on,cluster_size=128k",
    "compat=1.1,extended_l2=on,cluster_size=2M",
    "compat=1.1,extended_l2=on,preallocation=metadata",
    "compat=1.1,compression_type=zstd,cluster_size=4k",
    "compat=1.1,compression_type=zstd,cluster_size=64k",
    "compat=1.1,compression_type=zstd,extended_l2=on",
    "compat=1.1,compression_type=zstd,cluster_size=2M",
];

#[test]
fn images_of_every_shape_read_as_qemu_reads_them() {
    let Some((img, _)) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    // The last cluster is not whole.
    let size = 7 * MIB + 512;
    for options in VERSIONS {
        let extended = options.contains("extended");
        let mut writes = vec![
            "write -P 1 0 64k",
            "write -P 2 70000 512",
            "write -P 3 1048576 300000",
            "write -z 1114112 65536",
            "write -P 4 5000192 2048",
            "write -P 5 7340032 512",
            "discard 2M 64k",
        ];
        if !extended && !options.contains("preallocation") {
            writes.extend(["write -c -P 6 2M 2M", "write -P 7 2162688 512"]);
        }
        if options.contains("compat=1.1") {
            writes.push("write -z -u 4M 128k");
        }
        let image = made(dir.path(), "a.qcow2", size, options, &writes);
        let (path, raw) = (dir.path().join("a.qcow2"), dir.path().join("a.raw"));
        img.to_raw("qcow2", &path, &raw).unwrap();
        let content = std::fs::read(&raw).unwrap();
        let opened = open(memory(&image)).unwrap_or_else(|error| panic!("{options}: {error}"));
        let disk = LoneLayer::new(Box::new(opened));
        conformance::readable_at(&disk, &content, &[70_000, 2 * MIB, 2_162_688, 4 * MIB]);
        conformance::refuses_changes(&disk);
        let ours = check(memory(&image)).unwrap();
        let theirs = img.check("qcow2", &path).report.unwrap();
        let figure = |name: &str| theirs[name].as_u64().unwrap_or(0);
        let pairs = [
            (ours.corruptions, figure("corruptions")),
            (ours.leaks, figure("leaks")),
            (ours.allocated_blocks, figure("allocated-clusters")),
            (ours.fragmented_blocks, figure("fragmented-clusters")),
            (ours.compressed_blocks, figure("compressed-clusters")),
            (ours.image_end_offset, figure("image-end-offset")),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(ours, theirs, "{options}: {pairs:?}");
        }
    }
}

#[test]
fn a_zero_cluster_at_place_0_of_a_data_file_counts_as_it_does_for_qemu() {
    // It reads as zeros either way; the figures of a check were one cluster apart.
    let Some((img, _)) = qemu() else { return };
    for extended in ["off", "on"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.raw");
        let options = format!("extended_l2={extended},data_file={}", data.display());
        let writes = ["write -P 1 0 128k", "write -z 0 64k"];
        let image = made(dir.path(), "a.qcow2", MIB, &options, &writes);
        let theirs = img.check("qcow2", &dir.path().join("a.qcow2")).report;
        let theirs = theirs.unwrap()["allocated-clusters"].as_u64().unwrap();
        let ours = check(memory(&image)).unwrap();
        assert_eq!(ours.allocated_blocks, theirs, "extended_l2={extended}");
    }
}
