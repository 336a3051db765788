//! L2 entry: what one cluster is and where, 8 bytes, or 16 with subclusters (qcow2 specification,
//! "Cluster mapping" and "Extended L2 Entries").

use super::l1_entry::{COPIED, OFFSET_MASK};

/// The first eight bytes of an L2 entry.
///
/// ```text
///              63     62   61       56 55                          9 8        1  0
///   standard  ┌──────┬────┬───────────┬─────────────────────────────┬──────────┬────┐
///             │COPIED│ 0  │ reserved  │ host offset                 │ reserved │zero│
///             └──────┴────┴───────────┴─────────────────────────────┴──────────┴────┘
///              63     62   61          x x-1                                       0
///   packed    ┌──────┬────┬─────────────┬───────────────────────────────────────────┐
///             │  0   │ 1  │ sectors − 1 │ host offset, in bytes                     │
///             └──────┴────┴─────────────┴───────────────────────────────────────────┘
///   x = 62 − (cluster bits − 8)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct L2Entry(pub u64);

const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1 << 0;

impl L2Entry {
    /// Zeros, with no place set aside for them.
    pub(crate) const UNPLACED_ZERO: Self = Self(ZERO);

    /// A standard cluster at byte `offset`, a multiple of 512, referred to once.
    pub(crate) fn standard(offset: u64) -> Self {
        Self(offset | COPIED)
    }

    /// A compressed cluster of `len` bytes from byte `offset` on, which end before
    /// [`packed_limit`](Self::packed_limit).
    pub(crate) fn compressed(offset: u64, len: u64, cluster_bits: u32) -> Self {
        let more_sectors = (offset + len - 1) / 512 - offset / 512;
        Self(COMPRESSED | more_sectors << packed_offset_bits(cluster_bits) | offset)
    }

    /// The first byte offset at which no compressed cluster can begin.
    pub(crate) fn packed_limit(cluster_bits: u32) -> u64 {
        1 << packed_offset_bits(cluster_bits)
    }

    /// The same cluster, reading as zeros whatever its place holds.
    pub(crate) fn reading_zero(self) -> Self {
        Self(self.0 | ZERO)
    }

    /// The same cluster, said to be referred to once or not.
    pub(crate) fn with_copied(self, copied: bool) -> Self {
        Self(if copied {
            self.0 | COPIED
        } else {
            self.0 & !COPIED
        })
    }

    /// True when the cluster is compressed.
    #[must_use]
    pub fn is_compressed(self) -> bool {
        self.0 & COMPRESSED != 0
    }

    /// True when the cluster's refcount is exactly one.
    #[must_use]
    pub fn is_copied(self) -> bool {
        self.0 & COPIED != 0
    }

    /// True when the zero flag is set; means nothing in compressed and in extended entries.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 & ZERO != 0
    }

    /// Host offset of a cluster that is not compressed; 0 when it has none.
    #[must_use]
    pub fn host_offset(self) -> u64 {
        self.0 & OFFSET_MASK
    }

    /// Where a compressed cluster's bytes begin, and how many there are at most: they end in the
    /// sector in which the next cluster's may begin.
    #[must_use]
    pub fn compressed_range(self, cluster_bits: u32) -> (u64, u64) {
        let x = packed_offset_bits(cluster_bits);
        let payload = self.0 & (COMPRESSED - 1);
        let offset = payload & ((1 << x) - 1);
        let sectors = (payload >> x) + 1;
        (offset, sectors * 512 - offset % 512)
    }
}

/// x of the drawing: how many bits a compressed cluster's offset has.
fn packed_offset_bits(cluster_bits: u32) -> u32 {
    62 - (cluster_bits - 8)
}

/// The last eight bytes of an extended L2 entry: a bit for each of 32 subclusters, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubclusterBits(pub u64);

impl SubclusterBits {
    /// All subclusters are stored.
    pub(crate) const ALLOCATED: Self = Self(0xFFFF_FFFF);

    /// All subclusters read as zeros.
    pub(crate) const ZERO: Self = Self(0xFFFF_FFFF << 32);

    /// The same with those of `mask` stored.
    pub(crate) fn allocated(self, mask: u32) -> Self {
        let mask = u64::from(mask);
        Self((self.0 | mask) & !(mask << 32))
    }

    /// The same with those of `mask` reading as zeros.
    pub(crate) fn zeroed(self, mask: u32) -> Self {
        let mask = u64::from(mask);
        Self((self.0 | mask << 32) & !mask)
    }

    /// True when subcluster `n` (0 to 31) is stored.
    #[must_use]
    pub fn is_allocated(self, n: u32) -> bool {
        self.0 >> n & 1 != 0
    }

    /// True when subcluster `n` (0 to 31) reads as zeros.
    #[must_use]
    pub fn is_zero(self, n: u32) -> bool {
        self.0 >> (n + 32) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compressed_split_moves_with_the_cluster_size() {
        // 64 KiB clusters: x = 54, eight bits of sectors.
        let entry = L2Entry(1 << 62 | 3 << 54 | 0x5_0123);
        assert_eq!(entry.compressed_range(16), (0x5_0123, 4 * 512 - 0x123));
        // 512-byte clusters: x = 61, one bit of sectors.
        let entry = L2Entry(1 << 62 | 1 << 61 | 0x200);
        assert_eq!(entry.compressed_range(9), (0x200, 1024));
        // 2 MiB clusters: x = 49, thirteen bits of sectors.
        let entry = L2Entry(1 << 62 | 0x1FFF << 49 | 0x1FF);
        assert_eq!(entry.compressed_range(21), (0x1FF, 0x2000 * 512 - 0x1FF));
    }

    #[test]
    fn a_compressed_entry_names_the_sectors_its_bytes_touch_and_no_more() {
        for bits in [9, 16, 21] {
            for offset in [0x400, 0x401, 0x5FF] {
                for len in [1, 2, 511] {
                    let entry = L2Entry::compressed(offset, len, bits);
                    assert!(entry.is_compressed() && !entry.is_copied());
                    let (from, most) = entry.compressed_range(bits);
                    let end = (offset + len).next_multiple_of(512);
                    assert_eq!((from, from + most), (offset, end));
                }
            }
        }
    }

    #[test]
    fn allocation_bits_are_the_low_half() {
        let bits = SubclusterBits(1 << 3 | 1 << (32 + 5));
        assert!(bits.is_allocated(3) && !bits.is_zero(3));
        assert!(!bits.is_allocated(5) && bits.is_zero(5));
    }
}
