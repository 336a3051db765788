//! The floor that holds a `Storage`: one verb per file.

pub(crate) mod check;
pub(crate) mod child;
pub(crate) mod create;
pub(crate) mod extents;
pub(crate) mod headers;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod open;
pub(crate) mod read;
pub(crate) mod replay;
pub(crate) mod tables;
pub(crate) mod window;
