//! What is printed.

use crate::job::{Done, Job, LARGE};
use crate::suite::Suite;

const LEGEND: &str = "
The median rate of all rounds: requests a second for 4K, MB a second for 1M. vs best: ours by the best
of the others; vs plain: ours by the same requests to a plain file with pread and pwrite, the host's
ceiling. -: cannot do it. Who takes longer than a second is stopped, and counts for what was done.
qemu-img bench has no random order but steps of an odd number of places, and requests in flight for
threads; the better of its threads and io_uring counts.
What is overwritten, and what lies below children, is a disk of 128 MiB.
A flush behind the last request is in no time but those that say so.
virtdisk is read through its Image and written through its ImageWriter.";

/// The line above all.
pub(crate) fn head(suite: &Suite) {
    print!("{:<32}", "");
    for engine in suite.engines {
        print!("{:>10}", engine.name());
    }
    println!("{:>9}{:>9}", "vs best", "vs plain");
}

/// The line of one job with the median of each engine.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn row(job: &Job, done: &[Option<Done>]) {
    let unit = if job.bytes >= LARGE {
        job.bytes as f64 / 1e6
    } else {
        1.0
    };
    let rates: Vec<_> = done
        .iter()
        .map(|done| done.map(|done| done.rate() * unit))
        .collect();
    print!("{:<32}", job.name);
    for rate in &rates {
        match rate {
            Some(rate) if *rate < 100.0 => print!("{rate:>10.1}"),
            Some(rate) => print!("{rate:>10.0}"),
            None => print!("{:>10}", "-"),
        }
    }
    if let [ours, peers @ .., plain] = rates.as_slice() {
        let best = peers.iter().flatten().copied().fold(0.0, f64::max);
        for other in [(best > 0.0).then_some(best), *plain] {
            match (ours, other) {
                (Some(ours), Some(other)) => print!("{:>9.2}", ours / other),
                _ => print!("{:>9}", "-"),
            }
        }
    }
    println!();
}

pub(crate) fn legend(suite: &Suite, remarks: &[String]) {
    println!("{LEGEND}\n{}", suite.notes);
    for remark in remarks {
        println!("failed: {remark}");
    }
}
