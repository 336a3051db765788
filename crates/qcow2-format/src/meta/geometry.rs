//! From guest bytes to table entries (qcow2 specification, "Cluster mapping").
//!
//! ```text
//!   guest offset   63            …            │ l2 bits │ cluster bits │
//!                  └─ index in the L1 table ─┘└ L2 ────┘└ in cluster ─┘
//! ```

/// Subclusters of a cluster with extended L2 entries.
pub(crate) const SUBCLUSTERS: u64 = 32;

/// The numbers that place everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    cluster_bits: u32,
    extended_l2: bool,
}

impl Geometry {
    /// For a disk of `size` bytes; `cluster_bits` is 9 to 21.
    pub(crate) fn new(size: u64, cluster_bits: u32, extended_l2: bool) -> Self {
        Self {
            size,
            cluster_bits,
            extended_l2,
        }
    }

    /// Size of the virtual disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Binary logarithm of the cluster size.
    #[must_use]
    pub fn cluster_bits(&self) -> u32 {
        self.cluster_bits
    }

    /// Bytes in a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// True when L2 entries are 16 bytes and have subclusters.
    #[must_use]
    pub fn has_extended_l2(&self) -> bool {
        self.extended_l2
    }

    /// Bytes in a subcluster; those of a cluster where there are none.
    #[must_use]
    pub fn subcluster_size(&self) -> u64 {
        if self.extended_l2 {
            self.cluster_size() / SUBCLUSTERS
        } else {
            self.cluster_size()
        }
    }

    /// Bytes of an L2 entry.
    pub(crate) fn l2_entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Entries of an L2 table.
    pub(crate) fn l2_entries(&self) -> u64 {
        self.cluster_size() / self.l2_entry_bytes()
    }

    /// Guest bytes that one L2 table describes.
    pub(crate) fn l2_coverage(&self) -> u64 {
        // At most 2 MiB × 2^18 entries.
        self.l2_entries() << self.cluster_bits
    }

    /// Entries that the L1 table needs.
    #[must_use]
    pub fn l1_entries(&self) -> u64 {
        self.size.div_ceil(self.l2_coverage())
    }

    /// Index in the L1 table for guest byte `offset`.
    pub(crate) fn l1_index(&self, offset: u64) -> u64 {
        offset / self.l2_coverage()
    }

    /// Index in the L2 table for guest byte `offset`.
    pub(crate) fn l2_index(&self, offset: u64) -> u64 {
        (offset >> self.cluster_bits) % self.l2_entries()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_cover_what_the_specification_says() {
        let g = Geometry::new(1 << 40, 16, false);
        assert_eq!((g.l2_entries(), g.l2_coverage()), (8192, 512 << 20));
        assert_eq!(g.l1_entries(), 2048);
        assert_eq!(
            (
                g.l1_index((512 << 20) + 65_536),
                g.l2_index((512 << 20) + 65_536)
            ),
            (1, 1)
        );
        let g = Geometry::new((512 << 20) + 1, 16, true);
        assert_eq!(
            (g.l2_entries(), g.l2_coverage(), g.l1_entries()),
            (4096, 256 << 20, 3)
        );
        assert_eq!(g.subcluster_size(), 2048);
        assert_eq!(Geometry::new(0, 9, false).l1_entries(), 0);
    }
}
