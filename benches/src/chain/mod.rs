//! Chains: what depth costs a read, what moving what they hold costs, and what a new overlay costs. `cargo xtask bench chain` calls it.
//!
//! ```text
//!   bottom   all data in the lowest image, every other asked in vain
//!   spread   each 64 KiB in one of the images, by chance
//! ```
//!
//! One file and one table for each thing that is done to a chain.

mod images;
mod operations;
mod overlay;
mod reads;

use std::fs;
use std::path::Path;

use crate::engine::text;
use crate::place::Place;
use crate::suite::Suite;
use crate::{Outcome, job, table};

/// `size` bytes of disk, everything `rounds` times; `command` is the program that users have.
pub(crate) fn run(dir: &Path, size: u64, rounds: u64, command: &Path) -> Outcome {
    reads::run(dir, size, rounds)?;
    parent(dir, size, rounds)?;
    operations::run(dir, size, rounds)?;
    overlay::run(dir, rounds, command)
}

/// Reads through one VHDX parent beside other engines, as `vhdx` has them.
fn parent(dir: &Path, size: u64, rounds: u64) -> Outcome {
    let dir = dir.join("parent");
    fs::create_dir(&dir).map_err(text)?;
    let suite = Suite::of("vhdx").ok_or("no suite of VHDX")?;
    let place = Place::prepare(&dir, suite, size)?;
    println!("through one VHDX parent, requests a second for 4K and MB a second for 1M");
    table::head(suite);
    let mut remarks = Vec::new();
    for job in (suite.jobs)(size) {
        if job.name.contains("read of parent") {
            table::row(&job, &job::compare(&place, &job, rounds, &mut remarks));
        }
    }
    for remark in remarks {
        println!("failed: {remark}");
    }
    println!();
    fs::remove_dir_all(dir).map_err(text)
}
