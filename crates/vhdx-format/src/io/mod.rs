//! The floor that holds a `Storage`: one verb per file.

pub(crate) mod check;
pub(crate) mod child;
pub(crate) mod compact;
pub(crate) mod create;
pub(crate) mod discard;
pub(crate) mod disk_type;
pub(crate) mod engine;
pub(crate) mod extents;
pub(crate) mod headers;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod metadata;
pub(crate) mod move_bat;
pub(crate) mod open;
pub(crate) mod pages;
pub(crate) mod read;
pub(crate) mod relink;
pub(crate) mod repair;
pub(crate) mod replay;
pub(crate) mod resize;
pub(crate) mod salvage;
pub(crate) mod tables;
pub(crate) mod window;
pub(crate) mod write;
pub(crate) mod zero;
