//! Everything that must hold before a change goes in.

use std::time::Instant;

use crate::sh::{self, Outcome};
use crate::{arrows, crash, fuzz, model, pages, planted, setup};

/// Seconds that each fuzz target gets here; long runs are for `cargo xtask fuzz`.
const SMOKE_SECONDS: &str = "5";

/// Seconds for all crash scenarios of a format together; every state is for `cargo xtask crash`.
const CRASH_SECONDS: &str = "20";

type Step = (&'static str, fn() -> Outcome);

/// In the order in which they are likely to fail and quick to say so.
const STEPS: &[Step] = &[
    ("tools", setup::run),
    ("format", || {
        sh::run(&mut sh::cargo(&["fmt", "--all", "--check"]))
    }),
    ("arrows", arrows::run),
    ("planted", planted::fit),
    ("lints", lints),
    ("features", features),
    ("tests", tests),
    ("documentation", documentation),
    ("locking", || model::run(&[])),
    ("crash states", || {
        crash::run(&["--seconds".into(), CRASH_SECONDS.into()])
    }),
    ("fuzz smoke", smoke),
];

pub(crate) fn run() -> Outcome {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let start = Instant::now();
        step().map_err(|error| format!("{name}: {error}"))?;
        times.push((name, start.elapsed()));
    }
    println!();
    for (name, time) in times {
        println!("{name:<14} ok {:>6.1} s", time.as_secs_f64());
    }
    Ok(())
}

fn lints() -> Outcome {
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets"];
    sh::run(sh::cargo(&clippy).args(["--", "-D", "warnings"]))
}

/// The facade with one format, with none, and with the other; with none and a serialiser.
fn features() -> Outcome {
    let facade = ["check", "--locked", "-p", "diskweave"];
    for features in ["vhdx", "qcow2", "", "serde"] {
        let mut command = sh::cargo(&facade);
        sh::run(command.args(["--no-default-features", "--features", features]))?;
    }
    Ok(())
}

/// Unit, integration and documentation tests.
fn tests() -> Outcome {
    sh::run(&mut sh::cargo(&["test", "--locked", "--workspace"]))
}

fn documentation() -> Outcome {
    let mut doc = sh::cargo(&["doc", "--locked", "--no-deps", "--workspace"]);
    sh::run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    pages::write(&sh::target_dir()?.join("pages"))
}

fn smoke() -> Outcome {
    if !sh::root().join("fuzz/Cargo.toml").exists() {
        println!("SKIPPED: there is no fuzz/Cargo.toml, so nothing was fuzzed");
        return Ok(());
    }
    fuzz::run(&["--all".into(), SMOKE_SECONDS.into()])
}
