//! Operations on chains of any mix, against a model and against QEMU.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod life;
#[path = "../support/mod.rs"]
mod support;

use testkit::oracle::QemuImg;

use life::Life;

/// Lives of a chain, each with so many operations.
const LIVES: u64 = 40;
const OPERATIONS: u32 = 14;

#[test]
fn a_chain_reads_as_the_model_whatever_is_done_to_it() {
    let qemu = QemuImg::find();
    let lives = std::env::var("DISKWEAVE_CHAINS").map_or(LIVES, |n| n.parse().expect("a number"));
    for seed in 0..lives {
        let mut life = Life::new(seed);
        for step in 0..OPERATIONS {
            life.step(step);
            life.check();
        }
        life.close(qemu.as_ref());
    }
}
