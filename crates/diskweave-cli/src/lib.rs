//! The `diskweave` command: reads arguments, calls the library, shows the answer.
//!
//! Arguments are spelled as `qemu-img` spells them wherever it has one. What it trusts, this does
//! not: an image makes no other file be opened unless that lies below its own directory. Called by the
//! name of one of QEMU's tools, it takes that tool's place.
//!
//! This is a library so that its pages and completions can be made from the same arguments; programs
//! use the crate `diskweave`.

#![forbid(unsafe_code)]
mod args;
mod commands;
mod compat;
mod failure;
mod interrupt;
mod output;
mod serving;
mod snapshot_name;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// The command's arguments, for whoever writes about them.
#[must_use]
pub fn command() -> clap::Command {
    args::Arguments::command()
}

/// Runs the command with the process' arguments.
#[must_use]
pub fn run() -> ExitCode {
    if let Some(code) = compat::run() {
        return ExitCode::from(code);
    }
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match commands::run(&arguments.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.show();
            ExitCode::from(failure.code)
        }
    }
}

/// Shows what is wrong with the arguments, or the help that was asked for.
///
/// The usual exit code 2 would mean "corrupt" from `check`; from `compare` and `diff` 1 would mean
/// "different".
fn usage(error: &clap::Error) -> ExitCode {
    // Whoever closed the output does not want to know.
    let _ = error.print();
    let comparing = ["compare", "diff"].map(OsStr::new);
    let comparing = std::env::args_os()
        .nth(1)
        .is_some_and(|verb| comparing.contains(&&*verb));
    ExitCode::from(match error.use_stderr() {
        false => 0,
        true if comparing => 2,
        true => 1,
    })
}
