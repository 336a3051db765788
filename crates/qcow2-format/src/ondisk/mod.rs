//! Bytes to typed fields and back: no state, no I/O, no judgement beyond sizes.
//!
//! ```text
//!   cluster 0                                   clusters anywhere
//!   ┌────────┬──────────────┬──────────────┐    ┌──────────┐   ┌──────────┐   ┌──────┐
//!   │ header │ extensions … │ backing name │    │ L1 table │ ─►│ L2 table │ ─►│ data │
//!   └────────┴──────────────┴──────────────┘    └──────────┘   └──────────┘   └──────┘
//! ```
//!
//! Everything is big-endian.

pub(crate) mod bitmap;
pub(crate) mod extension;
pub(crate) mod features;
pub(crate) mod header;
pub(crate) mod l1_entry;
pub(crate) mod l2_entry;
pub(crate) mod refcount;
pub(crate) mod snapshot;

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The structure `T` at byte `at` of `bytes`; `None` where they are too short.
pub(crate) fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8], at: usize) -> Option<T> {
    T::read_from_prefix(bytes.get(at..)?)
        .ok()
        .map(|(value, _)| value)
}
