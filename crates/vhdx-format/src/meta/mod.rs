//! Validated state and decisions: from bytes and numbers to values, without I/O.
//!
//! Rules of the specification are written once, here, as [`problem::Problem`]s: opening takes the
//! first that refuses, a check takes all.

pub(crate) mod bat;
pub(crate) mod bitmap;
pub(crate) mod difference;
pub(crate) mod file_identifier;
pub(crate) mod free_space;
pub(crate) mod geometry;
pub(crate) mod headers;
pub(crate) mod layout;
pub(crate) mod locator;
pub(crate) mod log;
pub(crate) mod log_encode;
pub(crate) mod measure;
pub(crate) mod metadata;
pub(crate) mod metadata_edit;
pub(crate) mod parent_path;
pub(crate) mod problem;
pub(crate) mod regions;
pub(crate) mod ring;
pub(crate) mod space;
