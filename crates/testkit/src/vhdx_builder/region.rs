//! Region tables ([MS-VHDX] §2.2.3).

use uuid::Uuid;

use super::bytes::{put, seal, to_u32};

const TABLE_LEN: usize = 64 << 10;

/// One entry of the region table, stored as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionEntry {
    /// Guid.
    pub guid: Uuid,
    /// FileOffset in bytes.
    pub file_offset: u64,
    /// Length in bytes.
    pub length: u32,
    /// The Required field: 1 or 0, anything else for hostile tests.
    pub required: u32,
}

/// A region that this builder knows nothing about, placed with the others.
#[derive(Clone, Debug)]
pub struct ExtraRegion {
    /// Guid.
    pub guid: Uuid,
    /// Whether an implementation that does not know the region has to refuse the file.
    pub required: bool,
    /// Length in MiB.
    pub length_mib: u32,
    /// What the region starts with; the rest is zero.
    pub content: Vec<u8>,
}

/// The 64 KiB of a region table.
pub(super) fn encode(entries: &[RegionEntry]) -> Vec<u8> {
    let mut out = vec![0; TABLE_LEN];
    put(&mut out, 0, b"regi");
    put(&mut out, 8, &to_u32(entries.len() as u64).to_le_bytes());
    for (entry, slot) in entries.iter().zip(out[16..].chunks_exact_mut(32)) {
        put(slot, 0, &entry.guid.to_bytes_le());
        put(slot, 16, &entry.file_offset.to_le_bytes());
        put(slot, 24, &entry.length.to_le_bytes());
        put(slot, 28, &entry.required.to_le_bytes());
    }
    seal(&mut out);
    out
}
