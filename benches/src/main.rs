//! qcow2 images under random and sequential requests: this project's engine beside others, the same
//! jobs in turn, in one run. `cargo xtask bench qcow2` calls it.
//!
//! ```text
//!   for each job:  round 1  ours, imago, qcow2-rs, qemu-img, plain file
//!                  round 2  the same                                       … and the least time counts
//! ```
//!
//! Requests go through the host's page cache, where the image lies already. What is timed are the
//! requests, with neither opening nor closing.

mod engine;
mod job;
mod qemu;
mod table;

use std::path::Path;
use std::process::ExitCode;

/// What anything here ends with: a result, or why there is none.
type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "usage: diskweave-benches DIRECTORY MIB ROUNDS [JOB]";

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
    let (dir, mib, rounds, wanted) = match arguments {
        [dir, mib, rounds] => (dir, mib, rounds, ""),
        [dir, mib, rounds, wanted] => (dir, mib, rounds, wanted.as_str()),
        _ => return Err(USAGE.into()),
    };
    let number = |text: &String| {
        let number = text.parse::<u64>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{text:?} is no number above 0\n{USAGE}"))
    };
    let (size, rounds) = (number(mib)? << 20, number(rounds)?);
    let bench = job::Bench::prepare(Path::new(dir), size)?;
    table::head();
    for job in job::all(size) {
        if job.name.contains(wanted) {
            table::row(&job, &bench.compare(&job, rounds)?);
        }
    }
    table::legend();
    Ok(())
}
