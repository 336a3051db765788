//! The floor that holds a `Storage`: one verb per file.

pub(crate) mod bitmaps;
pub(crate) mod check;
pub(crate) mod compress;
pub(crate) mod create;
pub(crate) mod decompress;
pub(crate) mod extents;
pub(crate) mod inspect;
pub(crate) mod open;
pub(crate) mod read;
pub(crate) mod tables;
