//! Operations on chains of any mix: against a model and QEMU, in every state that a crash can leave, and
//! against hosts that fail.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod crash;
mod faults;
mod interop;
mod model;
mod soak;
mod stories;
mod subject;
#[path = "../support/mod.rs"]
mod support;
