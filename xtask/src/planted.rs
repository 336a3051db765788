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

use crate::formats::{self, Format};
use crate::model;
use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask planted [--format qcow2|vhdx|chain] [NAME]";

/// Tests that are to find the mistakes of one folder.
#[derive(Clone, Copy)]
enum Proof {
    /// How a format is written to.
    Writes(&'static Format),
    /// The orders in which threads get at the locks.
    Locks,
}

impl Proof {
    fn all() -> impl Iterator<Item = Self> {
        let formats = formats::FORMATS.iter().map(Self::Writes);
        formats.chain([Self::Locks])
    }

    fn name(self) -> &'static str {
        match self {
            Self::Writes(format) => format.name,
            Self::Locks => "locks",
        }
    }

    fn finders(self) -> &'static [&'static str] {
        match self {
            Self::Writes(format) => format.finders,
            Self::Locks => &["model::"],
        }
    }
}

/// What of the workspace is needed to build the tests of a format.
const COPIED: [&str; 4] = ["Cargo.toml", "Cargo.lock", "crates", "xtask"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let chosen = arguments.iter().any(|argument| argument == "--format");
    let formats = formats::take(&mut arguments)?;
    let proofs: Vec<Proof> = if chosen {
        formats.into_iter().map(Proof::Writes).collect()
    } else {
        Proof::all().collect()
    };
    let wanted = match &arguments[..] {
        [] => None,
        [name] => Some(name.as_str()),
        _ => return Err(USAGE.into()),
    };
    let place = sh::target_dir()?.join("planted");
    let copy = Copy {
        workspace: place.join("workspace"),
        target: place.join("target"),
    };
    let _ = fs::remove_dir_all(&copy.workspace);
    for name in COPIED {
        copy_all(&sh::root().join(name), &copy.workspace.join(name))?;
    }
    let (mut found, mut missed) = (0, Vec::new());
    for proof in proofs {
        let patches: Vec<PathBuf> = patches(proof)?
            .into_iter()
            .filter(|patch| wanted.is_none_or(|wanted| wanted == name_of(patch)))
            .collect();
        if patches.is_empty() {
            continue;
        }
        if !copy.build(proof)? || copy.finder(proof)?.is_some() {
            return Err(format!(
                "the tests of {} do not pass as they are",
                proof.name()
            ));
        }
        for patch in patches {
            if copy.plant(proof, &patch)? {
                found += 1;
            } else {
                missed.push(name_of(&patch));
            }
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
    let mut fitting = 0;
    for proof in Proof::all() {
        for patch in patches(proof)? {
            let mut git = Command::new("git");
            git.current_dir(sh::root()).args(["apply", "--check"]);
            sh::output(git.arg(&patch)).map_err(|error| format!("{}: {error}", name_of(&patch)))?;
            fitting += 1;
        }
    }
    println!("{fitting} patches fit");
    Ok(())
}

/// Every patch for a proof, by name.
fn patches(proof: Proof) -> Outcome<Vec<PathBuf>> {
    let folder = sh::root().join("testdata/planted").join(proof.name());
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

/// A copy of the workspace, and where it is built.
struct Copy {
    workspace: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Plants one mistake; true when it is found.
    fn plant(&self, proof: Proof, patch: &Path) -> Outcome<bool> {
        let name = name_of(patch);
        let text = fs::read_to_string(patch).map_err(|error| error.to_string())?;
        let about = text.lines().next().unwrap_or_default();
        let start = Instant::now();
        self.apply(patch, false)?;
        if !self.build(proof)? {
            return Err(format!("{name} cannot be built"));
        }
        let finder = self.finder(proof)?;
        self.apply(patch, true)?;
        let verdict = match finder {
            Some(finder) => format!("found by {finder}"),
            None => "NOT FOUND".into(),
        };
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{verdict:<17} {} {name} ({seconds:.0} s): {about}",
            proof.name()
        );
        Ok(finder.is_some())
    }

    /// Applies the patch, or takes it out again.
    fn apply(&self, patch: &Path, reverse: bool) -> Outcome {
        let mut git = Command::new("git");
        // Inside a checkout git would look for the paths from its root on.
        let ceiling = self.workspace.parent().unwrap_or(&self.workspace);
        git.current_dir(&self.workspace)
            .env("GIT_CEILING_DIRECTORIES", ceiling);
        git.arg("apply");
        if reverse {
            git.arg("--reverse");
        }
        sh::output(git.arg(patch)).map(drop)
    }

    /// The tests of the copy.
    fn tests(&self, proof: Proof) -> Command {
        match proof {
            Proof::Writes(format) => {
                let mut command = format.write_test(false);
                command
                    .arg("--quiet")
                    .current_dir(&self.workspace)
                    .env("CARGO_TARGET_DIR", &self.target);
                command
            }
            // With other flags everything is another program.
            Proof::Locks => model::tests(&self.workspace, &self.target.join("model")),
        }
    }

    fn build(&self, proof: Proof) -> Outcome<bool> {
        succeeds(self.tests(proof).arg("--no-run"))
    }

    /// The first part that fails, if one does.
    fn finder(&self, proof: Proof) -> Outcome<Option<&'static str>> {
        for finder in proof.finders() {
            if !succeeds(self.tests(proof).args(["--", finder]))? {
                return Ok(Some(finder.trim_end_matches(':')));
            }
        }
        Ok(None)
    }
}

fn succeeds(command: &mut Command) -> Outcome<bool> {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = quiet.status().map_err(|error| error.to_string())?;
    Ok(status.success())
}
