//! Lives of threads, under every order of their steps or many (`cargo xtask model`).

// What a proof came to is printed.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::scheduler::{DfsScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// Orders tried where there are too many.
const ORDERS: usize = 2000;

/// Runs `life` under every order of its threads' steps.
pub(crate) fn every_order(name: &str, life: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let orders = Runner::new(DfsScheduler::new(None, false), quiet()).run(life);
    let seconds = start.elapsed().as_secs_f64();
    println!("model: {orders} orders of {name}, every one, {seconds:.1} s");
}

/// Runs `life` under many orders of its threads' steps; `DISKWEAVE_MODEL` says for how many seconds.
pub(crate) fn many_orders(name: &str, life: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let seconds = std::env::var("DISKWEAVE_MODEL").map(|n| n.parse().expect("seconds"));
    let life = Arc::new(life);
    let mut orders = 0;
    for seed in 0.. {
        let life = Arc::clone(&life);
        let scheduler = RandomScheduler::new_from_seed(seed, ORDERS);
        orders += Runner::new(scheduler, quiet()).run(move || life());
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

/// Shuttle warns that it takes every atomic for `SeqCst`; which of them must be is said where they are.
fn quiet() -> Config {
    let mut config = Config::new();
    config.silence_warnings = true;
    config
}
