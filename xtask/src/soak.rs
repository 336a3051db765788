//! A long life of images.

use crate::formats;
use crate::sh::{self, Outcome};

/// The seconds are for each format.
const USAGE: &str = "usage: cargo xtask soak SECONDS [--format qcow2|vhdx|chain]";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let formats = formats::take(&mut arguments)?;
    let [seconds] = &arguments[..] else {
        return Err(USAGE.into());
    };
    if seconds.parse::<f64>().is_err() {
        return Err(format!("{seconds:?} is no number of seconds\n{USAGE}"));
    }
    for format in formats {
        let mut command = format.write_test(true);
        command.args(["--", "--nocapture", "--ignored", "soak::"]);
        sh::run(command.env("DISKWEAVE_SOAK", seconds))?;
    }
    Ok(())
}
