//! Header, 4 KiB, twice: at 64 KiB and at 128 KiB ([MS-VHDX] §2.2.2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::guid::GuidBytes;

/// `head`
pub(crate) const SIGNATURE: [u8; 4] = *b"head";

/// Where the two copies lie.
pub(crate) const OFFSETS: [u64; 2] = [64 << 10, 128 << 10];

/// Bytes of one copy, all covered by its checksum.
pub(crate) const BYTES: usize = 4096;

/// Byte of the copy at which its checksum lies.
pub(crate) const CHECKSUM_FIELD: usize = 4;

/// One copy of the header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) signature: [u8; 4],
    pub(crate) checksum: le::U32,
    pub(crate) sequence_number: le::U64,
    pub(crate) file_write_guid: GuidBytes,
    pub(crate) data_write_guid: GuidBytes,
    pub(crate) log_guid: GuidBytes,
    pub(crate) log_version: le::U16,
    pub(crate) version: le::U16,
    pub(crate) log_length: le::U32,
    pub(crate) log_offset: le::U64,
    pub(crate) reserved: [u8; 4016],
}

const _: () = assert!(size_of::<RawHeader>() == BYTES);
