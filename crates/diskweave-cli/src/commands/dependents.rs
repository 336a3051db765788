//! `dependents`: the images in a directory that need a file.

use std::path::Path;

use diskweave::core::LockMode;
use diskweave::{Search, dependents};

use super::{exports, shown};
use crate::args::{Dependents, Output};
use crate::failure::Failure;
use crate::output::json;
use crate::output::plain::{plain, print};

/// Some depend on the file, or it could not be told.
const NEEDED: u8 = 2;

/// Deeper than this nobody keeps images, and no path is followed that never ends.
const MOST_LEVELS: u32 = 64;

pub(crate) fn run(args: &Dependents) -> Result<u8, Failure> {
    exports::refuse(&args.file, "only who needs a file can be told")?;
    let directory = match &args.directory {
        Some(directory) => directory,
        None => match args.file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        },
    };
    // Images in use are looked at as well: what they are over is what matters.
    let open = args.open.disk(&directory.join("any"), None);
    let mut search = Search::new().open(open.lock(LockMode::Unprotected));
    if args.recursive {
        search = search.depth(MOST_LEVELS);
    }
    let found = dependents(&args.file, directory, &search)
        .map_err(|e| Failure::about(shown(&args.file), e))?;
    match args.output {
        Output::Json => json::print(&found)?,
        Output::Human => {
            let mut out = String::new();
            let mut line = |what: &str, path: &Path, why: &str| {
                let path = path.display().to_string();
                out += &format!("{what:<12} {}{}\n", plain(&path), plain(why));
            };
            for path in &found.dependent {
                line("depends", path, "");
            }
            for (path, error) in &found.unknown {
                line("unknown", path, &format!(": {error}"));
            }
            for path in &found.independent {
                line("independent", path, "");
            }
            print(&out)?;
        }
    }
    Ok(if found.is_free() { 0 } else { NEEDED })
}
