//! `qemu-img`: images, and `qemu-img bench`. That one has no random order: its requests go in steps of
//! a size, and come by every place; its threads are requests in flight at a time.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::Outcome;
use crate::engine::text;
use crate::job::{Job, Order, Verb};

/// Its ways to the host; which is faster depends on the job.
pub(crate) const WAYS: [&str; 2] = ["threads", "io_uring"];

/// Odd, so that steps of so many pieces come by all of a power of two, far from one to the next.
const FAR: u64 = 40_503;
const FAR_UNITS: u64 = 10_007;

/// The time on a disk of `size` bytes, as the program says it itself.
pub(crate) fn bench(
    path: &Path,
    format: &str,
    size: u64,
    job: &Job,
    way: &str,
) -> Outcome<Duration> {
    let step = match job.task.order {
        Order::Sequential => job.bytes,
        Order::Random => FAR * job.bytes,
        Order::Once(unit) => FAR_UNITS * unit,
    };
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", format, "-t", "writeback", "-i", way]);
    let numbers = [
        ("-c", job.count),
        ("-d", job.threads),
        ("-s", job.bytes),
        ("-S", step % size),
    ];
    for (name, number) in numbers {
        command.arg(name).arg(number.to_string());
    }
    if job.task.verb != Verb::Read {
        command.args(["-w", "--pattern", "90"]);
    }
    if job.task.verb == Verb::WriteFlush {
        command.args(["--flush-interval", "1"]);
    }
    let output = ran(command.arg(path))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let seconds = printed
        .split("Run completed in ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    let seconds = seconds.ok_or("qemu-img bench says no time")?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Makes an image of `size` bytes in which nothing is.
pub(crate) fn create(path: &Path, format: &str, size: u64, options: &[&str]) -> Outcome {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", format]).args(options);
    ran(command.arg(path).arg(size.to_string())).map(drop)
}

/// Makes an image of what the raw file `from` holds.
pub(crate) fn convert(from: &Path, path: &Path, format: &str, options: &[&str]) -> Outcome {
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-f", "raw", "-O", format])
        .args(options);
    ran(command.arg(from).arg(path)).map(drop)
}

/// Says whether the image holds what the raw file does.
pub(crate) fn compare(path: &Path, format: &str, raw: &Path) -> Outcome {
    let mut command = Command::new("qemu-img");
    command.args(["compare", "-f", format, "-F", "raw"]);
    let compared = ran(command.arg(path).arg(raw)).map(drop);
    compared.map_err(|error| format!("qemu-img reads something else: {error}"))
}

/// Has the program run, or says what it complained of.
pub(crate) fn ran(command: &mut Command) -> Outcome<Output> {
    let output = command.output().map_err(text)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stderr, output.stdout].concat();
    Err(String::from_utf8_lossy(&said).trim().to_owned())
}
