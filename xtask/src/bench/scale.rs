//! How time and memory go with the size of a disk and with what is allocated of it: the points of curves.
//! Those of chains and threads come from the program in `benches`.
//!
//! Who takes longer than some seconds for one point is not asked for the larger ones.

use std::path::Path;

use super::process::{Launcher, Runs};
use super::{Bench, Outcome, check, requests, sparse};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Seconds, after which a program has shown where its curve goes.
const LONG: f64 = 4.0;

const WHO: [&str; 2] = ["ours", "qemu-img"];

pub(super) fn run(bench: &Bench) -> Outcome {
    let launcher = Launcher::new(&bench.dir)?;
    by_virtual_size(bench, &launcher)?;
    by_allocated_size(bench, &launcher)?;
    by_info(bench, &launcher)?;
    by_check(bench, &launcher)?;
    requests::run("scale", bench)
}

/// A disk that is converted holds 16 MiB, however large it is.
fn by_virtual_size(bench: &Bench, launcher: &Launcher) -> Outcome {
    for format in ["qcow2", "vhdx"] {
        for size in [GIB, 16 * GIB, 128 * GIB, TIB] {
            sparse::filled(launcher, format, "disk", size, 16 * MIB)?;
            let runs = sparse::both(bench, launcher, format, "disk")?;
            let curve = format!("virtual-{format}");
            if points(bench, &curve, size / GIB, &runs)? > LONG {
                break;
            }
        }
    }
    Ok(())
}

/// A disk of 8 GiB holds ever more, up to what was asked for.
fn by_allocated_size(bench: &Bench, launcher: &Launcher) -> Outcome {
    for format in ["qcow2", "vhdx"] {
        let sizes = (4..14).map(|bits| MIB << bits);
        for data in sizes.take_while(|data| *data <= bench.size) {
            sparse::filled(launcher, format, "disk", 8 * GIB, data)?;
            let runs = sparse::both(bench, launcher, format, "disk")?;
            points(bench, &format!("allocated-{format}"), data / MIB, &runs)?;
        }
    }
    Ok(())
}

/// Empty disks of VHDX with the smallest blocks.
fn by_info(bench: &Bench, launcher: &Launcher) -> Outcome {
    for size in [
        TIB / 64,
        TIB / 16,
        TIB / 4,
        TIB,
        4 * TIB,
        16 * TIB,
        64 * TIB,
    ] {
        let options = ["-o", "block_size=1M"];
        sparse::create(launcher, "vhdx", "disk", size, &options)?;
        let runs = sparse::info(bench, launcher, "vhdx", "disk")?;
        points(bench, "info-vhdx", size / GIB, &runs)?;
    }
    Ok(())
}

/// Every cluster of a qcow2 is mapped.
fn by_check(bench: &Bench, launcher: &Launcher) -> Outcome {
    for size in [GIB, 4 * GIB, 16 * GIB, 64 * GIB, 256 * GIB] {
        let runs = check::both(bench, launcher, size)?;
        let _ = std::fs::remove_file(launcher.dir().join(Path::new("mapped")));
        points(bench, "check-qcow2", size / GIB, &runs)?;
    }
    Ok(())
}

/// Time and memory of each; the longest time.
fn points(bench: &Bench, curve: &str, x: u64, runs: &[Runs]) -> Outcome<f64> {
    let mut longest: f64 = 0.0;
    for (who, runs) in WHO.iter().zip(runs) {
        let seconds = runs.seconds().median;
        bench.point(&format!("{curve}-time"), who, x, seconds)?;
        bench.point(&format!("{curve}-memory"), who, x, runs.peak_mib().median)?;
        longest = longest.max(seconds);
    }
    Ok(longest)
}
