//! Long lives of chains, for `cargo xtask soak`.

use std::time::{Duration, Instant};

use testkit::Rng;
use testkit::oracle::QemuImg;

use crate::model::{ALL, live};

#[test]
#[ignore = "cargo xtask soak says for how long"]
fn soak() {
    let seconds = std::env::var("DISKWEAVE_SOAK").ok();
    let seconds: Option<f64> = seconds.and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.expect("DISKWEAVE_SOAK, a number of seconds");
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let qemu = QemuImg::find();
    let mut seeds = Rng::new(std::process::id().into());
    let mut lives = 0;
    while Instant::now() < until {
        live(seeds.next_u64(), &ALL, qemu.as_ref());
        lives += 1;
    }
    println!("soak: chain: {lives} lives");
}
