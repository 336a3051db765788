//! The `diskweave` command: reads arguments, calls the library, shows the answer.
//!
//! Arguments are spelled as `qemu-img` spells them wherever it has one. What it trusts, this does
//! not: an image makes no other file be opened unless that lies below its own directory.

#![forbid(unsafe_code)]
// A command line's output is what it is for; the library prints nothing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;
mod failure;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    match commands::run(&arguments.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.show();
            ExitCode::from(failure.code)
        }
    }
}
