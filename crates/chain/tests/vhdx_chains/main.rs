//! VHDX images in chains, against images that were built without the format crate and a model that
//! knows what each of their sectors must read as.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod children;
mod cost;
mod dirty;
mod foreign;
mod linkage;
mod oracles;
mod paths;
mod reading;
mod shapes;
mod support;
