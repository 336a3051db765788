//! One command per file.

mod amend;
mod apply;
pub(crate) mod bench;
mod bitmap;
mod chain;
pub(crate) mod check;
mod clone;
mod commit;
mod compact;
pub(crate) mod compare;
pub(crate) mod convert;
mod create;
pub(crate) mod dd;
mod dependents;
mod diff;
mod exports;
mod flatten;
mod fork;
pub(crate) mod info;
pub(crate) mod map;
pub(crate) mod measure;
pub(crate) mod new_image;
pub(crate) mod qcow2_facts;
mod rebase;
mod relink;
mod resize;
mod sections;
mod serve;
mod snapshot;
mod vhdx_facts;

use std::fmt::Display;
use std::path::Path;

use crate::args::Command;
use crate::failure::Failure;
use crate::output::plain::plain;

/// Runs `command` and gives the exit code.
pub(crate) fn run(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::Info(args) => info::run(args),
        Command::Map(args) => map::run(args),
        Command::Create(args) => create::run(args),
        Command::Measure(args) => measure::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Salvage(args) => convert::salvage(args),
        Command::Compare(args) => compare::run(args),
        Command::Check(args) => check::run(args),
        Command::Sections(args) => sections::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Bitmap(args) => bitmap::run(args),
        Command::Dd(args) => dd::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Resize(args) => resize::run(args),
        Command::Amend(args) => amend::run(args),
        Command::Compact(args) => compact::run(args),
        Command::Relink(args) => relink::run(args),
        Command::Commit(args) => commit::run(args),
        Command::Rebase(args) => rebase::run(args),
        Command::Stream(args) => rebase::run_stream(args),
        Command::Flatten(args) => flatten::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Apply(args) => apply::run(args),
        Command::Chain(args) => chain::run(args),
        Command::Clone(args) => clone::run(args),
        Command::Fork(args) => fork::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Dependents(args) => dependents::run(args),
    }
}

/// A path in a message, unable to steer the terminal.
fn shown(path: &Path) -> impl Display {
    format!("'{}'", plain(&path.display().to_string()))
}
