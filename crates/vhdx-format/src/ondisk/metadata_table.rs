//! Metadata table, the first 64 KiB of the metadata region ([MS-VHDX] §2.6.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::guid::GuidBytes;

/// `metadata`
pub(crate) const SIGNATURE: [u8; 8] = *b"metadata";

/// Bytes of the table.
pub(crate) const BYTES: usize = 64 << 10;

/// Most entries a table may count (§2.6.1.1).
pub(crate) const MAX_ENTRIES: u16 = 2047;

/// Most of them that may be the user's (§2.6.1.2).
pub(crate) const MAX_USER_ENTRIES: usize = 1024;

/// Longest item (§2.6.1.2).
pub(crate) const MAX_ITEM_BYTES: u32 = 1 << 20;

/// Metadata table header (§2.6.1.1).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawMetadataTableHeader {
    pub(crate) signature: [u8; 8],
    pub(crate) reserved: le::U16,
    pub(crate) entry_count: le::U16,
    pub(crate) reserved2: [u8; 20],
}

/// Metadata table entry (§2.6.1.2).
///
/// ```text
///   flags   31                    3      2          1           0
///          ┌───────────────────────┬──────────┬──────────┬──────────┐
///          │ reserved              │ required │ virtual  │ user     │
///          └───────────────────────┴──────────┴──────────┴──────────┘
/// ```
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawMetadataEntry {
    pub(crate) item_id: GuidBytes,
    pub(crate) offset: le::U32,
    pub(crate) length: le::U32,
    pub(crate) flags: le::U32,
    pub(crate) reserved2: le::U32,
}

pub(crate) const IS_USER: u32 = 1 << 0;
pub(crate) const IS_VIRTUAL_DISK: u32 = 1 << 1;
pub(crate) const IS_REQUIRED: u32 = 1 << 2;

const _: () = assert!(size_of::<RawMetadataTableHeader>() == 32);
const _: () = assert!(size_of::<RawMetadataEntry>() == 32);
