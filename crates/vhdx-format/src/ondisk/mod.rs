//! Bytes to typed fields and back: no state, no I/O, no judgement beyond sizes.
//!
//! ```text
//!     0        64 K      128 K     192 K     256 K          1 M
//!     ├─────────┼─────────┼─────────┼─────────┼──────────────┤
//!     │ file id │ header 1│ header 2│ regions1│ regions 2    │ log, BAT, metadata, blocks …
//!     └─────────┴─────────┴─────────┴─────────┴──────────────┘
//! ```

pub(crate) mod bat_entry;
pub(crate) mod crc;
pub(crate) mod file_identifier;
pub(crate) mod guid;
pub(crate) mod header;
pub(crate) mod log_entry;
pub(crate) mod metadata_items;
pub(crate) mod metadata_table;
pub(crate) mod parent_locator;
pub(crate) mod region_table;

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Sizes and places are given in MiB throughout the format.
pub(crate) const MIB: u64 = 1 << 20;

/// First byte after the header section; nothing that a table points at lies before it (§2.2).
pub(crate) const HEADER_SECTION_BYTES: u64 = MIB;

/// The structure `T` at byte `at` of `bytes`; `None` where they are too short.
pub(crate) fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8], at: usize) -> Option<T> {
    T::read_from_prefix(bytes.get(at..)?)
        .ok()
        .map(|(value, _)| value)
}
