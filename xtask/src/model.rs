//! The locking, run by a model that tries the orders in which threads can take their steps.
//!
//! The crates are built with `--cfg shuttle`, by which their locks and counters become the model's;
//! what is built lies apart, as everything would be built anew each time.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask model [SECONDS]";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut command = tests(&sh::root(), &sh::target_dir()?.join("model"));
    command.args(["--", "--nocapture", "model::"]);
    match arguments {
        [] => {}
        [seconds] if seconds.parse::<f64>().is_ok() => {
            command.env("DISKWEAVE_MODEL", seconds);
        }
        _ => return Err(USAGE.into()),
    }
    println!("$ RUSTFLAGS='--cfg shuttle' {}", sh::shown(&command));
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let stdout = child.stdout.take().ok_or("cargo has no output")?;
    let (mut orders, mut lives) = (0, 0);
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        if let Some(more) = counted(&line) {
            (orders, lives) = (orders + more, lives + 1);
        }
    }
    let passed = child.wait().map_err(|error| error.to_string())?.success();
    let seconds = start.elapsed().as_secs_f64();
    println!("model: {orders} orders of {lives} lives, {seconds:.1} s");
    match (passed, lives) {
        (false, _) => Err("an order breaks the locking, or nothing could be built".into()),
        (true, 0) => Err("nothing was run".into()),
        (true, _) => Ok(()),
    }
}

/// The tests of the workspace at `root` that the model runs, by name.
pub(crate) fn tests(root: &Path, target: &Path) -> Command {
    let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(" --cfg shuttle");
    let mut command = sh::cargo(&["test", "--quiet", "--locked", "--lib"]);
    command
        .current_dir(root)
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", target)
        .args(["--package", "blockdev-core", "--package", "qcow2-format"]);
    command
}

/// The number of orders, if the line tells one.
fn counted(line: &str) -> Option<u64> {
    let (_, told) = line.split_once("model: ")?;
    told.split_once(" orders of ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn orders_are_counted_wherever_the_harness_puts_them() {
        let line = "..model: 2000 orders of two guests in place, 0.3 s";
        assert_eq!(counted(line), Some(2000));
        assert_eq!(counted("test io::model::pins::a_reader ... ok"), None);
    }
}
