//! What is printed.

use std::time::Duration;

use crate::engine::ALL;
use crate::job::Job;

const LEGEND: &str = "
Rates by the least time of all rounds: requests a second for 4K, MB a second for 1M. vs best: ours by
the best of imago, qcow2-rs and qemu-img; vs plain: ours by the same requests to a plain file with
pread and pwrite, the host's ceiling.
qemu-img bench has no random order but steps of a prime number of places, and requests in flight for
threads; the better of its threads and io_uring counts.
qcow2-rs works in one thread: -. imago is built synchronous. Fresh 4K writes are one to each
cluster; what is overwritten is a disk of 128 MiB.
A flush behind the last request is in no time but those that say so.
virtdisk is not compared: 0.3.1 asks for a newer compiler (1.96).";

/// The line above all.
pub(crate) fn head() {
    println!(
        "{:<32}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "ours", "imago", "qcow2-rs", "qemu-img", "plain", "vs best", "vs plain"
    );
}

/// The line of one job with the least time of each engine.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn row(job: &Job, times: &[Option<Duration>; ALL.len()]) {
    // Each thread has the same whole number of requests.
    let count = job.count / job.threads * job.threads;
    let work = if job.bytes >= 1 << 20 {
        (count * job.bytes as u64) as f64 / 1e6
    } else {
        count as f64
    };
    let rates = times.map(|time| time.map(|time| work / time.as_secs_f64()));
    let [ours, peers @ .., plain] = rates;
    print!("{:<32}", job.name);
    for rate in rates {
        match rate {
            Some(rate) => print!("{rate:>9.0}"),
            None => print!("{:>9}", "-"),
        }
    }
    let best = peers.into_iter().flatten().fold(0.0, f64::max);
    let by = |other: f64| ours.unwrap_or(0.0) / other;
    println!("{:>9.2}{:>9.2}", by(best), by(plain.unwrap_or(0.0)));
}

pub(crate) fn legend() {
    println!("{LEGEND}");
}
