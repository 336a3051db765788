//! Validated state and decisions: from bytes and numbers to values, without I/O.

pub(crate) mod backing_name;
pub(crate) mod bitmaps;
pub(crate) mod cluster;
pub(crate) mod counts;
pub(crate) mod extensions;
pub(crate) mod first_cluster;
pub(crate) mod geometry;
pub(crate) mod header;
pub(crate) mod known;
pub(crate) mod layout;
pub(crate) mod measure;
pub(crate) mod references;
pub(crate) mod reserved;
pub(crate) mod snapshots;
pub(crate) mod space;
pub(crate) mod write_plan;
pub(crate) mod zero_plan;
