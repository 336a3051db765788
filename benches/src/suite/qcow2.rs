//! qcow2: clusters of 64 KiB, which every engine can.

use std::path::Path;

use super::Suite;
use crate::Outcome;
use crate::engine::{Engine, Format};
use crate::job::Order::{self, Once, Random, Sequential};
use crate::job::Start::{Fresh, Full, Part};
use crate::job::{Job, LARGE};
use crate::place::OVERWRITTEN;
use crate::qemu;

const CLUSTER: u64 = 64 << 10;

pub(super) static SUITE: Suite = Suite {
    format: Format::Qcow2,
    engines: &[
        Engine::Ours,
        Engine::Imago,
        Engine::Qcow2Rs,
        Engine::Virtdisk,
        Engine::QemuImg,
        Engine::Plain,
    ],
    jobs,
    create,
    fill,
    derive: None,
    notes: "\
qcow2-rs works in one thread. imago is built synchronous. Fresh 4K writes are one to each cluster.",
};

/// The first 4K of every cluster.
const FIRST: Order = Once(CLUSTER);

fn jobs(size: u64) -> Vec<Job> {
    let clusters = size / CLUSTER;
    let large = size / LARGE;
    let (one, two, some) = (&[1][..], &[1, 2][..], &[1, 2, 4][..]);
    let jobs = [
        Job::each("4K random read", Full.read(Random), 400_000, some),
        Job::each("4K random overwrite", Part.write(Random), 300_000, some),
        Job::each("4K random fresh write", Fresh.write(FIRST), clusters, some),
        Job::each("4K overwrite + flush", Part.write_flush(Random), 400, one),
        Job::each(
            "4K fresh write + flush",
            Fresh.write_flush(FIRST),
            clusters.min(400),
            one,
        ),
        Job::each("1M sequential read", Full.read(Sequential), 4 * large, some),
        Job::each(
            "1M sequential overwrite",
            Part.write(Sequential),
            4 * (OVERWRITTEN / LARGE),
            one,
        ),
        Job::each(
            "1M sequential fresh",
            Fresh.write(Sequential),
            large.min(256),
            two,
        ),
    ];
    jobs.concat()
}

fn create(path: &Path, size: u64) -> Outcome {
    qemu::create(path, "qcow2", size, &[])?;
    whole_clusters(path)
}

fn fill(path: &Path, from: &Path) -> Outcome {
    qemu::convert(from, path, "qcow2", &["-S", "0"])?;
    whole_clusters(path)
}

/// Images end where their last entry does; qcow2-rs reads whole blocks, and complains.
fn whole_clusters(path: &Path) -> Outcome {
    let file = std::fs::OpenOptions::new().write(true).open(path);
    let longer =
        file.and_then(|file| file.set_len(file.metadata()?.len().next_multiple_of(CLUSTER)));
    longer.map_err(|error| error.to_string())
}
