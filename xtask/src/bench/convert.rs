//! `diskweave convert` beside `qemu-img convert`: the same jobs, in turn, in one run.
//!
//! Sources are made by `qemu-img`, files are warm in memory, and each program gets its destination
//! fresh. The first result of ours for each pair is held against the source.
//!
//! Ours ends when the result is durable; `qemu-img` by default leaves that to the host, and sees to it
//! itself with `-t writeback`. In memory there is no difference, and no disk that both wait for.

use std::fs;
use std::path::Path;

use super::kinds::{self, Pair, TARGET};
use super::process::{self, Launcher, Runs};
use super::results::{Row, Value};
use super::{Bench, Outcome, number};

const GROUP: &str = "convert";

pub(super) fn run(bench: &Bench) -> Outcome {
    at(bench, Where::Disk, &bench.dir)?;
    bench.in_memory(|dir| at(bench, Where::Memory, dir))
}

/// Where images lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Disk,
    /// Nobody waits for a disk there.
    Memory,
}

impl Where {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "on the disk",
            Self::Memory => "in memory",
        }
    }

    /// As what `qemu-img` is asked: with nothing more, and to end when the result is durable.
    fn promises(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Disk => &[&[], &["-t", "writeback"]],
            Self::Memory => &[&[]],
        }
    }
}

fn at(bench: &Bench, place: Where, dir: &Path) -> Outcome {
    let launcher = Launcher::new(dir)?;
    kinds::make(&launcher, bench.size)?;
    for pair in kinds::pairs() {
        let (runs, lengths) = times(bench, &launcher, place, pair)?;
        for (promise, theirs) in place.promises().iter().zip(&runs[1..]) {
            let reference = match promise {
                [] => format!("qemu-img {}", pair.flags().join(" ")),
                _ => "qemu-img, durable".into(),
            };
            let work = format!("{}, {}", pair.name(), place.name());
            let row = Row::new(GROUP, work, "s", runs[0].seconds());
            let mut row = row.beside(&reference, theirs.seconds());
            row.peaks = [Some(runs[0].peak()), Some(theirs.peak())];
            bench.row(&row)?;
        }
        if place == Where::Memory && pair.target.name.contains('-') {
            let mib = |len: u64| Value::once(number(len) / f64::from(1 << 20));
            let work = format!("length of {}", pair.target.name);
            let row = Row::new(GROUP, work, "MiB", mib(lengths[0]));
            bench.row(&row.beside("qemu-img", mib(lengths[1])))?;
        }
    }
    Ok(())
}

/// Ours, and theirs by each promise; and the lengths of what came out.
fn times(
    bench: &Bench,
    launcher: &Launcher,
    place: Where,
    pair: Pair,
) -> Outcome<(Vec<Runs>, Vec<u64>)> {
    let theirs = place.promises().iter().map(|promise| {
        let flags = [pair.flags(), promise].concat();
        pair.theirs(launcher, &flags, TARGET)
    });
    let ours = pair.ours(launcher, &bench.diskweave);
    let commands: Vec<_> = std::iter::once(ours).chain(theirs).collect();
    let path = launcher.dir().join(TARGET);
    let mut lengths = vec![0; commands.len()];
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
