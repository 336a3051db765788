//! What is not there must not cost: empty and nearly empty disks of great sizes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::process::{self, Launcher, Runs};
use super::results::Row;
use super::{Bench, Outcome};
use crate::sh;

const GROUP: &str = "sparse";
const GIB: u64 = 1 << 30;
/// Bytes of data in disks that hold some.
const DATA: u64 = 64 << 20;

pub(super) fn run(bench: &Bench) -> Outcome {
    let launcher = Launcher::new(&bench.dir)?;
    create(&launcher, "vhdx", "empty", 64 * GIB, &[])?;
    let runs = both(bench, &launcher, "vhdx", "empty")?;
    let row = Row::new(GROUP, "empty 64 GiB VHDX -> raw", "s", runs[0].seconds());
    let mut row = row.beside("qemu-img", runs[1].seconds());
    row.peaks = [Some(runs[0].peak()), Some(runs[1].peak())];
    bench.row(&row)?;

    for format in ["qcow2", "vhdx"] {
        let [small, large] = ["small", "large"];
        filled(&launcher, format, small, GIB, DATA)?;
        filled(&launcher, format, large, 1024 * GIB, DATA)?;
        let commands = [large, small].map(|name| to_raw(bench, &launcher, format, name));
        let runs = fresh(bench, &launcher, &commands)?;
        let row = Row::new(
            GROUP,
            format!("64 MiB in a 1 TiB {format} -> raw"),
            "s",
            runs[0].seconds(),
        );
        let mut row = row.beside("ours, in 1 GiB", runs[1].seconds());
        row.peaks = [Some(runs[0].peak()), Some(runs[1].peak())];
        bench.row(&row)?;
    }

    create(
        &launcher,
        "vhdx",
        "huge",
        64 << 40,
        &["-o", "block_size=1M"],
    )?;
    let runs = info(bench, &launcher, "vhdx", "huge")?;
    let work = "info on an empty 64 TiB VHDX";
    let row = Row::new(GROUP, work, "MiB", runs[0].peak_mib());
    bench.row(&row.beside("qemu-img", runs[1].peak_mib()))?;
    let row = Row::new(GROUP, "time of info, 64 TiB VHDX", "ms", runs[0].millis());
    bench.row(&row.beside("qemu-img", runs[1].millis()))
}

pub(super) fn create(
    launcher: &Launcher,
    format: &str,
    name: &str,
    size: u64,
    options: &[&str],
) -> Outcome {
    let create = ["create", "-q", "-f", format];
    let mut command = launcher.command(Path::new("qemu-img"), &create);
    let command = command.args(options).arg(name).arg(size.to_string());
    sh::output(command).map(drop)
}

/// Makes an image with `data` bytes of data here and there in a disk of `size`.
pub(super) fn filled(
    launcher: &Launcher,
    format: &str,
    name: &str,
    size: u64,
    data: u64,
) -> Outcome {
    let raw = launcher.dir().join("filled.raw");
    let file = File::create(&raw).map_err(|error| error.to_string())?;
    let piece = vec![0x5A; 1 << 20];
    let pieces = data >> 20;
    let stored = file.set_len(size).and_then(|()| {
        (0..pieces).try_for_each(|piece_at| file.write_all_at(&piece, size / pieces * piece_at))
    });
    stored.map_err(|error| error.to_string())?;
    let convert = ["convert", "-f", "raw", "-O", format];
    let mut command = launcher.command(Path::new("qemu-img"), &convert);
    if format == "vhdx" {
        // Blocks that grow with the disk would grow what is allocated.
        command.args(["-o", "block_size=1M"]);
    }
    sh::output(command.args(["filled.raw", name]))?;
    fs::remove_file(raw).map_err(|error| error.to_string())
}

fn to_raw(bench: &Bench, launcher: &Launcher, format: &str, name: &str) -> std::process::Command {
    let convert = ["convert", "-f", format, "-O", "raw", name, "target"];
    launcher.command(&bench.diskweave, &convert)
}

/// Ours and `qemu-img`, each to a raw image.
pub(super) fn both(
    bench: &Bench,
    launcher: &Launcher,
    format: &str,
    name: &str,
) -> Outcome<Vec<Runs>> {
    let convert = [
        "convert", "-m", "16", "-W", "-f", format, "-O", "raw", name, "target",
    ];
    let commands = [
        to_raw(bench, launcher, format, name),
        launcher.command(Path::new("qemu-img"), &convert),
    ];
    fresh(bench, launcher, &commands)
}

/// In turn, and what comes out goes.
fn fresh(
    bench: &Bench,
    launcher: &Launcher,
    commands: &[std::process::Command],
) -> Outcome<Vec<Runs>> {
    let target = launcher.dir().join("target");
    process::settle();
    launcher.in_turn(commands, bench.rounds, |_| {
        fs::remove_file(&target).map_err(|error| error.to_string())?;
        process::settle();
        Ok(())
    })
}

pub(super) fn info(
    bench: &Bench,
    launcher: &Launcher,
    format: &str,
    name: &str,
) -> Outcome<Vec<Runs>> {
    let programs = [&bench.diskweave, Path::new("qemu-img")];
    let commands = programs.map(|p| launcher.command(p, &["info", "-f", format, name]));
    launcher.in_turn(&commands, bench.rounds, |_| Ok(()))
}
