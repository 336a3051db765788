//! The command in the place of qemu-img, beside qemu-img.

use crate::sh::{self, Outcome};

/// Runs every pair and shows what became of them.
pub(crate) fn run() -> Outcome {
    let arguments = [
        "test",
        "-p",
        "diskweave-cli",
        "--test",
        "compat",
        "--",
        "--nocapture",
    ];
    sh::run(&mut sh::cargo(&arguments))
}
