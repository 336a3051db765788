//! Requests to images of one format, by this project's engine and by others.
//!
//! The program is a workspace of its own in `benches`: the others are crates, and this one has no
//! dependencies.

use std::path::Path;

use super::Extent;
use crate::sh::{self, Outcome};

pub(super) fn qcow2(dir: &Path, extent: Extent) -> Outcome {
    run("qcow2", dir, extent)
}

pub(super) fn vhdx(dir: &Path, extent: Extent) -> Outcome {
    run("vhdx", dir, extent)
}

fn run(format: &str, dir: &Path, extent: Extent) -> Outcome {
    // Some of the others ask for a newer compiler than they need.
    let program = [
        "--release",
        "--manifest-path",
        "benches/Cargo.toml",
        "--ignore-rust-version",
    ];
    let mut command = sh::cargo(&["run", "--locked"]);
    command.args(program).args(["--", format]).arg(dir);
    let numbers = [(extent.size >> 20).to_string(), extent.rounds.to_string()];
    sh::run(command.args(numbers))
}
