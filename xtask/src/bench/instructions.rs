//! How many instructions a step of each hot path executes, counted by callgrind, beside what is recorded.
//!
//! Times on a busy machine say little about a few nanoseconds; a count is the same each time. What the
//! kernel executes is not in it. Each path is run with so many steps and with twice as many: the
//! difference is the steps', and what it took to make the images is in neither.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::requests;
use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask bench instructions [--record]";
const RECORDS: &str = "docs/performance/instructions.tsv";
const HEAD: &str = "# instructions a step, by valgrind: cargo xtask bench instructions --record\n";
/// More than what is recorded by this part is a failure.
const GROWTH: f64 = 0.05;

/// Compares with what is recorded, or records anew. What has no record yet gets one.
pub(super) fn run(arguments: &[String]) -> Outcome {
    let anew = match arguments {
        [] => false,
        [record] if record == "--record" => true,
        _ => return Err(USAGE.into()),
    };
    if !sh::installed("valgrind") {
        return Err("there is no valgrind to count with".into());
    }
    let loops = requests::build()?.with_file_name("loops");
    let file = sh::root().join(RECORDS);
    let mut records = read(&file)?;
    let dir = sh::target_dir()?.join(format!("loops-{}", std::process::id()));
    let mut grown = Vec::new();
    println!("{:<22}{:>12}{:>12}{:>9}", "", "now", "recorded", "growth");
    for line in sh::output(&mut Command::new(&loops))?.lines() {
        let (name, steps) = line.split_once(' ').ok_or("a name and a number")?;
        let steps: u64 = steps.parse().map_err(|_| "no number of steps")?;
        let now = counted(&loops, &dir, name, steps)?;
        let Some(&before) = records.get(name) else {
            println!("{name:<22}{now:>12.0}{:>12}", "-");
            records.insert(name.into(), now);
            continue;
        };
        let growth = now / before - 1.0;
        println!(
            "{name:<22}{now:>12.0}{before:>12.0}{:>8.1}%",
            growth * 100.0
        );
        if anew {
            records.insert(name.into(), now);
        } else if growth > GROWTH {
            grown.push(name.to_owned());
        }
    }
    write(&file, &records)?;
    match grown.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "more instructions than recorded: {}",
            grown.join(", ")
        )),
    }
}

/// Instructions of one step.
fn counted(loops: &Path, dir: &Path, name: &str, steps: u64) -> Outcome<f64> {
    let once = executed(loops, dir, name, steps)?;
    let twice = executed(loops, dir, name, 2 * steps)?;
    let more = twice.checked_sub(once).ok_or("twice as many took less")?;
    Ok(super::number(more) / super::number(steps))
}

/// Instructions of a run of so many steps, and of what it takes to prepare them.
fn executed(loops: &Path, dir: &Path, name: &str, steps: u64) -> Outcome<u64> {
    fs::create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(loops).arg(dir).args([name, &steps.to_string()]);
    let output = command.output().map_err(|error| error.to_string());
    fs::remove_dir_all(dir).map_err(|error| error.to_string())?;
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {said}"));
    }
    collected(&said).ok_or_else(|| format!("{name}: no count in {said}"))
}

/// The number that callgrind ends with.
fn collected(said: &str) -> Option<u64> {
    let (_, rest) = said.rsplit_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn read(file: &Path) -> Outcome<BTreeMap<String, f64>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let record = |line: &str| {
        let (name, count) = line.split_once('\t')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    lines
        .map(|line| record(line).ok_or_else(|| format!("{RECORDS}: no record: {line}")))
        .collect()
}

fn write(file: &Path, records: &BTreeMap<String, f64>) -> Outcome {
    let mut text = String::from(HEAD);
    for (name, count) in records {
        let _ = writeln!(text, "{name}\t{count:.0}");
    }
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_behind_all_else_that_is_said() {
        let said = "==1== Events    : Ir\n==1== Collected : 1234\n==1== \n==1== I refs: 1,234\n";
        assert_eq!(collected(said), Some(1234));
        assert_eq!(collected("==1== killed"), None);
    }
}
