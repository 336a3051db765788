//! Parent locator: a type and key-value pairs in UTF-16 ([MS-VHDX] §2.6.2.6).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::guid::GuidBytes;

/// Parent locator header (§2.6.2.6.1).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawLocatorHeader {
    pub(crate) locator_type: GuidBytes,
    pub(crate) reserved: le::U16,
    pub(crate) key_value_count: le::U16,
}

/// Parent locator entry (§2.6.2.6.2): where a key and its value lie within the item.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawLocatorEntry {
    pub(crate) key_offset: le::U32,
    pub(crate) value_offset: le::U32,
    pub(crate) key_length: le::U16,
    pub(crate) value_length: le::U16,
}

const _: () = assert!(size_of::<RawLocatorHeader>() == 20);
const _: () = assert!(size_of::<RawLocatorEntry>() == 12);
