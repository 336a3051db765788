//! What reads cost the host.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use blockdev_core::{BlockDevice, LoneLayer};
use common::{MIB, made, memory, open, qemu};
use testkit::counting::{CountingStorage, Op};

#[test]
fn a_run_of_clusters_that_follow_each_other_is_one_host_read() {
    let Some(_) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    for options in [
        "cluster_size=64k",
        "cluster_size=4k",
        "cluster_size=64k,extended_l2=on",
    ] {
        let image = made(dir.path(), "a", 8 * MIB, options, &["write -P 1 1M 1M"]);
        let storage = CountingStorage::new(memory(&image));
        let disk = LoneLayer::new(Box::new(open(storage.clone()).unwrap()));
        let mut buf = vec![0; 1 << 20];
        disk.read_at(&mut buf, MIB).unwrap();
        let ((), calls) = storage.during(|| disk.read_at(&mut buf, MIB).unwrap());
        let reads: Vec<_> = calls.iter().filter(|call| call.op == Op::Read).collect();
        // The tables are in memory by now. Small clusters may have an L2 table among them.
        let most = if options.contains("4k") { 3 } else { 1 };
        assert!(reads.len() <= most, "{options}: {reads:?}");
        assert!(buf.iter().all(|byte| *byte == 1));
        let ((), calls) = storage.during(|| disk.read_at(&mut buf, 4 * MIB).unwrap());
        assert!(
            calls.iter().all(|call| call.op != Op::Read),
            "holes cost nothing"
        );
    }
}

#[test]
fn a_compressed_cluster_is_read_once_for_a_sequential_reader() {
    let Some(_) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = made(dir.path(), "a", 8 * MIB, "", &["write -c -P 1 0 1M"]);
    let storage = CountingStorage::new(memory(&image));
    let disk = LoneLayer::new(Box::new(open(storage.clone()).unwrap()));
    disk.block_status(0, MIB).unwrap();
    let ((), calls) = storage.during(|| {
        let mut buf = [0; 4096];
        for at in (0..MIB).step_by(4096) {
            disk.read_at(&mut buf, at).unwrap();
            assert!(buf.iter().all(|byte| *byte == 1));
        }
    });
    let reads = calls.iter().filter(|call| call.op == Op::Read).count();
    assert!(reads <= 16 + 2, "{reads} reads for 16 clusters");
}
