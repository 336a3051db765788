//! Header, at offset 0 (qcow2 specification, "Header").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian as be};

/// `QFI\xfb`
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bytes of a version 2 header.
pub(crate) const V2_BYTES: usize = 72;

/// Least bytes of a version 3 header.
pub(crate) const V3_BYTES: usize = 104;

/// What both versions have.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) version: be::U32,
    pub(crate) backing_file_offset: be::U64,
    pub(crate) backing_file_size: be::U32,
    pub(crate) cluster_bits: be::U32,
    pub(crate) size: be::U64,
    pub(crate) crypt_method: be::U32,
    pub(crate) l1_size: be::U32,
    pub(crate) l1_table_offset: be::U64,
    pub(crate) refcount_table_offset: be::U64,
    pub(crate) refcount_table_clusters: be::U32,
    pub(crate) nb_snapshots: be::U32,
    pub(crate) snapshots_offset: be::U64,
}

/// What version 3 adds.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeaderV3 {
    pub(crate) incompatible_features: be::U64,
    pub(crate) compatible_features: be::U64,
    pub(crate) autoclear_features: be::U64,
    pub(crate) refcount_order: be::U32,
    pub(crate) header_length: be::U32,
}

/// Byte of the header at which the compression type lies, where the header is long enough.
pub(crate) const COMPRESSION_TYPE: usize = 104;

/// Byte at which the fields about the refcount table lie: its offset, its clusters.
pub(crate) const REFCOUNT_TABLE: u64 = 48;

/// Byte at which the fields about the backing file lie: the offset of its name, its length.
pub(crate) const BACKING_FILE: usize = 8;

/// Byte at which the version lies.
pub(crate) const VERSION: usize = 4;

/// Byte at which the length of the header lies, behind the refcounts' width.
pub(crate) const HEADER_LENGTH: usize = 100;

/// Byte at which the size of the disk lies; the method of encryption and the fields about the L1
/// table follow it: its entries, its offset.
pub(crate) const SIZE: u64 = 24;

/// Bytes from the size of the disk to the end of the fields about the L1 table.
pub(crate) const SIZE_TO_L1_TABLE: usize = 24;

/// Byte at which the fields about snapshots lie: their number, the offset of their table.
pub(crate) const SNAPSHOTS: u64 = 60;

/// Byte at which the feature bits lie: incompatible, compatible, autoclear.
pub(crate) const FEATURES: u64 = 72;

const _: () = assert!(size_of::<RawHeader>() == V2_BYTES);
const _: () = assert!(std::mem::offset_of!(RawHeader, size) as u64 == SIZE);
const _: () = assert!(
    std::mem::offset_of!(RawHeader, refcount_table_offset) as u64 == SIZE + SIZE_TO_L1_TABLE as u64
);
const _: () = assert!(std::mem::offset_of!(RawHeader, nb_snapshots) as u64 == SNAPSHOTS);
const _: () =
    assert!(std::mem::offset_of!(RawHeader, refcount_table_offset) as u64 == REFCOUNT_TABLE);
const _: () = assert!(size_of::<RawHeader>() + size_of::<RawHeaderV3>() == V3_BYTES);
