//! Starts one program and says how long it took, in nanoseconds, and how much memory at most, in bytes.
//!
//! A process of its own for each, because the kernel keeps the most of all children that a process had.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

use crate::Outcome;
use crate::engine::text;
use crate::qemu;

pub(crate) fn run(command: &[String]) -> Outcome {
    let (program, arguments) = command.split_first().ok_or("launch what?")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = Instant::now();
    qemu::ran(&mut command)?;
    let time = start.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(text)?;
    // Linux counts in KiB.
    println!("{} {}", time.as_nanos(), usage.max_rss() << 10);
    Ok(())
}
