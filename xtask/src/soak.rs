//! A long life of images.

use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask soak SECONDS [--format qcow2]";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let seconds = match arguments {
        [seconds] => seconds,
        [seconds, name, format] if name == "--format" && format == "qcow2" => seconds,
        _ => return Err(USAGE.into()),
    };
    if seconds.parse::<f64>().is_err() {
        return Err(format!("{seconds:?} is no number of seconds\n{USAGE}"));
    }
    let mut command = sh::cargo(&["test", "--locked", "--release", "--package", "qcow2-format"]);
    command.args([
        "--test",
        "write",
        "--",
        "--nocapture",
        "--ignored",
        "soak::",
    ]);
    sh::run(command.env("DISKWEAVE_SOAK", seconds))
}
