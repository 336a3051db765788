//! What an entry of a table refers to in the image file, and what is wrong with it (qcow2
//! specification, "Cluster mapping").

use std::borrow::Cow;

use super::cluster::Rules;
use crate::ondisk::l1_entry::{L1Entry, OFFSET_MASK};
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

/// Bits of an L1 entry that are 0.
const L1_RESERVED: u64 = 0x7F00_0000_0000_01FF;
/// Bits of a standard L2 entry that are 0. `qemu-img check` 10.0.2 lets bit 0 pass where entries are
/// extended, and readers pass over it.
const L2_RESERVED: u64 = 0x3F00_0000_0000_01FE;
const BITMAP_RESERVED: u64 = 0xFF00_0000_0000_01FE;

/// A breach of a rule by one entry: a stable code, and words.
pub(crate) type Breach = (&'static str, Cow<'static, str>);

/// What an L2 entry refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference {
    /// Nothing.
    None,
    /// One cluster of guest data.
    Standard { offset: u64 },
    /// Packed bytes.
    Compressed { offset: u64, len: u64 },
}

/// The L2 table that `entry` refers to, and what is wrong with the entry.
pub(crate) fn l2_table(entry: L1Entry, cluster_size: u64) -> (Option<u64>, Option<Breach>) {
    let offset = entry.l2_offset();
    if !offset.is_multiple_of(cluster_size) {
        let words = format!("L2 table offset {offset:#x} is not cluster-aligned");
        return (None, Some(("l1-unaligned", words.into())));
    }
    let breach = (offset != 0 && entry.0 & L1_RESERVED != 0).then(|| {
        let words = format!("reserved bits are set: {:#x}", entry.0 & L1_RESERVED);
        ("l1-reserved", words.into())
    });
    (Some(offset).filter(|offset| *offset != 0), breach)
}

/// What `entry` of an L2 table refers to, and everything that is wrong with it.
pub(crate) fn l2_entry(
    rules: &Rules,
    entry: L2Entry,
    bits: SubclusterBits,
) -> (Reference, Vec<Breach>) {
    let geometry = &rules.geometry;
    let mut breaches = Vec::new();
    let mut breach = |code, words: Cow<'static, str>| breaches.push((code, words));
    if entry.is_compressed() {
        let (offset, len) = entry.compressed_range(geometry.cluster_bits());
        if rules.has_data_file {
            let words = "a compressed cluster in an image with a data file";
            breach("l2-compressed-data-file", words.into());
        }
        if entry.is_copied() {
            let words = "a compressed cluster is marked as referred to once";
            breach("l2-compressed-copied", words.into());
        }
        return (Reference::Compressed { offset, len }, breaches);
    }
    let extended = geometry.has_extended_l2();
    let offset = entry.host_offset();
    let placed = offset != 0 || (rules.has_data_file && entry.is_copied());
    let reserved = entry.0 & L2_RESERVED;
    if reserved != 0 {
        let words = format!("reserved bits are set: {reserved:#x}");
        breach("l2-reserved", words.into());
    }
    let (stored, zero) = (bits.0 & 0xFFFF_FFFF, bits.0 >> 32);
    if extended && stored & zero != 0 {
        let both = stored & zero;
        let words = format!("subclusters {both:#x} are both allocated and zero");
        breach("l2-subclusters", words.into());
    } else if extended && stored != 0 && !placed {
        let words = "subclusters are allocated, but the cluster has no place";
        breach("l2-subclusters", words.into());
    }
    if placed && !offset.is_multiple_of(geometry.cluster_size()) {
        let words = format!("host offset {offset:#x} is not cluster-aligned");
        breach("l2-unaligned", words.into());
    }
    if !extended && entry.is_zero() && rules.version < 3 {
        // `qemu-img check` 10.0.2 does not count it.
        breach("l2-zero-v2", "a zero cluster in a version 2 image".into());
    }
    // To `qemu-img check` 10.0.2 a zero cluster at place 0 of a data file has no place.
    let counts = placed && (offset != 0 || extended || !entry.is_zero());
    let reference = if counts {
        Reference::Standard { offset }
    } else {
        Reference::None
    };
    (reference, breaches)
}

/// The cluster that an entry of a bitmap table refers to, and what is wrong with the entry.
pub(crate) fn bitmap_entry(entry: u64, cluster_size: u64) -> (Option<u64>, Option<Breach>) {
    let offset = entry & OFFSET_MASK;
    let reserved = entry & (BITMAP_RESERVED | u64::from(offset != 0));
    let breach: Option<Breach> = if reserved != 0 {
        Some((
            "bitmap-reserved",
            format!("reserved bits are set: {reserved:#x}").into(),
        ))
    } else if !offset.is_multiple_of(cluster_size) {
        Some((
            "bitmap-unaligned",
            format!("{offset:#x} is not cluster-aligned").into(),
        ))
    } else {
        None
    };
    let offset = Some(offset).filter(|offset| *offset != 0 && breach.is_none());
    (offset, breach)
}
