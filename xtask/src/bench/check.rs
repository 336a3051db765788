//! Checks of a qcow2 in which every cluster is mapped. Only its metadata is stored: the rest of its file
//! is a hole.

use std::path::Path;

use super::process::{Launcher, Runs};
use super::results::{Row, Value};
use super::sparse::create;
use super::{Bench, Outcome, number};

const GROUP: &str = "check";
const GIB: u64 = 1 << 30;
/// Bytes of the disk, unless more were asked for.
const LEAST: u64 = 1 << 40;
/// As `qemu-img` makes them.
const CLUSTER: u64 = 64 << 10;
/// What the program may hold beside its counts: the cache of metadata, and itself.
const CACHES: u64 = (64 + 16) << 20;

pub(super) fn run(bench: &Bench) -> Outcome {
    let launcher = Launcher::new(&bench.dir)?;
    let size = bench.size.max(LEAST);
    let runs = both(bench, &launcher, size)?;
    let what = format!("fully mapped qcow2, {} GiB", size / GIB);
    let row = Row::new(GROUP, format!("time, {what}"), "s", runs[0].seconds());
    let mut row = row.beside("qemu-img check", runs[1].seconds());
    row.peaks = [Some(runs[0].peak()), Some(runs[1].peak())];
    bench.row(&row)?;
    let row = Row::new(GROUP, format!("memory, {what}"), "MiB", runs[0].peak_mib());
    let limit = number(size / CLUSTER / 4 + CACHES) / f64::from(1 << 20);
    bench.row(&row.beside("2 bits a cluster and caches", Value::once(limit)))
}

/// Checks by both of a disk of `size` bytes.
pub(super) fn both(bench: &Bench, launcher: &Launcher, size: u64) -> Outcome<Vec<Runs>> {
    create(
        launcher,
        "qcow2",
        "mapped",
        size,
        &["-o", "preallocation=metadata"],
    )?;
    let programs = [&bench.diskweave, Path::new("qemu-img")];
    let check = ["check", "-f", "qcow2", "mapped"];
    let commands = programs.map(|program| launcher.command(program, &check));
    launcher.in_turn(&commands, bench.rounds, |_| Ok(()))
}
