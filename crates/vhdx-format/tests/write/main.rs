//! Writing: what was written is read, by everyone, and after every crash.

// Here a failure is a panic, and what a proof came to is printed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod audit;
mod crash;
mod faults;
mod footprint;
mod interop;
mod model;
mod random;
mod rules;
mod soak;
mod stories;
mod subject;
mod threads;
