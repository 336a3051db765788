//! Log entries: descriptors, then data sectors, in units of 4 KiB ([MS-VHDX] §2.3.1).
//!
//! ```text
//!   descriptor sectors                       data sectors, one for each data descriptor
//!   ┌────────┬──────┬──────┬─── ─┐┌─── ─┐    ┌──────┬─────┬──────────────┬─────┐
//!   │ header │ desc │ zero │  …  ││  …  │    │ data │ seq │  bytes 8 …   │ seq │ …
//!   │ 64 B   │ 32 B │ 32 B │     ││     │    │ 4 B  │ high│  … 4091      │ low │
//!   └────────┴──────┴──────┴─── ─┘└─── ─┘    └──────┴─────┴──────────────┴─────┘
//!     126 descriptors fit beside the header, 128 in each further sector
//! ```
//!
//! The first 8 and the last 4 bytes of each page travel in its descriptor; their places in the data
//! sector carry the sequence number, so that a torn or misdirected write shows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::guid::GuidBytes;

/// `loge`
pub(crate) const SIGNATURE: [u8; 4] = *b"loge";
/// `desc`
pub(crate) const DATA_DESCRIPTOR_SIGNATURE: [u8; 4] = *b"desc";
/// `zero`
pub(crate) const ZERO_DESCRIPTOR_SIGNATURE: [u8; 4] = *b"zero";
/// `data`
pub(crate) const DATA_SECTOR_SIGNATURE: [u8; 4] = *b"data";

/// The unit of the log, in bytes.
pub(crate) const SECTOR_BYTES: u32 = 4096;

/// Byte of the entry at which its checksum lies.
pub(crate) const CHECKSUM_FIELD: usize = 4;

/// Entry header (§2.3.1.1).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawEntryHeader {
    pub(crate) signature: [u8; 4],
    pub(crate) checksum: le::U32,
    pub(crate) entry_length: le::U32,
    pub(crate) tail: le::U32,
    pub(crate) sequence_number: le::U64,
    pub(crate) descriptor_count: le::U32,
    pub(crate) reserved: le::U32,
    pub(crate) log_guid: GuidBytes,
    pub(crate) flushed_file_offset: le::U64,
    pub(crate) last_file_offset: le::U64,
}

/// Data descriptor (§2.3.1.3), and zero descriptor (§2.3.1.2) under the same shape: there `trailing`
/// is reserved and `leading` is the length.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawDescriptor {
    pub(crate) signature: [u8; 4],
    pub(crate) trailing: [u8; 4],
    pub(crate) leading: [u8; 8],
    pub(crate) file_offset: le::U64,
    pub(crate) sequence_number: le::U64,
}

/// Data sector (§2.3.1.4).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawDataSector {
    pub(crate) signature: [u8; 4],
    pub(crate) sequence_high: le::U32,
    pub(crate) data: [u8; 4084],
    pub(crate) sequence_low: le::U32,
}

const _: () = assert!(size_of::<RawEntryHeader>() == 64);
const _: () = assert!(size_of::<RawDescriptor>() == 32);
const _: () = assert!(size_of::<RawDataSector>() == SECTOR_BYTES as usize);

/// Sectors that `count` descriptors and the header take.
pub(crate) fn descriptor_sectors(count: u32) -> u64 {
    (64 + u64::from(count) * 32).div_ceil(u64::from(SECTOR_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sector_holds_126_descriptors_and_the_others_128() {
        let sectors = [0, 1, 126, 127, 126 + 128, 126 + 129].map(descriptor_sectors);
        assert_eq!(sectors, [1, 1, 1, 2, 2, 3]);
    }
}
