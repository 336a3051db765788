//! Flushes under the orders in which threads can ask for them.

// What a proof came to is printed.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::scheduler::{DfsScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

use super::*;
use crate::ErrorKind;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Orders tried where there are too many.
const ORDERS: usize = 2000;

/// Shuttle warns that it takes every atomic for `SeqCst`; so are these.
fn quiet() -> Config {
    let mut config = Config::new();
    config.silence_warnings = true;
    config
}

/// Runs `life` under every order of its threads' steps.
fn every_order(name: &str, life: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let orders = Runner::new(DfsScheduler::new(None, false), quiet()).run(life);
    let seconds = start.elapsed().as_secs_f64();
    println!("model: {orders} orders of {name}, every one, {seconds:.1} s");
}

/// Runs `life` under many orders of its threads' steps; `DISKWEAVE_MODEL` says for how many seconds.
fn many_orders(name: &str, life: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let seconds = std::env::var("DISKWEAVE_MODEL").map(|n| n.parse().expect("seconds"));
    let least = seconds.map_or(Duration::ZERO, Duration::from_secs_f64);
    let life = Arc::new(life);
    let mut orders = 0;
    for seed in 0.. {
        let life = Arc::clone(&life);
        let scheduler = RandomScheduler::new_from_seed(seed, ORDERS);
        orders += Runner::new(scheduler, quiet()).run(move || life());
        if start.elapsed() >= least {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("model: {orders} orders of {name}, {seconds:.1} s");
}

/// A disk that counts writes, and how many of them are stable.
#[derive(Default)]
struct Disk {
    flushes: Flushes,
    /// Writes of each thread.
    written: Vec<AtomicU64>,
    stable: Vec<AtomicU64>,
    syncs: AtomicU64,
    /// The sync that fails, by number from 1, and makes nothing stable, then or later.
    failing: u64,
}

impl Disk {
    fn sync(&self) -> Result<()> {
        let number = self.syncs.fetch_add(1, Ordering::SeqCst) + 1;
        // What comes while the disk is at it may be left out.
        let written = self.written.iter();
        let there: Vec<_> = written.map(|count| count.load(Ordering::SeqCst)).collect();
        if number == self.failing {
            return Err(ErrorKind::Io.into());
        }
        for (stable, there) in self.stable.iter().zip(there) {
            stable.store(there, Ordering::SeqCst);
        }
        Ok(())
    }

    /// One guest writes and flushes; true when it was told that its bytes are stable.
    fn live(&self, guest: usize) -> bool {
        let written = self.written[guest].fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = self.flushes.share(|| self.sync());
        let stable = self.stable[guest].load(Ordering::SeqCst);
        match outcome {
            Ok(()) => assert!(stable >= written, "told {written}, stable {stable}"),
            Err(ref error) => assert_eq!(error.kind(), ErrorKind::Io),
        }
        outcome.is_ok()
    }
}

/// Guests that flush `times` each; one that is told of a failure flushes no more.
fn guests(guests: usize, times: usize, failing: u64) {
    let none = || (0..guests).map(|_| AtomicU64::new(0)).collect();
    let disk = Arc::new(Disk {
        written: none(),
        stable: none(),
        failing,
        ..Disk::default()
    });
    let threads: Vec<_> = (0..guests)
        .map(|guest| {
            let disk = Arc::clone(&disk);
            thread::spawn(move || (0..times).all(|_| disk.live(guest)))
        })
        .collect();
    let told = threads.into_iter().map(|thread| thread.join());
    let failures = told.filter(|told| !*told.as_ref().expect("it ends"));
    let (failures, syncs) = (failures.count(), disk.syncs.load(Ordering::SeqCst));
    let is_met = (1..=syncs).contains(&failing);
    assert_eq!(failures > 0, is_met, "{failures} were told");
}

#[test]
fn a_flush_covers_what_was_written_before_it_whoever_makes_it() {
    every_order("two that flush", || guests(2, 1, 0));
    many_orders("three that flush twice", || guests(3, 2, 0));
}

#[test]
fn nobody_takes_a_failure_for_a_flush() {
    every_order("two that flush, of which one fails", || guests(2, 1, 1));
    many_orders("three that flush twice, with a failure", || guests(3, 2, 2));
}
