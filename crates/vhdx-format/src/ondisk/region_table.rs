//! Region table, 64 KiB, twice: at 192 KiB and at 256 KiB ([MS-VHDX] §2.2.3).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::guid::GuidBytes;

/// `regi`
pub(crate) const SIGNATURE: [u8; 4] = *b"regi";

/// Where the two copies lie.
pub(crate) const OFFSETS: [u64; 2] = [192 << 10, 256 << 10];

/// Bytes of one copy, all covered by its checksum.
pub(crate) const BYTES: usize = 64 << 10;

/// Byte of the copy at which its checksum lies.
pub(crate) const CHECKSUM_FIELD: usize = 4;

/// Most entries a table may count (§2.2.3.1).
pub(crate) const MAX_ENTRIES: u32 = 2047;

/// Region table header (§2.2.3.1).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawRegionTableHeader {
    pub(crate) signature: [u8; 4],
    pub(crate) checksum: le::U32,
    pub(crate) entry_count: le::U32,
    pub(crate) reserved: le::U32,
}

/// Region table entry (§2.2.3.2).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawRegionEntry {
    pub(crate) guid: GuidBytes,
    pub(crate) file_offset: le::U64,
    pub(crate) length: le::U32,
    pub(crate) required: le::U32,
}

const _: () = assert!(size_of::<RawRegionTableHeader>() == 16);
const _: () = assert!(size_of::<RawRegionEntry>() == 32);
