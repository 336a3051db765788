//! What clients are told of an export.

use blockdev_core::DeviceInfo;

use super::context::Context;
use crate::wire::flags::transmission::{
    CAN_MULTI_CONN, HAS_FLAGS, READ_ONLY, SEND_CACHE, SEND_DF, SEND_FAST_ZERO, SEND_FLUSH,
    SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES,
};

/// Longest read or write, in bytes: what clients take for granted that were told nothing.
pub(crate) const MAX_REQUEST: u32 = 32 << 20;
/// Disks take any byte range.
pub(crate) const MIN_BLOCK: u32 = 1;
/// Longest preferred size: more would make readers ask for more than they need.
const MAX_PREFERRED: u32 = 1 << 20;
const PAGE: u32 = 4096;

/// The facts of an export.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) size: u64,
    pub(crate) read_only: bool,
    pub(crate) trim: bool,
    pub(crate) preferred_block: u32,
    /// Several connections may be had at once.
    pub(crate) shared: bool,
    /// Clients may ask which layer of a chain decides.
    pub(crate) depth: bool,
}

impl Offer {
    pub(crate) fn new(
        name: String,
        description: String,
        info: &DeviceInfo,
        read_only: bool,
        shared: bool,
    ) -> Self {
        let unit = info.block_size.unwrap_or(PAGE);
        Self {
            name,
            description,
            size: info.size,
            read_only,
            trim: info.caps.discard && !read_only,
            preferred_block: match unit.is_power_of_two() {
                true => unit.clamp(PAGE, MAX_PREFERRED),
                false => PAGE,
            },
            shared,
            depth: true,
        }
    }

    /// What block status can be told of.
    pub(crate) fn contexts(&self) -> &'static [Context] {
        match self.depth {
            true => Context::ALL,
            false => Context::WITHOUT_DEPTH,
        }
    }

    /// The transmission flags. A flush of one connection is one of the disk, which all share, so that
    /// a client may spread its requests over several.
    pub(crate) fn flags(&self, structured: bool) -> u16 {
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_CACHE;
        let mut set = |flag, when| flags |= if when { flag } else { 0 };
        set(READ_ONLY, self.read_only);
        set(SEND_WRITE_ZEROES | SEND_FAST_ZERO, !self.read_only);
        set(SEND_TRIM, self.trim);
        set(SEND_DF, structured);
        set(CAN_MULTI_CONN, self.shared);
        flags
    }
}
