//! Fuzzing by cargo-fuzz, on the toolchain the project builds with.
//!
//! ```text
//!   fuzz/seeds/TARGET       inputs to start from, kept in the repository
//!   fuzz/corpus/TARGET      what the fuzzer found worth keeping on this machine
//!   fuzz/artifacts/TARGET   inputs that failed; keep them, the ordinary tests replay them
//! ```

use std::fs;

use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask fuzz TARGET|--all SECONDS";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let [target, seconds] = arguments else {
        return Err(USAGE.into());
    };
    let seconds: u32 = seconds
        .parse()
        .map_err(|_| format!("{seconds:?} is no number of seconds\n{USAGE}"))?;
    install()?;
    let all = sh::output(&mut sh::cargo(&["fuzz", "list"]))?;
    let all: Vec<&str> = all.lines().collect();
    let chosen = match target.as_str() {
        "--all" => all,
        one if all.contains(&one) => vec![one],
        other => return Err(format!("no target {other:?}; there are: {}", all.join(" "))),
    };
    // One build for all of them; then each has its full time.
    sh::run(&mut sh::cargo(&["fuzz", "build", "--sanitizer", "none"]))?;
    for target in chosen {
        fuzz(target, seconds)?;
    }
    Ok(())
}

fn install() -> Outcome {
    if sh::output(&mut sh::cargo(&["fuzz", "--version"])).is_ok() {
        return Ok(());
    }
    println!("cargo-fuzz is missing");
    sh::run(&mut sh::cargo(&["install", "cargo-fuzz", "--locked"]))
}

fn fuzz(target: &str, seconds: u32) -> Outcome {
    // Sanitizers need a nightly compiler; the library forbids unsafe code, so what they would find
    // is not there to be found, and panics and hangs show without them.
    let mut command = sh::cargo(&["fuzz", "run", "--sanitizer", "none", target]);
    let corpus = format!("fuzz/corpus/{target}");
    fs::create_dir_all(sh::root().join(&corpus)).map_err(|error| format!("{corpus}: {error}"))?;
    command.arg(corpus);
    let seeds = format!("fuzz/seeds/{target}");
    if sh::root().join(&seeds).is_dir() {
        command.arg(seeds);
    }
    command.arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    // A single input that takes longer or more than this is a finding.
    command.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    sh::run(&mut command)
}
