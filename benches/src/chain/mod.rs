//! Chains: what depth costs a read, what moving what they hold costs, and what a new
//! overlay costs.
//!
//! ```text
//!   bottom   all data in the lowest image, every other asked in vain
//!   spread   each 64 KiB in one of the images, by chance
//! ```
//!
//! One file and one table for each thing that is done to a chain.

pub(crate) mod images;
mod operations;
pub(crate) mod overlay;
pub(crate) mod reads;

use std::fs;
use std::path::Path;

use crate::engine::text;
use crate::place::Place;
use crate::suite::Suite;
use crate::{Outcome, job, results, table};

/// `size` bytes of disk, everything `rounds` times.
pub(crate) fn run(dir: &Path, size: u64, rounds: u64) -> Outcome {
    reads::run(dir, size, rounds)?;
    parent(dir, size, rounds)?;
    operations::run(dir, size, rounds)
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
            let done = job::compare(&place, &job, rounds, &mut remarks);
            table::row(&job, &job::middle(&done));
            results::job("chain", suite, &job, &done)?;
        }
    }
    for remark in remarks {
        println!("failed: {remark}");
    }
    println!();
    fs::remove_dir_all(dir).map_err(text)
}
