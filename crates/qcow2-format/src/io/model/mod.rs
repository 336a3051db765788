//! The locking under a model that tries the orders in which threads can take their steps.
//!
//! ```text
//!   pins     who may still be reading                          every order
//!   pages    tables while they are read, changed and flushed    many orders
//!   guests   whole images, with guests that write, zero,
//!            give up, pack and flush side by side               many orders
//! ```
//!
//! The code is the library's own: under `--cfg shuttle` its locks and counters are the model's. What
//! is asked: nobody waits for ever; nobody reads or overwrites what is another's; a flush covers what
//! was acknowledged before it; nothing older is read after something newer. The model takes every
//! counter for sequentially consistent, so that mistakes in weaker orderings do not show.
//!
//! `DISKWEAVE_MODEL` is the number of seconds for each life; without it each has a number of orders.

// What a proof came to is printed.
#![allow(clippy::print_stdout)]

mod guests;
mod pages;
mod pins;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use blockdev_core::{Result, Storage, SyncKind, fits};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Orders that each way of choosing them gets.
const ORDERS: usize = 1000;

/// Switches between threads that are placed on purpose; the others follow from waiting.
const SWITCHES: usize = 4;

fn config() -> Config {
    let mut config = Config::new();
    config.silence_warnings = true;
    // Whole requests run on a thread's stack, as they do outside.
    config.stack_size = 1 << 20;
    config.max_steps = MaxSteps::FailAfter(1 << 20);
    config
}

fn run<S: Scheduler + 'static>(
    scheduler: S,
    life: &Arc<impl Fn() + Send + Sync + 'static>,
) -> usize {
    let life = Arc::clone(life);
    Runner::new(scheduler, config()).run(move || life())
}

/// Runs `life` under every order of its threads' steps.
fn every_order(name: &str, life: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let orders = Runner::new(DfsScheduler::new(None, false), config()).run(life);
    let seconds = start.elapsed().as_secs_f64();
    println!("model: {orders} orders of {name}, every one, {seconds:.1} s");
}

/// Runs `life` under many orders: half of them by chance at each step, half with few switches.
fn many_orders(name: &str, life: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let seconds = std::env::var("DISKWEAVE_MODEL").map(|n| n.parse().expect("seconds"));
    let life = Arc::new(life);
    let mut orders = 0;
    for seed in 0.. {
        orders += run(RandomScheduler::new_from_seed(seed, ORDERS), &life);
        orders += run(PctScheduler::new_from_seed(seed, SWITCHES, ORDERS), &life);
        if start.elapsed()
            >= seconds
                .clone()
                .map_or(Duration::ZERO, Duration::from_secs_f64)
        {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("model: {orders} orders of {name}, {seconds:.1} s");
}

/// A host's file: every call is a step of its own, a write even two.
#[derive(Debug)]
struct Host {
    file: Mutex<File>,
    steps: AtomicUsize,
}

#[derive(Debug)]
struct File {
    bytes: Vec<u8>,
    changes: u64,
    /// What a crash leaves at least, and how many changes are in it.
    stable: (Vec<u8>, u64),
}

impl Host {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        let stable = (bytes.clone(), 0);
        let changes = 0;
        let file = File {
            bytes,
            changes,
            stable,
        };
        Arc::new(Self {
            file: Mutex::new(file),
            steps: AtomicUsize::new(0),
        })
    }

    /// Others may come first.
    fn file(&self) -> MutexGuard<'_, File> {
        self.steps.fetch_add(1, Ordering::SeqCst);
        self.file.lock().expect("no panic under it")
    }

    fn bytes(&self) -> Vec<u8> {
        self.file().bytes.clone()
    }

    /// What a crash would leave now.
    fn stable(&self) -> Vec<u8> {
        self.file().stable.0.clone()
    }

    fn change(&self, offset: u64, bytes: &[u8]) {
        let mut file = self.file();
        let from = usize::try_from(offset).expect("a small file");
        let end = from + bytes.len();
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        file.bytes[from..end].copy_from_slice(bytes);
        file.changes += 1;
    }
}

impl Storage for Host {
    fn len(&self) -> Result<u64> {
        Ok(self.file().bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let file = self.file();
        if fits(offset, buf.len() as u64, file.bytes.len() as u64).is_err() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let from = usize::try_from(offset).expect("a small file");
        buf.copy_from_slice(&file.bytes[from..from + buf.len()]);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let (first, second) = buf.split_at(buf.len() / 2);
        self.change(offset, first);
        self.change(offset + first.len() as u64, second);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut file = self.file();
        file.bytes
            .resize(usize::try_from(len).expect("a small file"), 0);
        file.changes += 1;
        Ok(())
    }

    fn sync(&self, _: SyncKind) -> Result<()> {
        // What comes while the disk is at it may be left out.
        let now = {
            let file = self.file();
            (file.bytes.clone(), file.changes)
        };
        let mut file = self.file();
        if now.1 > file.stable.1 {
            file.stable = now;
        }
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let there = self.len()?.saturating_sub(offset).min(len);
        self.change(
            offset,
            &vec![0; usize::try_from(there).expect("a small file")],
        );
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        false
    }
}
