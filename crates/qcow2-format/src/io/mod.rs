//! The floor that holds a `Storage`: one verb per file.

pub(crate) mod amend;
pub(crate) mod bitmaps;
pub(crate) mod check;
pub(crate) mod compress;
pub(crate) mod control;
pub(crate) mod create;
pub(crate) mod decompress;
pub(crate) mod discard;
pub(crate) mod engine;
pub(crate) mod extents;
pub(crate) mod inspect;
#[cfg(all(test, shuttle))]
mod model;
pub(crate) mod open;
pub(crate) mod pages;
pub(crate) mod read;
pub(crate) mod remap;
pub(crate) mod repair;
pub(crate) mod resize;
pub(crate) mod snapshot;
pub(crate) mod tables;
pub(crate) mod words;
pub(crate) mod write;
pub(crate) mod write_compressed;
pub(crate) mod zero;
