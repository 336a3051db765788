//! The whole matrix of formats, options and other people's tools, counted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::formats;
use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask interop [--write [--format qcow2|vhdx|chain]]";

/// Everything that is read and made; with `--write` what others and we write to in turns.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let is_of_one = arguments.iter().any(|argument| argument == "--format");
    let formats = formats::take(&mut arguments)?;
    match &arguments[..] {
        [] if !is_of_one => {
            let mut command = sh::cargo(&["test", "--locked", "--release"]);
            command.args(["--package", "diskweave", "--test", "interop"]);
            command.args(["--", "--nocapture"]);
            count(&mut command)
        }
        [write] if write == "--write" => {
            for format in formats {
                let mut command = format.write_test(true);
                count(command.args(["--", "--nocapture", "interop::"]))?;
            }
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// Runs the test `command` in full and adds its figures up.
fn count(command: &mut Command) -> Outcome {
    command
        .env("DISKWEAVE_INTEROP", "full")
        .stdout(Stdio::piped());
    println!("$ DISKWEAVE_INTEROP=full {}", sh::shown(command));
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (mut parts, mut combinations, mut failed) = (0, 0, 0);
    let stdout = child.stdout.take().ok_or("cargo has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        if let Some((ran, bad)) = counted(&line) {
            parts += 1;
            combinations += ran;
            failed += bad;
        }
    }
    let passed = child.wait().map_err(|error| error.to_string())?.success();
    println!("\n{combinations} combinations in {parts} parts, {failed} failed");
    match (passed, parts) {
        (true, 1..) if failed == 0 => Ok(()),
        (true, 0) => Err("nothing ran".into()),
        _ => Err(format!("{failed} of {combinations} combinations failed")),
    }
}

/// The figures of a line `interop: PART: N combinations, M failed`. A test's own name may come
/// before it on the line.
fn counted(line: &str) -> Option<(u64, u64)> {
    let (_, figures) = line.split_once("interop: ")?.1.rsplit_once(": ")?;
    let (ran, failed) = figures.split_once(" combinations, ")?;
    let failed = failed.strip_suffix(" failed")?;
    Some((ran.parse().ok()?, failed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn lines_are_counted_wherever_the_harness_puts_them() {
        let line = "test a ... interop: qcow2 by qemu-img: 56 combinations, 2 failed";
        assert_eq!(counted(line), Some((56, 2)));
        assert_eq!(counted("test result: ok. 4 passed; 0 failed"), None);
    }
}
