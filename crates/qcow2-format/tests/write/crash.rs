//! Every state a crash can leave.

use std::sync::Arc;

use blockdev_core::ZeroFlags;
use testkit::crash::{Budget, Control, CrashExplorer, Report, Scenario};

use crate::subject::{Qcow2, backed, empty, filled, options};

const UNMAP: ZeroFlags = ZeroFlags {
    may_unmap: true,
    no_fallback: false,
};
const KEEP: ZeroFlags = ZeroFlags {
    may_unmap: false,
    no_fallback: false,
};

fn explore(subject: &Qcow2, scenario: &Scenario<'_, Qcow2>) -> Report {
    let report = CrashExplorer::new(subject, Budget::states(2000)).run(scenario);
    println!("{report}");
    report.assert_clean();
    report
}

#[test]
fn fresh_clusters() {
    for bits in [9, 12] {
        let image = empty(options(256 << 10, bits));
        let scenario = Scenario::new(format!("allocate, {bits} bits"), image, |d| {
            d.write(0, 512)?;
            d.write(70_000, 9000)?;
            d.flush()?;
            d.write(512, 4096)?;
            d.write(200_000, 20_000)?;
            d.flush()?;
            d.write(100, 1000)?;
            d.write(69_000, 3000)
        });
        explore(&Qcow2::default(), &scenario);
    }
}

#[test]
fn zeros_and_space_used_again() {
    let content: Vec<u8> = (0..128u32 << 10)
        .map(|i| (i / 512 % 255 + 1) as u8)
        .collect();
    for bits in [9, 12] {
        let image = filled(&content, options(content.len() as u64, bits));
        let scenario = Scenario::new(format!("discard and reuse, {bits} bits"), image, |d| {
            d.discard(8192, 16_384)?;
            d.write(70_000, 3000)?;
            d.flush()?;
            d.write(9000, 5000)?;
            d.write_zeroes(100_000, 9000, UNMAP)?;
            d.write_zeroes(40_000, 9000, KEEP)?;
            d.flush()?;
            d.write(99_000, 9000)?;
            d.write(41_000, 500)?;
            d.discard(0, 65_536)?;
            d.flush()?;
            d.write(30_000, 20_000)
        });
        explore(&Qcow2::default(), &scenario);
    }
}

#[test]
fn over_a_base() {
    let base: Vec<u8> = (0..100u32 << 10)
        .map(|i| (i / 512 % 255 + 1) as u8)
        .collect();
    let subject = Qcow2 {
        base: Arc::new(base),
    };
    for bits in [10, 12] {
        let image = backed(empty(options(128 << 10, bits)), bits);
        let scenario = Scenario::new(format!("over a base, {bits} bits"), image, |d| {
            d.write(700, 300)?;
            d.write_zeroes(8192, 9000, UNMAP)?;
            d.discard(40_960, 8192)?;
            d.flush()?;
            d.write(9000, 100)?;
            d.write(42_000, 6000)?;
            d.write(100_000, 9000)?;
            d.flush()?;
            d.discard(0, 65_536)?;
            d.write(4000, 100)
        });
        explore(&subject, &scenario);
    }
}

#[test]
fn a_refcount_table_that_grows() {
    // A refcount of 64 bits and clusters of 512 bytes: a block counts 64 clusters, a table of one
    // cluster names 64 blocks.
    let mut shape = options(4 << 20, 9);
    shape.refcount_order = 6;
    let image = empty(shape);
    let scenario = Scenario::new("refcount blocks", image, |d| {
        for at in 0..4 {
            d.write(at * 70_000, 40_000)?;
        }
        d.flush()?;
        d.write(3 << 20, 70_000)
    });
    explore(&Qcow2::default(), &scenario);
}

#[test]
fn subclusters() {
    let mut shape = options(512 << 10, 14);
    shape.extended_l2 = true;
    let image = empty(shape);
    let scenario = Scenario::new("extended L2 entries", image, |d| {
        d.write(1000, 3000)?;
        d.flush()?;
        d.write(300, 100)?;
        d.write(9000, 100)?;
        d.write_zeroes(512, 2048, UNMAP)?;
        d.flush()?;
        d.write(0, 70_000)?;
        d.discard(16_384, 16_384)?;
        d.flush()?;
        d.write(20_000, 700)
    });
    explore(&Qcow2::default(), &scenario);
}

fn content(kib: u32) -> Vec<u8> {
    (0..kib << 10).map(|i| (i / 512 % 255 + 1) as u8).collect()
}

#[test]
fn snapshots() {
    for (bits, version) in [(9, 3), (12, 3), (12, 2)] {
        let mut shape = options(64 << 10, bits);
        shape.version = version;
        let image = filled(&content(64), shape);
        let name = format!("snapshots, {bits} bits, version {version}");
        let scenario = Scenario::new(name, image, |d| {
            d.write(1000, 9000)?;
            d.control(Control::SnapshotCreate(1))?;
            d.write(4000, 9000)?;
            d.discard(16_384, 8192)?;
            d.flush()?;
            d.control(Control::SnapshotCreate(2))?;
            d.write(5000, 700)?;
            d.control(Control::SnapshotApply(1))?;
            d.write(30_000, 3000)?;
            d.flush()?;
            d.control(Control::SnapshotDelete(1))?;
            d.write(30_500, 3000)?;
            d.control(Control::SnapshotDelete(2))?;
            d.write(60, 30_000)
        });
        explore(&Qcow2::default(), &scenario);
    }
}

#[test]
fn another_size() {
    for (bits, version) in [(9, 3), (12, 2)] {
        let mut shape = options(60 << 10, bits);
        shape.version = version;
        let image = filled(&content(60), shape);
        let name = format!("resize, {bits} bits, version {version}");
        let scenario = Scenario::new(name, image, |d| {
            d.write(1000, 9000)?;
            d.control(Control::Resize(300 << 10))?;
            d.write(200_000, 9000)?;
            d.flush()?;
            d.control(Control::Resize((30 << 10) + 512))?;
            d.write(20_000, 9000)?;
            d.control(Control::Resize(70 << 10))?;
            d.write(33_000, 700)
        });
        explore(&Qcow2::default(), &scenario);
    }
}

#[test]
fn another_size_over_a_longer_base() {
    let subject = Qcow2 {
        base: Arc::new(content(200)),
    };
    let image = backed(empty(options(33 << 10, 12)), 12);
    let scenario = Scenario::new("resize over a longer base", image, |d| {
        d.write(700, 300)?;
        d.control(Control::Resize(120 << 10))?;
        d.write(33 << 10, 700)?;
        d.flush()?;
        d.control(Control::Resize(20 << 10))?;
        d.control(Control::Resize(300 << 10))?;
        d.write(200_000, 700)
    });
    explore(&subject, &scenario);
}

#[test]
fn lazy_refcounts() {
    let mut shape = options(128 << 10, 12);
    shape.lazy_refcounts = true;
    let image = empty(shape);
    let scenario = Scenario::new("lazy refcounts", image, |d| {
        d.write(1000, 9000)?;
        d.flush()?;
        d.write(50_000, 9000)?;
        d.discard(0, 8192)?;
        d.reopen()?;
        d.write(4000, 9000)
    });
    explore(&Qcow2::default(), &scenario);
}
