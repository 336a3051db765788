//! `diskweave convert` beside `qemu-img convert`: the same jobs, in turn, in one run.
//!
//! Sources are made by `qemu-img`, files are warm in memory, and each program gets its destination
//! fresh. The first result of ours for each pair is held against the source.
//!
//! Ours ends when the result is durable; `qemu-img` by default leaves that to the host, and sees to it
//! itself with `-t writeback`.

use std::fs;

use super::kinds::{self, Pair, TARGET};
use super::process::{self, Launcher, Runs};
use super::results::{Row, Value};
use super::{Bench, Outcome, number};

const GROUP: &str = "convert";

pub(super) fn run(bench: &Bench) -> Outcome {
    let launcher = Launcher::new(&bench.dir)?;
    kinds::make(&launcher, bench.size)?;
    for pair in kinds::pairs() {
        let (runs, lengths) = times(bench, &launcher, pair)?;
        write(bench, pair, &runs, lengths)?;
    }
    Ok(())
}

/// Ours, theirs, theirs durable; and the lengths of what came out.
fn times(bench: &Bench, launcher: &Launcher, pair: Pair) -> Outcome<(Vec<Runs>, [u64; 3])> {
    let durable = [pair.flags(), &["-t", "writeback"]].concat();
    let commands = [
        pair.ours(launcher, &bench.diskweave),
        pair.theirs(launcher, pair.flags(), TARGET),
        pair.theirs(launcher, &durable, TARGET),
    ];
    let path = launcher.dir().join(TARGET);
    let mut lengths = [0; 3];
    process::settle();
    let runs = launcher.in_turn(&commands, bench.rounds, |who| {
        let is_first = lengths[who] == 0;
        lengths[who] = fs::metadata(&path).map_err(|e| e.to_string())?.len();
        if who == 0 && is_first {
            pair.is_the_same(launcher)?;
        }
        fs::remove_file(&path).map_err(|error| error.to_string())?;
        process::settle();
        Ok(())
    })?;
    Ok((runs, lengths))
}

fn write(bench: &Bench, pair: Pair, runs: &[Runs], lengths: [u64; 3]) -> Outcome {
    let flags = pair.flags().join(" ");
    let references = [
        format!("qemu-img {flags}"),
        format!("qemu-img {flags}, -t writeback"),
    ];
    for (reference, theirs) in references.iter().zip(&runs[1..]) {
        let reference = if reference.ends_with("writeback") {
            "qemu-img, durable"
        } else {
            reference
        };
        let row = Row::new(GROUP, pair.name(), "s", runs[0].seconds());
        let mut row = row.beside(reference, theirs.seconds());
        row.peaks = [Some(runs[0].peak()), Some(theirs.peak())];
        bench.row(&row)?;
    }
    if pair.target.name.contains('-') {
        let mib = |len: u64| Value::once(number(len) / f64::from(1 << 20));
        let work = format!("length of {}", pair.target.name);
        let row = Row::new(GROUP, work, "MiB", mib(lengths[0]));
        bench.row(&row.beside("qemu-img", mib(lengths[1])))?;
    }
    Ok(())
}
