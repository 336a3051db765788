//! Images under random and sequential requests: this project's engines beside others, the same jobs in
//! turn, in one run. `cargo xtask bench qcow2`, `vhdx` and `chain` call it.
//!
//! ```text
//!   each engine writes and is read back: whether it is fast at the right thing
//!   for each job:  round 1  ours, others, qemu-img, plain file
//!                  round 2  the same                            … and the best rate counts
//! ```
//!
//! Requests go through the host's page cache, where the image lies already. What is timed are the
//! requests, with neither opening nor closing.

mod chain;
mod content;
mod engine;
mod job;
mod place;
mod qemu;
mod suite;
mod table;

use std::path::Path;
use std::process::ExitCode;

use place::Place;
use suite::Suite;

/// What anything here ends with: a result, or why there is none.
type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "usage: diskweave-benches qcow2|vhdx DIRECTORY MIB ROUNDS [JOB]
       diskweave-benches chain DIRECTORY MIB ROUNDS COMMAND";

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
    let (format, dir, mib, rounds, wanted) = match arguments {
        [format, dir, mib, rounds] => (format, dir, mib, rounds, ""),
        [format, dir, mib, rounds, wanted] => (format, dir, mib, rounds, wanted.as_str()),
        _ => return Err(USAGE.into()),
    };
    let number = |text: &String| {
        let number = text.parse::<u64>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{text:?} is no number above 0\n{USAGE}"))
    };
    let (size, rounds) = (number(mib)? << 20, number(rounds)?);
    if format == "chain" {
        return chain::run(Path::new(dir), size, rounds, Path::new(wanted));
    }
    let suite = Suite::of(format).ok_or(USAGE)?;
    let place = Place::prepare(Path::new(dir), suite, size)?;
    content::check(&place);
    table::head(suite);
    let mut remarks = Vec::new();
    for job in (suite.jobs)(size) {
        if job.name.contains(wanted) {
            table::row(&job, &job::compare(&place, &job, rounds, &mut remarks));
        }
    }
    table::legend(suite, &remarks);
    Ok(())
}
