//! What becomes of an L2 entry whose cluster, or part of it, is to read as zeros or is given up.

use std::ops::Range;

use super::cluster::{Rules, Source};
use super::write_plan::Slot;
use crate::Qcow2Error;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

/// How an entry changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Not at all: it says so already.
    Nothing,
    /// To this; what it referred to is given up or not.
    To {
        entry: L2Entry,
        bits: SubclusterBits,
        gives_up: bool,
    },
    /// The format has no words for it: zeros must be written.
    ByBytes,
}

impl Rules {
    /// Makes bytes `range` of a cluster, whole subclusters, read as zeros; the place is given up only
    /// if `may_unmap` is set or it is not this disk's alone.
    ///
    /// # Errors
    /// [`Qcow2Error::Entry`] for an entry that contradicts itself or the image.
    pub(crate) fn zeroed(
        &self,
        slot: &Slot,
        range: &Range<u64>,
        may_unmap: bool,
        has_backing_file: bool,
    ) -> Result<Change, Qcow2Error> {
        let first = self.part(slot.entry, slot.bits, range.start, slot.place)?;
        let source = first.source;
        let whole = *range == (0..self.geometry.cluster_size());
        let gone = |entry, bits| Change::To {
            entry,
            bits,
            gives_up: true,
        };
        if self.version < 3 || self.has_data_file {
            return Ok(match source {
                // The first subcluster does not speak for the others.
                _ if first.len < range.end - range.start => Change::ByBytes,
                Source::Absent if !has_backing_file => Change::Nothing,
                Source::Zero(_) => Change::Nothing,
                _ if may_unmap && whole && !has_backing_file && !self.has_data_file => {
                    gone(L2Entry(0), SubclusterBits(0))
                }
                _ => Change::ByBytes,
            });
        }
        let owned = slot.entry.is_copied();
        if self.geometry.has_extended_l2() {
            if slot.entry.is_compressed() {
                return Ok(if whole {
                    gone(L2Entry(0), SubclusterBits::ZERO)
                } else {
                    Change::ByBytes
                });
            }
            let bits = slot.bits.zeroed(self.subclusters_in(range));
            let placed = self.place_of(slot).is_some();
            if bits == SubclusterBits::ZERO && placed && (may_unmap || !owned) {
                return Ok(gone(L2Entry(0), bits));
            }
            if bits == slot.bits {
                return Ok(Change::Nothing);
            }
            return Ok(Change::To {
                entry: slot.entry,
                bits,
                gives_up: false,
            });
        }
        let bits = SubclusterBits(0);
        Ok(match source {
            Source::Zero(None) => Change::Nothing,
            Source::Zero(Some(_)) if !may_unmap => Change::Nothing,
            Source::Absent if !has_backing_file => Change::Nothing,
            Source::Absent => Change::To {
                entry: L2Entry::UNPLACED_ZERO,
                bits,
                gives_up: false,
            },
            Source::Data(_) if owned && !may_unmap => Change::To {
                entry: slot.entry.reading_zero(),
                bits,
                gives_up: false,
            },
            _ => gone(L2Entry::UNPLACED_ZERO, bits),
        })
    }

    /// Makes a whole cluster one that this image does not hold.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub(crate) fn unmapped(&self, slot: &Slot) -> Result<Change, Qcow2Error> {
        self.part(slot.entry, slot.bits, 0, slot.place)?;
        if slot.entry.0 == 0 && slot.bits.0 == 0 {
            return Ok(Change::Nothing);
        }
        Ok(Change::To {
            entry: L2Entry(0),
            bits: SubclusterBits(0),
            gives_up: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::geometry::Geometry;

    const COPIED: u64 = 1 << 63;
    const WHOLE: Range<u64> = 0..65_536;

    fn rules(version: u32, extended: bool) -> Rules {
        Rules {
            geometry: Geometry::new(1 << 30, 16, extended),
            version,
            has_data_file: false,
        }
    }

    fn slot(entry: u64, bits: u64) -> Slot {
        Slot {
            entry: L2Entry(entry),
            bits: SubclusterBits(bits),
            place: 0x4_0000,
        }
    }

    fn to(entry: u64, bits: u64, gives_up: bool) -> Change {
        Change::To {
            entry: L2Entry(entry),
            bits: SubclusterBits(bits),
            gives_up,
        }
    }

    #[test]
    fn a_place_is_kept_unless_it_may_go_or_is_shared() {
        let rules = rules(3, false);
        let zeroed = |entry, unmap| rules.zeroed(&slot(entry, 0), &WHOLE, unmap, true).unwrap();
        assert_eq!(
            zeroed(0x5_0000 | COPIED, false),
            to(0x5_0001 | COPIED, 0, false)
        );
        assert_eq!(zeroed(0x5_0000 | COPIED, true), to(1, 0, true));
        assert_eq!(zeroed(0x5_0000, false), to(1, 0, true));
        assert_eq!(zeroed(0, false), to(1, 0, false));
        assert_eq!(zeroed(1, true), Change::Nothing);
        assert_eq!(zeroed(1 << 62 | 0x5_0000, false), to(1, 0, true));
    }

    #[test]
    fn version_2_has_no_zeros_over_a_backing_file() {
        let rules = rules(2, false);
        let zeroed = |entry, unmap, backing| {
            rules
                .zeroed(&slot(entry, 0), &WHOLE, unmap, backing)
                .unwrap()
        };
        assert_eq!(zeroed(0, true, true), Change::ByBytes);
        assert_eq!(zeroed(0, true, false), Change::Nothing);
        assert_eq!(zeroed(0x5_0000 | COPIED, true, false), to(0, 0, true));
        assert_eq!(zeroed(0x5_0000 | COPIED, false, false), Change::ByBytes);
    }

    #[test]
    fn a_data_file_with_subclusters_is_not_judged_by_the_first_of_them() {
        let rules = Rules {
            has_data_file: true,
            ..rules(3, true)
        };
        let entry = 0x5_0000 | COPIED;
        let zeroed = |bits| {
            rules
                .zeroed(&slot(entry, bits), &WHOLE, true, false)
                .unwrap()
        };
        assert_eq!(zeroed(0b10 | 1 << 32), Change::ByBytes);
        assert_eq!(zeroed(0b10), Change::ByBytes);
        assert_eq!(zeroed(0xFFFF_FFFF << 32), Change::Nothing);
    }

    #[test]
    fn subclusters_go_one_by_one_and_the_place_with_the_last() {
        let rules = rules(3, true);
        let zeroed = |entry, bits, range, unmap| {
            rules
                .zeroed(&slot(entry, bits), &range, unmap, true)
                .unwrap()
        };
        let entry = 0x5_0000 | COPIED;
        assert_eq!(
            zeroed(entry, 0b11, 0..2048, true),
            to(entry, 0b10 | 1 << 32, false)
        );
        let all_but_one = 1 | 0xFFFF_FFFE << 32;
        assert_eq!(
            zeroed(entry, all_but_one, 0..2048, true),
            to(0, 0xFFFF_FFFF << 32, true)
        );
        assert_eq!(
            zeroed(entry, all_but_one, 0..2048, false),
            to(entry, 0xFFFF_FFFF << 32, false)
        );
        assert_eq!(
            zeroed(1 << 62 | 0x5_0000, 0, 0..2048, true),
            Change::ByBytes
        );
    }
}
