//! A disk that cannot be wrong, and guests that do anything to both it and a real one.
//!
//! [`run_model`] compares one guest's view step by step; [`run_threads`] lets many guests meet and
//! judges each sector they read.

mod disk;
mod ops;
mod run;
mod threads;

pub use disk::FlatDisk;
pub use ops::{Abilities, Op, Ops, Weights};
pub use run::{Compare, run_model};
pub use threads::{Threads, run_threads};
