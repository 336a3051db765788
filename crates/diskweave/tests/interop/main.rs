//! The matrix against other people's tools: what they make we read, what we make they read, and what
//! goes round through the formats comes back as it went.
//!
//! ```text
//!   theirs        qemu-img and qemu-io make ──► we read and check, they say what is right
//!   ours          we convert                ──► they check, compare and describe
//!   round trips   raw ─► qcow2 ─► vhdx ─► … ─► raw
//! ```
//!
//! By default a sample of the combinations runs, the same every time. `DISKWEAVE_INTEROP=full` runs
//! all of them (`cargo xtask interop`), and any other value those whose description contains it.

// A program for tests: what it counts it prints, and a failure is a panic.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod content;
mod matrix;
mod new_images;
mod ours;
mod round_trips;
mod same;
mod theirs;
mod theirs_vhdx;
mod tools;

use tools::present;

#[test]
fn qcow2_images_that_qemu_makes_are_read_and_checked_as_by_qemu() {
    if present() {
        matrix::run("qcow2 by qemu-img", &theirs::cases(), 44);
    }
}

#[test]
fn vhdx_images_that_qemu_makes_are_read_as_by_qemu() {
    if present() {
        matrix::run("vhdx by qemu-img", &theirs_vhdx::cases(), 12);
    }
}

#[test]
fn images_of_every_option_are_clean_to_others_and_read_the_same() {
    if present() {
        matrix::run("by diskweave", &ours::cases(), 32);
    }
}

#[test]
fn disks_come_back_from_a_round_through_the_formats_as_full_and_as_sparse_as_they_went() {
    matrix::run("round trips", &round_trips::cases(), 16);
}
