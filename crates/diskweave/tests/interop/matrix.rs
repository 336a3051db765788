//! Running the combinations of one part, and counting.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::Rng;

/// Failures told in full; the rest are more of the same.
const TOLD: usize = 12;

/// One combination: its description names everything that was chosen.
pub(crate) trait Case: Display + Sync {
    /// Tries it in the empty folder `dir`, which goes away afterwards.
    fn run(&self, dir: &Path) -> Result<(), String>;
}

/// The indices of the cases that the environment asks for.
fn chosen<C: Case>(cases: &[C], sample: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..cases.len()).collect();
    match std::env::var("DISKWEAVE_INTEROP").ok().as_deref() {
        Some("full") => all,
        None | Some("") => {
            // Shuffled, for the lists repeat themselves in steps that a sample must not follow.
            let mut rng = Rng::new(1);
            for n in (1..all.len()).rev() {
                all.swap(n, rng.index(n + 1));
            }
            all.truncate(sample);
            all
        }
        Some(text) => {
            all.retain(|n| cases[*n].to_string().contains(text));
            all
        }
    }
}

/// Runs the cases of `part`, or a sample of so many.
///
/// # Panics
/// When any fails, with what is wrong.
pub(crate) fn run<C: Case>(part: &str, cases: &[C], sample: usize) {
    let chosen = chosen(cases, sample);
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(8) {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = &cases[*case];
                    if let Err(problem) = attempt(case) {
                        let text = format!("{case}\n    {problem}");
                        failures.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    // `cargo xtask interop` adds these lines up.
    println!(
        "interop: {part}: {} combinations, {} failed",
        chosen.len(),
        failures.len()
    );
    let told = &failures[..failures.len().min(TOLD)];
    assert!(failures.is_empty(), "{part}:\n{}", told.join("\n"));
}

fn attempt<C: Case>(case: &C) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let result = catch_unwind(AssertUnwindSafe(|| case.run(dir.path())));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("of an unknown kind")))
    })
}
