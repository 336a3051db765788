//! How much memory conversions take at most, every pair of formats, and `info`.

use std::fs;
use std::path::Path;

use super::kinds::{self, PLAIN, TARGET};
use super::process::Launcher;
use super::results::Row;
use super::{Bench, Outcome};

const GROUP: &str = "memory";

pub(super) fn run(bench: &Bench) -> Outcome {
    let launcher = Launcher::new(&bench.dir)?;
    kinds::make(&launcher, bench.size)?;
    for pair in kinds::pairs() {
        let commands = [
            pair.ours(&launcher, &bench.diskweave),
            pair.theirs(&launcher, pair.flags(), TARGET),
        ];
        let target = launcher.dir().join(TARGET);
        let runs = launcher.in_turn(&commands, bench.rounds, |_| {
            fs::remove_file(&target).map_err(|error| error.to_string())
        })?;
        let row = Row::new(
            GROUP,
            format!("convert {}", pair.name()),
            "MiB",
            runs[0].peak_mib(),
        );
        bench.row(&row.beside("qemu-img", runs[1].peak_mib()))?;
    }
    for kind in &PLAIN {
        let info = ["info", "-f", kind.format, kind.name];
        let programs = [&bench.diskweave, Path::new("qemu-img")];
        let commands = programs.map(|program| launcher.command(program, &info));
        let runs = launcher.in_turn(&commands, bench.rounds, |_| Ok(()))?;
        let row = Row::new(
            GROUP,
            format!("info {}", kind.name),
            "MiB",
            runs[0].peak_mib(),
        );
        bench.row(&row.beside("qemu-img", runs[1].peak_mib()))?;
    }
    Ok(())
}
