//! Large reads of a scattered image past the page cache: one after the other, and all at once by io_uring.
//!
//! Clusters lie in another order than the disk has them, so that a request is many reads of the host, and each
//! of them waits for the disk.

use std::path::Path;

use super::process::{self, Launcher};
use super::results::{Row, Value};
use super::sparse::create;
use super::{Bench, Outcome, number};
use crate::sh;

const GROUP: &str = "queue";
const CLUSTER: u64 = 64 << 10;
/// Odd, so that steps of so many clusters come by all of a power of two.
const FAR: u64 = 40_503;

pub(super) fn run(bench: &Bench) -> Outcome {
    let launcher = Launcher::new(&bench.dir)?;
    let size = bench.size.next_power_of_two();
    create(&launcher, "qcow2", "scattered", size, &[])?;
    let clusters = size / CLUSTER;
    let step = (FAR % clusters * CLUSTER).to_string();
    let mut fill = launcher.command(
        Path::new("qemu-img"),
        &["bench", "-w", "-f", "qcow2", "-d", "1"],
    );
    fill.args(["-c", &clusters.to_string(), "-s", "64k", "-S", &step]);
    sh::output(fill.args(["--pattern", "90", "scattered"]))?;
    process::settle();

    let count = (size >> 20).to_string();
    let reads = [
        "bench", "-f", "qcow2", "-t", "none", "-s", "1M", "-d", "1", "-c", &count,
    ];
    let command = |program: &Path, way: &[&str]| {
        let mut command = launcher.command(program, &reads);
        command.args(way).arg("scattered");
        command
    };
    let ours = &bench.diskweave;
    let qemu = Path::new("qemu-img");
    let commands = [
        command(ours, &["-i", "io_uring"]),
        command(ours, &[]),
        command(qemu, &["-i", "io_uring"]),
        command(qemu, &["-i", "threads"]),
    ];
    let runs = launcher.in_turn(&commands, bench.rounds, |_| Ok(()))?;
    let rates: Vec<_> = runs.iter().map(|runs| rate(size, runs.seconds())).collect();
    for (who, (name, theirs)) in [
        "ours, one after the other",
        "qemu-img -i io_uring",
        "qemu-img -i threads",
    ]
    .into_iter()
    .zip(&rates[1..])
    .enumerate()
    {
        let row = Row::new(GROUP, "1M reads of a scattered qcow2", "MB/s", rates[0]);
        let mut row = row.beside(name, *theirs);
        row.peaks = [Some(runs[0].peak()), Some(runs[who + 1].peak())];
        bench.row(&row)?;
    }
    Ok(())
}

/// Megabytes a second.
fn rate(size: u64, Value { best, median }: Value) -> Value {
    let megabytes = number(size) / 1e6;
    Value {
        best: megabytes / best,
        median: megabytes / median,
    }
}
