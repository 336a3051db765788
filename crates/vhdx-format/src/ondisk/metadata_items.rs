//! The fixed metadata items ([MS-VHDX] §2.6.2.1 to §2.6.2.5).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

/// File parameters (§2.6.2.1).
///
/// ```text
///   flags   31                        2      1             0
///          ┌───────────────────────────┬───────────┬───────────────────┐
///          │ reserved                  │ hasParent │ leaveBlockAlloc.  │
///          └───────────────────────────┴───────────┴───────────────────┘
/// ```
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawFileParameters {
    pub(crate) block_size: le::U32,
    pub(crate) flags: le::U32,
}

pub(crate) const LEAVE_BLOCK_ALLOCATED: u32 = 1 << 0;
pub(crate) const HAS_PARENT: u32 = 1 << 1;

const _: () = assert!(size_of::<RawFileParameters>() == 8);
