//! Images under random and sequential requests: this project's engines beside others, the same jobs in
//! turn, in one run. `cargo xtask bench` calls it, and gets what was measured in a file of results.
//!
//! ```text
//!   each engine writes and is read back: whether it is fast at the right thing
//!   for each job:  round 1  ours, others, qemu-img, plain file
//!                  round 2  the same                            … and the median counts
//! ```
//!
//! Requests go through the host's page cache, where the image lies already. What is timed are the
//! requests, with neither opening nor closing.

mod chain;
mod content;
mod engine;
mod fsync;
mod job;
mod launch;
mod peak;
mod place;
mod qemu;
mod results;
mod scale;
mod suite;
mod table;
mod threads;

use std::path::Path;
use std::process::ExitCode;

use place::Place;
use suite::Suite;

/// What anything here ends with: a result, or why there is none.
type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "usage: diskweave-benches qcow2|vhdx DIRECTORY MIB ROUNDS [JOB]
       diskweave-benches chain|threads|fsync|scale DIRECTORY MIB ROUNDS
       diskweave-benches start DIRECTORY MIB ROUNDS COMMAND
       diskweave-benches launch PROGRAM ARGUMENT…";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome {
    let (group, dir, mib, rounds, wanted) = match arguments {
        [launch, command @ ..] if launch == "launch" => return launch::run(command),
        [group, dir, mib, rounds] => (group, dir, mib, rounds, ""),
        [group, dir, mib, rounds, wanted] => (group, dir, mib, rounds, wanted.as_str()),
        _ => return Err(USAGE.into()),
    };
    let dir = Path::new(dir);
    let number = |text: &String| {
        let number = text.parse::<u64>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{text:?} is no number above 0\n{USAGE}"))
    };
    let (size, rounds) = (number(mib)? << 20, number(rounds)?);
    match group.as_str() {
        "chain" => chain::run(dir, size, rounds),
        "start" => chain::overlay::run(dir, rounds, Path::new(wanted)),
        "scale" => scale::run(dir, size, rounds),
        "threads" => threads::run(dir, size, rounds),
        "fsync" => fsync::run(dir),
        format => requests(dir, format, size, rounds, wanted),
    }
}

/// The jobs of one format whose names have `wanted` in them.
fn requests(dir: &Path, format: &str, size: u64, rounds: u64, wanted: &str) -> Outcome {
    let suite = Suite::of(format).ok_or(USAGE)?;
    let place = Place::prepare(dir, suite, size)?;
    content::check(&place);
    table::head(suite);
    let mut remarks = Vec::new();
    for job in (suite.jobs)(size) {
        if job.name.contains(wanted) {
            let done = job::compare(&place, &job, rounds, &mut remarks);
            table::row(&job, &job::middle(&done));
            results::job(format, suite, &job, &done)?;
        }
    }
    table::legend(suite, &remarks);
    Ok(())
}
