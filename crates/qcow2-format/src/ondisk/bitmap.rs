//! Bitmap directory entry (qcow2 specification, "Bitmap directory").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian as be};

/// Fixed part of an entry; extra data and the name follow, padded to 8 bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawBitmap {
    pub(crate) table_offset: be::U64,
    pub(crate) table_size: be::U32,
    pub(crate) flags: be::U32,
    pub(crate) kind: u8,
    pub(crate) granularity_bits: u8,
    pub(crate) name_size: be::U16,
    pub(crate) extra_data_size: be::U32,
}

/// Flag: the bitmap was not saved since it changed, and must not be believed.
pub(crate) const IN_USE: u32 = 1 << 0;
/// Flag: the bitmap is to note every write to the disk.
pub(crate) const AUTO: u32 = 1 << 1;
/// Byte of an entry at which the flags lie.
pub(crate) const FLAGS: u64 = 12;

const _: () = assert!(std::mem::offset_of!(RawBitmap, flags) as u64 == FLAGS);
const _: () = assert!(size_of::<RawBitmap>() == 24);
