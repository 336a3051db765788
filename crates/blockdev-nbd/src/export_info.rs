//! What a server tells of an export to who only looks around.

use crate::wire::flags::transmission::READ_ONLY;

/// An export of a server, as [`list_exports`](crate::list_exports) finds it. All of it is the server's word.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportInfo {
    /// By which it is asked for; empty for the server's default.
    pub name: String,
    /// For people; empty if there is none.
    pub description: String,
    /// Size of the disk in bytes, if the server tells it of exports that are not used.
    pub size: Option<u64>,
    /// What can be asked of it, as the protocol has it ("Transmission flags"); 0 where there is no `size`.
    pub flags: u16,
    /// How long requests may be, if the server tells.
    pub block_sizes: Option<BlockSizes>,
    /// What can be known of ranges of it without reading them: `base:allocation` and others.
    pub contexts: Vec<String>,
    /// Whether the server takes requests of more than 32 bits.
    pub extended_headers: bool,
}

/// How long requests may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockSizes {
    /// Requests lie on multiples of it: a power of two.
    pub minimum: u32,
    /// What suits the server best: a power of two, and no less.
    pub preferred: u32,
    /// The longest read or write; no less than the minimum.
    pub maximum: u32,
}

impl ExportInfo {
    /// One of which nothing else is known.
    pub(crate) fn named(name: String, description: String) -> Self {
        Self {
            name,
            description,
            size: None,
            flags: 0,
            block_sizes: None,
            contexts: Vec::new(),
            extended_headers: false,
        }
    }

    /// Whether nothing can be written to it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags & READ_ONLY != 0
    }
}
