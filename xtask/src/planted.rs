//! Mistakes planted in a copy of the sources, to see that the proofs find them.
//!
//! ```text
//!   testdata/planted/PROOF/NAME.patch    the mistake in a sentence, then the patch
//!   TARGET/planted/workspace             the copy
//!   TARGET/planted/target                what is built from it: cargo would take both for the same
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::model;
use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask planted [NAME]";

/// Tests that are to find the mistakes of one folder.
struct Proof {
    folder: &'static str,
    /// Their program, by the workspace and where to build it.
    tests: fn(&Path, &Path) -> Command,
    /// Which of the program's tests.
    chosen: &'static [&'static str],
}

const PROOFS: [Proof; 2] = [
    // What a crash leaves, then what a failing host does.
    Proof {
        folder: "qcow2",
        tests: write_tests,
        chosen: &["crash::", "faults::"],
    },
    // The orders in which threads get at the locks.
    Proof {
        folder: "locks",
        tests: model::tests,
        chosen: &["model::"],
    },
];

/// What of the workspace is needed to build the tests of a format.
const COPIED: [&str; 4] = ["Cargo.toml", "Cargo.lock", "crates", "xtask"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let wanted = match arguments {
        [] => None,
        [name] => Some(name.as_str()),
        _ => return Err(USAGE.into()),
    };
    let place = sh::target_dir()?.join("planted");
    let copy = place.join("workspace");
    let _ = fs::remove_dir_all(&copy);
    for name in COPIED {
        copy_all(&sh::root().join(name), &copy.join(name))?;
    }
    let (mut found, mut missed) = (0, Vec::new());
    for proof in &PROOFS {
        let mut patches = patches(proof)?;
        patches.retain(|patch| wanted.is_none_or(|wanted| wanted == name_of(patch)));
        let target = place.join("target").join(proof.folder);
        if patches.is_empty() {
            continue;
        }
        if !proof.builds(&copy, &target)? || !proof.passes(&copy, &target)? {
            return Err("the tests do not pass as they are".into());
        }
        for patch in patches {
            let name = name_of(&patch);
            let text = fs::read_to_string(&patch).map_err(|error| error.to_string())?;
            let about = text.lines().next().unwrap_or_default();
            let start = Instant::now();
            apply(&copy, &patch, false)?;
            if !proof.builds(&copy, &target)? {
                return Err(format!("{name} cannot be built"));
            }
            let verdict = if proof.passes(&copy, &target)? {
                missed.push(name.clone());
                "NOT FOUND"
            } else {
                found += 1;
                "found"
            };
            apply(&copy, &patch, true)?;
            let seconds = start.elapsed().as_secs_f64();
            println!("{verdict:<9} {name} ({seconds:.0} s): {about}");
        }
    }
    println!("{found} found, {} not found", missed.len());
    match (found, missed.is_empty()) {
        (0, true) => Err("nothing was planted".into()),
        (_, true) => Ok(()),
        _ => Err(format!("not found: {}", missed.join(", "))),
    }
}

/// Checks that every patch fits the sources as they are; quick, unlike planting them.
pub(crate) fn fit() -> Outcome {
    let patches: Outcome<Vec<_>> = PROOFS.iter().map(patches).collect();
    let patches = patches?.concat();
    for patch in &patches {
        let mut git = Command::new("git");
        git.current_dir(sh::root()).args(["apply", "--check"]);
        sh::output(git.arg(patch)).map_err(|error| format!("{}: {error}", name_of(patch)))?;
    }
    println!("{} patches fit", patches.len());
    Ok(())
}

/// Every patch for a proof, by name.
fn patches(proof: &Proof) -> Outcome<Vec<PathBuf>> {
    let folder = sh::root().join("testdata/planted").join(proof.folder);
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut patches: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| path.extension().is_some_and(|end| end == "patch"));
    patches.sort();
    Ok(patches)
}

fn name_of(patch: &Path) -> String {
    let stem = patch.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn copy_all(from: &Path, to: &Path) -> Outcome {
    let copied = || -> std::io::Result<()> {
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap_or(to))?;
            return fs::copy(from, to).map(drop);
        }
        fs::create_dir_all(to)
    };
    copied().map_err(|error| format!("{}: {error}", from.display()))?;
    if from.is_dir() {
        let entries = fs::read_dir(from).map_err(|error| error.to_string())?;
        for entry in entries.flatten() {
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Applies the patch to the copy, or takes it out again.
fn apply(copy: &Path, patch: &Path, reverse: bool) -> Outcome {
    let mut git = Command::new("git");
    // Inside a checkout git would look for the paths from its root on.
    git.current_dir(copy)
        .env("GIT_CEILING_DIRECTORIES", copy.parent().unwrap_or(copy));
    git.arg("apply");
    if reverse {
        git.arg("--reverse");
    }
    sh::output(git.arg(patch)).map(drop)
}

impl Proof {
    fn builds(&self, copy: &Path, target: &Path) -> Outcome<bool> {
        succeeds((self.tests)(copy, target).arg("--no-run"))
    }

    fn passes(&self, copy: &Path, target: &Path) -> Outcome<bool> {
        let mut command = (self.tests)(copy, target);
        succeeds(command.arg("--").args(self.chosen))
    }
}

/// The tests of writing qcow2.
fn write_tests(copy: &Path, target: &Path) -> Command {
    let mut command = sh::cargo(&["test", "--quiet", "--locked", "--package", "qcow2-format"]);
    command
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .args(["--test", "write"]);
    command
}

fn succeeds(command: &mut Command) -> Outcome<bool> {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = quiet.status().map_err(|error| error.to_string())?;
    Ok(status.success())
}
