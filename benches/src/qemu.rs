//! `qemu-img bench`. It has no random order: its requests go in steps of a size, and come by every
//! place; its threads are requests in flight at a time.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Outcome;
use crate::job::{CLUSTER, Job, Order, Verb};

/// Its ways to the host; which is faster depends on the job.
pub(crate) const WAYS: [&str; 2] = ["threads", "io_uring"];

/// Primes, so that steps of so many pieces come by all of them, far from one to the next.
const FAR: u64 = 40_503;
const FAR_CLUSTERS: u64 = 10_007;

/// The time, as the program says it itself.
pub(crate) fn bench(path: &Path, job: &Job, way: &str) -> Outcome<Duration> {
    let bytes = job.bytes as u64;
    let step = match job.order {
        Order::Sequential => bytes,
        Order::Random => FAR * bytes,
        Order::OncePerCluster => FAR_CLUSTERS * CLUSTER,
    };
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", "qcow2", "-t", "writeback", "-i", way]);
    let numbers = [
        ("-c", job.count),
        ("-d", job.threads),
        ("-s", bytes),
        ("-S", step),
    ];
    for (name, number) in numbers {
        command.arg(name).arg(number.to_string());
    }
    if job.verb != Verb::Read {
        command.args(["-w", "--pattern", "90"]);
    }
    if job.verb == Verb::WriteFlush {
        command.args(["--flush-interval", "1"]);
    }
    let output = command.arg(path).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text
        .split("Run completed in ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    let seconds = seconds.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(Duration::from_secs_f64(seconds))
}
