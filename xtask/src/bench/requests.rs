//! Requests to images of one format or to chains, by this project's engine and by others.
//!
//! The program is a workspace of its own in `benches`: the others are crates, and this one has no
//! dependencies.

use std::path::Path;

use super::Extent;
use crate::sh::{self, Outcome};

pub(super) fn qcow2(dir: &Path, extent: Extent) -> Outcome {
    run("qcow2", dir, extent, None)
}

pub(super) fn vhdx(dir: &Path, extent: Extent) -> Outcome {
    run("vhdx", dir, extent, None)
}

pub(super) fn chain(dir: &Path, extent: Extent) -> Outcome {
    run("chain", dir, extent, Some(&sh::diskweave()?))
}

/// `command` is the program that users have, where it is timed too.
fn run(suite: &str, dir: &Path, extent: Extent, command: Option<&Path>) -> Outcome {
    // Some of the others ask for a newer compiler than they need.
    let program = [
        "--release",
        "--manifest-path",
        "benches/Cargo.toml",
        "--ignore-rust-version",
    ];
    let mut cargo = sh::cargo(&["run", "--locked"]);
    cargo.args(program).args(["--", suite]).arg(dir);
    let numbers = [(extent.size >> 20).to_string(), extent.rounds.to_string()];
    sh::run(cargo.args(numbers).args(command))
}
