//! A disk that cannot be wrong, and guests that do anything to both it and a real one.

mod ops;

pub use ops::{Abilities, Op, Ops, Weights};
