//! qcow2 images: recognised, so that none is taken for raw; not read yet.
//!
//! The floors are those of `vhdx-format`: `ondisk/`, `meta/`, `io/`, and the types users name at
//! the crate's root.

#![forbid(unsafe_code)]

mod driver;

pub use driver::Qcow2Driver;
