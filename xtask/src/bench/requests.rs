//! What the program in `benches` measures: requests to images by this project's engine and by others,
//! chains, syncs, and what it costs to begin.
//!
//! The program is a workspace of its own: the others are crates, and this one has no dependencies.

use std::path::PathBuf;
use std::process::Command;

use super::Bench;
use super::results::VARIABLE;
use crate::sh::{self, Outcome};

/// Some of the others ask for a newer compiler than they need.
const WORKSPACE: [&str; 5] = [
    "--locked",
    "--release",
    "--manifest-path",
    "benches/Cargo.toml",
    "--ignore-rust-version",
];

/// Builds the program; where it lies.
pub(super) fn build() -> Outcome<PathBuf> {
    let target = sh::target_dir()?.join("benches");
    let mut cargo = sh::cargo(&["build"]);
    sh::run(cargo.args(WORKSPACE).env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join("release/diskweave-benches"))
}

/// Has it measure the group `name`.
pub(super) fn run(name: &str, bench: &Bench) -> Outcome {
    let mut command = Command::new(build()?);
    command.arg(name).arg(&bench.dir);
    command.args([(bench.size >> 20).to_string(), bench.rounds.to_string()]);
    // Where the program that users have is timed too.
    if name == "start" {
        command.arg(&bench.diskweave);
    }
    sh::run(command.env(VARIABLE, bench.book.path()))
}
