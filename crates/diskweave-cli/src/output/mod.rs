//! How answers look.

pub(crate) mod json;
pub(crate) mod plain;
pub(crate) mod progress;
pub(crate) mod size;
pub(crate) mod snapshot_table;
pub(crate) mod tree;
