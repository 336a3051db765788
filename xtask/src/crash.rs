//! Crash states by the hundred thousand.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use crate::formats::{self, Format};
use crate::sh::{self, Outcome};

/// The seconds are for each format.
const USAGE: &str = "usage: cargo xtask crash [--format qcow2|vhdx|chain] [--seconds N] [--seed S]";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let formats = formats::take(&mut arguments)?;
    let (mut extent, mut seed) = ("full".to_owned(), None);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--seconds" && value.parse::<f64>().is_ok() => {
                extent.clone_from(value);
            }
            [name, value] if name == "--seed" && value.parse::<u64>().is_ok() => {
                seed = Some(value.clone());
            }
            _ => return Err(USAGE.into()),
        }
    }
    let mut failed = Vec::new();
    for format in formats {
        if let Err(error) = explore(format, &extent, seed.as_deref()) {
            failed.push(format!("{}: {error}", format.name));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(failed.join("; "))
}

fn explore(format: &Format, extent: &str, seed: Option<&str>) -> Outcome {
    let mut command = format.write_test(true);
    command.args(["--", "--nocapture", "crash::"]);
    command.env("DISKWEAVE_CRASH", extent);
    if let Some(seed) = seed {
        command.env("DISKWEAVE_CRASH_SEED", seed);
    }
    println!("$ DISKWEAVE_CRASH={extent} {}", sh::shown(&command));
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let stdout = child.stdout.take().ok_or("cargo has no output")?;
    let mut counts = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        counts = counted(format.name, &line).or(counts);
    }
    let passed = child.wait().map_err(|error| error.to_string())?.success();
    let (states, scenarios, bad) = counts.ok_or("no scenario was told")?;
    println!(
        "{}: {states} states, {scenarios} scenarios, {bad} bad, {:.1} s",
        format.name,
        start.elapsed().as_secs_f64()
    );
    match (passed, bad) {
        (true, 0) => Ok(()),
        _ => Err(format!("{bad} bad states")),
    }
}

/// States, scenarios and bad states of the test program's closing line. A test's own name may come
/// before it on the line.
fn counted(format: &str, line: &str) -> Option<(u64, u64, u64)> {
    let (_, figures) = line.split_once(&format!("{format}: "))?;
    let (states, rest) = figures.split_once(" states, ")?;
    let (scenarios, rest) = rest.split_once(" scenarios, ")?;
    let (bad, _) = rest.split_once(" bad, ")?;
    Some((
        states.parse().ok()?,
        scenarios.parse().ok()?,
        bad.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn the_closing_line_is_found_wherever_the_harness_puts_it() {
        let line = "test a ... qcow2: 181761 states, 89 scenarios, 2 bad, 98.2 s";
        assert_eq!(counted("qcow2", line), Some((181_761, 89, 2)));
        assert_eq!(counted("vhdx", line), None);
        let one = "over a base: 8 states generated, 6 distinct, 25 crash points, 0 bad, 0.01 s";
        assert_eq!(counted("qcow2", one), None);
    }
}
