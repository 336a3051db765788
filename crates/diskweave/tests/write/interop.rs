//! Chains that QEMU can open, through all that is done to them.

use testkit::oracle::QemuImg;

use crate::model::{OF_QEMU, live};

/// How many lives, here and in full.
const FEW: u64 = 10;
const FULL: u64 = 300;

#[test]
fn qemu_reads_what_is_left_of_a_chain_after_a_life_of_operations() {
    let Some(qemu) = QemuImg::find() else { return };
    let is_full = std::env::var_os("DISKWEAVE_INTEROP").is_some_and(|extent| extent == "full");
    let lives = if is_full { FULL } else { FEW };
    for seed in 0..lives {
        live(1000 + seed, &OF_QEMU, Some(&qemu));
    }
    println!("interop: chain: {lives} combinations, 0 failed");
}
