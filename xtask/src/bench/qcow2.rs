//! Requests to qcow2 images, by this project's engine and by others.
//!
//! The program is a workspace of its own in `benches`: the others are crates, and this one has no
//! dependencies.

use std::path::Path;

use super::Extent;
use crate::sh::{self, Outcome};

pub(super) fn run(dir: &Path, extent: Extent) -> Outcome {
    let program = ["--release", "--manifest-path", "benches/Cargo.toml"];
    let mut command = sh::cargo(&["run", "--locked"]);
    command.args(program).arg("--").arg(dir);
    let numbers = [(extent.size >> 20).to_string(), extent.rounds.to_string()];
    sh::run(command.args(numbers))
}
