//! Header extensions (qcow2 specification, "Header extensions").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian as be};

pub(crate) const END: u32 = 0;
pub(crate) const BACKING_FORMAT: u32 = 0xE279_2ACA;
pub(crate) const FEATURE_NAMES: u32 = 0x6803_F857;
pub(crate) const BITMAPS: u32 = 0x2385_2875;
pub(crate) const FULL_DISK_ENCRYPTION: u32 = 0x0537_BE77;
pub(crate) const EXTERNAL_DATA_FILE: u32 = 0x4441_5441;

/// Head of an extension; its data follows, padded to 8 bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtension {
    pub(crate) kind: be::U32,
    pub(crate) length: be::U32,
}

/// Entry of the feature name table.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawFeatureName {
    pub(crate) kind: u8,
    pub(crate) bit: u8,
    pub(crate) name: [u8; 46],
}

/// Data of the bitmaps extension.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawBitmapsExtension {
    pub(crate) nb_bitmaps: be::U32,
    pub(crate) reserved: be::U32,
    pub(crate) directory_size: be::U64,
    pub(crate) directory_offset: be::U64,
}

/// An extension with its data, padded.
pub(crate) fn extension(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("inside a cluster");
    let mut bytes = RawExtension {
        kind: kind.into(),
        length: length.into(),
    }
    .as_bytes()
    .to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

const _: () = assert!(size_of::<RawExtension>() == 8);
const _: () = assert!(size_of::<RawFeatureName>() == 48);
const _: () = assert!(size_of::<RawBitmapsExtension>() == 24);
