//! Snapshot table entry (qcow2 specification, "Snapshots").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian as be};

/// Fixed part of an entry; extra data, the id and the name follow, padded to 8 bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawSnapshot {
    pub(crate) l1_table_offset: be::U64,
    pub(crate) l1_size: be::U32,
    pub(crate) id_size: be::U16,
    pub(crate) name_size: be::U16,
    pub(crate) date_sec: be::U32,
    pub(crate) date_nsec: be::U32,
    pub(crate) vm_clock_nsec: be::U64,
    pub(crate) vm_state_size: be::U32,
    pub(crate) extra_data_size: be::U32,
}

/// Extra data, as far as it is known; may be shorter or longer.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawSnapshotExtra {
    pub(crate) vm_state_size_large: be::U64,
    pub(crate) disk_size: be::U64,
    pub(crate) icount: be::U64,
}

const _: () = assert!(size_of::<RawSnapshot>() == 40);
const _: () = assert!(size_of::<RawSnapshotExtra>() == 24);
