//! Writes the command's manual pages and shell completions into a directory: `man/*.1` and
//! `completions/*`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clap_complete::Shell;
use diskweave_cli::command;

const NAME: &str = "diskweave";

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or("the directory to write to is missing")?;
    manual(&directory.join("man"))?;
    completions(&directory.join("completions"))
}

/// A page of the command, and one for each of its verbs.
fn manual(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command(), directory)?;
    Ok(())
}

fn completions(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command(), NAME, directory)?;
    }
    Ok(())
}
