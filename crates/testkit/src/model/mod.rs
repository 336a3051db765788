//! A disk that cannot be wrong, and guests that do anything to both it and a real one.
//!
//! [`run_model`] compares one guest's view step by step; [`run_threads`] lets many guests meet and
//! judges each sector they read; [`run_neighbours`] lets them work side by side in the same blocks;
//! [`run_flushes`] lets them flush at once; [`soak`] lets images in files live for as long as one likes.

mod disk;
mod flushing;
mod neighbours;
mod ops;
mod run;
mod soak;
mod threads;

pub use disk::FlatDisk;
pub use flushing::run_flushes;
pub use neighbours::{Neighbours, run_neighbours};
pub use ops::{Abilities, Op, Ops, Weights};
pub use run::{Compare, run_model};
pub use soak::{Shape, Soak, soak};
pub use threads::{Threads, run_threads};
