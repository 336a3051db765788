//! Manual pages and shell completions, out of the command's own arguments.

use std::path::{Path, PathBuf};

use crate::sh::{self, Outcome};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let directory = match arguments {
        [] => sh::root().join("target/pages"),
        [directory] => PathBuf::from(directory),
        _ => return Err("usage: cargo xtask pages [DIRECTORY]".into()),
    };
    write(&directory)?;
    println!("written to {}", directory.display());
    Ok(())
}

/// Writes them to `directory`.
pub(crate) fn write(directory: &Path) -> Outcome {
    let example = [
        "run",
        "--locked",
        "-p",
        "diskweave-cli",
        "--example",
        "pages",
        "--",
    ];
    sh::run(sh::cargo(&example).arg(directory))
}
