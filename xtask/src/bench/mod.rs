//! Timing beside others: what is compared, how much of it, how often.

mod convert;
mod requests;

use std::fs;
use std::path::Path;

use crate::sh::{self, Outcome};

const USAGE: &str = "usage: cargo xtask bench convert|qcow2|vhdx|chain [MIB [ROUNDS]]";
const DEFAULT_MIB: u64 = 1024;
const DEFAULT_ROUNDS: usize = 3;

/// Bytes of the disks, and how often each thing is done.
#[derive(Clone, Copy)]
struct Extent {
    size: u64,
    rounds: usize,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (verb, numbers) = arguments.split_first().ok_or(USAGE)?;
    let run: fn(&Path, Extent) -> Outcome = match verb.as_str() {
        "convert" => convert::run,
        "qcow2" => requests::qcow2,
        "vhdx" => requests::vhdx,
        "chain" => requests::chain,
        _ => return Err(USAGE.into()),
    };
    let number = |text: &String| {
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{text:?} is no number above 0\n{USAGE}"))
    };
    let (mib, rounds) = match numbers {
        [] => (DEFAULT_MIB, DEFAULT_ROUNDS),
        [mib] => (number(mib)?, DEFAULT_ROUNDS),
        [mib, rounds] => {
            let rounds = usize::try_from(number(rounds)?).map_err(|e| e.to_string())?;
            (number(mib)?, rounds)
        }
        _ => return Err(USAGE.into()),
    };
    if !sh::installed("qemu-img") {
        return Err("there is no qemu-img to compare with: cargo xtask setup".into());
    }
    let name = format!("bench-{}", std::process::id());
    let dir = sh::target_dir()?.join(name);
    fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let size = mib << 20;
    let result = run(&dir, Extent { size, rounds });
    // The files go whether it went well or not.
    let removed = fs::remove_dir_all(&dir).map_err(|error| error.to_string());
    result.and(removed)
}
