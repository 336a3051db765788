//! File type identifier, at offset 0 ([MS-VHDX] §2.2.1). Written once, never again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

/// `vhdxfile`
pub(crate) const SIGNATURE: [u8; 8] = *b"vhdxfile";

/// UTF-16 units kept for the creator's name.
pub(crate) const CREATOR_UNITS: usize = 256;

/// The first 520 bytes of the file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawFileIdentifier {
    pub(crate) signature: [u8; 8],
    pub(crate) creator: [little_endian::U16; CREATOR_UNITS],
}

const _: () = assert!(size_of::<RawFileIdentifier>() == 520);
