//! L1 entry: where an L2 table lies, 8 bytes (qcow2 specification, "Cluster mapping").

/// An L1 entry.
///
/// ```text
///    63     62       56 55                                        9 8        0
///   ┌──────┬───────────┬───────────────────────────────────────────┬──────────┐
///   │COPIED│ reserved  │ offset of the L2 table                    │ reserved │
///   └──────┴───────────┴───────────────────────────────────────────┴──────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct L1Entry(pub u64);

/// Bits 9 to 55: an offset in L1 and L2 entries.
pub(crate) const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;

/// Bit 63: the cluster's refcount is exactly one.
pub(crate) const COPIED: u64 = 1 << 63;

impl L1Entry {
    /// The L2 table at `offset`, to which nothing else refers.
    pub(crate) fn owned(offset: u64) -> Self {
        Self(offset | COPIED)
    }

    /// The same table, said to be referred to once or not.
    pub(crate) fn with_copied(self, copied: bool) -> Self {
        Self(if copied {
            self.0 | COPIED
        } else {
            self.0 & !COPIED
        })
    }

    /// Byte offset of the L2 table; 0 when there is none.
    #[must_use]
    pub fn l2_offset(self) -> u64 {
        self.0 & OFFSET_MASK
    }

    /// True when the L2 table's refcount is exactly one.
    #[must_use]
    pub fn is_copied(self) -> bool {
        self.0 & COPIED != 0
    }
}
