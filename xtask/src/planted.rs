//! Mistakes planted in a copy of the sources, to see that the proofs find them.
//!
//! ```text
//!   testdata/planted/FORMAT/NAME.patch   the mistake in a sentence, then the patch
//!   TARGET/planted/workspace             the copy
//!   TARGET/planted/target                what is built from it: cargo would take both for the same
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::formats::{self, Format};
use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask planted [--format qcow2|vhdx] [NAME]";

/// What of the workspace is needed to build the tests of a format.
const COPIED: [&str; 4] = ["Cargo.toml", "Cargo.lock", "crates", "xtask"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let formats = formats::take(&mut arguments)?;
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
    for format in formats {
        let patches: Vec<PathBuf> = patches(format)?
            .into_iter()
            .filter(|patch| wanted.is_none_or(|wanted| wanted == name_of(patch)))
            .collect();
        if patches.is_empty() {
            continue;
        }
        if !copy.build(format)? || !copy.passes(format)? {
            return Err(format!(
                "the tests of {} do not pass as they are",
                format.name
            ));
        }
        for patch in patches {
            if copy.plant(format, &patch)? {
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
    for format in formats::FORMATS {
        for patch in patches(format)? {
            let mut git = Command::new("git");
            git.current_dir(sh::root()).args(["apply", "--check"]);
            sh::output(git.arg(&patch)).map_err(|error| format!("{}: {error}", name_of(&patch)))?;
            fitting += 1;
        }
    }
    println!("{fitting} patches fit");
    Ok(())
}

/// Every patch for a format, by name.
fn patches(format: &Format) -> Outcome<Vec<PathBuf>> {
    let folder = sh::root().join("testdata/planted").join(format.name);
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
    fn plant(&self, format: &Format, patch: &Path) -> Outcome<bool> {
        let name = name_of(patch);
        let text = fs::read_to_string(patch).map_err(|error| error.to_string())?;
        let about = text.lines().next().unwrap_or_default();
        let start = Instant::now();
        self.apply(patch, false)?;
        if !self.build(format)? {
            return Err(format!("{name} cannot be built"));
        }
        let is_found = !self.passes(format)?;
        self.apply(patch, true)?;
        let verdict = if is_found { "found" } else { "NOT FOUND" };
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{verdict:<9} {} {name} ({seconds:.0} s): {about}",
            format.name
        );
        Ok(is_found)
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
    fn tests(&self, format: &Format) -> Command {
        let mut command = format.write_test(false);
        command
            .arg("--quiet")
            .current_dir(&self.workspace)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }

    fn build(&self, format: &Format) -> Outcome<bool> {
        succeeds(self.tests(format).arg("--no-run"))
    }

    /// Part by part: what a crash leaves first, as it finds most.
    fn passes(&self, format: &Format) -> Outcome<bool> {
        for finder in format.finders {
            if !succeeds(self.tests(format).args(["--", finder]))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn succeeds(command: &mut Command) -> Outcome<bool> {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = quiet.status().map_err(|error| error.to_string())?;
    Ok(status.success())
}
