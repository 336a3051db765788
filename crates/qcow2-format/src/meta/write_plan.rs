//! Where the bytes of a write go in one cluster, what must go with them, and what the entry is then.
//!
//! ```text
//!   subclusters      │    0    │    1    │    2    │    3    │   (one, where there are none)
//!   the write                     ▓▓▓▓▓▓▓▓▓▓
//!   carried along              ░░░          ░░░░░░               what is there now, wherever it is
//!   only if it moves  ▒▒▒▒▒▒▒▒▒                     ▒▒▒▒▒▒▒▒▒▒   of this, what the old place holds
//! ```

use std::ops::Range;

use super::cluster::{Rules, Source};
use super::geometry::SUBCLUSTERS;
use crate::Qcow2Error;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

/// An L2 entry and where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) entry: L2Entry,
    pub(crate) bits: SubclusterBits,
    /// Byte offset of the entry; 0 when there is no table for it yet.
    pub(crate) place: u64,
}

/// Where the bytes of a write go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// To the place they have: this host byte for the first byte of the write.
    InPlace(u64),
    /// To the cluster at this host byte, which is set aside for them; the entry changes.
    SetAside(u64),
    /// To a cluster that is still to be found.
    New,
}

/// A part of a cluster that must be written along with the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    /// First byte in the cluster.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) source: Source,
}

impl Rules {
    /// Where bytes `range` of the cluster at guest byte `guest` go.
    ///
    /// # Errors
    /// [`Qcow2Error::Entry`] for an entry that contradicts itself or the image.
    pub(crate) fn target(
        &self,
        slot: &Slot,
        guest: u64,
        range: &Range<u64>,
    ) -> Result<Target, Qcow2Error> {
        // Whatever is wrong with the entry is said here.
        let part = self.part(slot.entry, slot.bits, range.start, slot.place)?;
        let owned = slot.entry.is_copied() || self.has_data_file;
        let host = match part.source {
            Source::Compressed { .. } => None,
            _ => self.place_of(slot),
        };
        Ok(match (host, part.source) {
            (Some(_), Source::Data(at)) if owned && part.len >= range.end - range.start => {
                Target::InPlace(at)
            }
            (Some(host), _) if owned => Target::SetAside(host),
            // In a data file every byte has the place that it has on the disk.
            (None, _) if self.has_data_file => Target::SetAside(guest),
            _ => Target::New,
        })
    }

    /// The host cluster of a cluster that is not compressed, if it has one.
    pub(crate) fn place_of(&self, slot: &Slot) -> Option<u64> {
        let host = slot.entry.host_offset();
        let placed = host != 0 || (self.has_data_file && slot.entry.is_copied());
        (placed && !slot.entry.is_compressed()).then_some(host)
    }

    /// What has to be written along with bytes `range` of a cluster that goes to `target`, in
    /// ascending order.
    ///
    /// # Errors
    /// As [`target`](Self::target).
    pub(crate) fn carried(
        &self,
        slot: &Slot,
        range: &Range<u64>,
        target: Target,
    ) -> Result<Vec<Carried>, Qcow2Error> {
        let touched = self.touched(range);
        let moves = target == Target::New;
        let mut carried = Vec::new();
        let mut at = 0;
        while at < self.geometry.cluster_size() {
            if at == range.start {
                at = range.end;
                continue;
            }
            let part = self.part(slot.entry, slot.bits, at, slot.place)?;
            let inside = at >= touched.start && at < touched.end;
            let mut to = at + part.len;
            for border in [touched.start, range.start, range.end, touched.end] {
                if border > at {
                    to = to.min(border);
                }
            }
            let stored = matches!(part.source, Source::Data(_) | Source::Compressed { .. });
            if inside || (moves && stored) {
                carried.push(Carried {
                    from: at,
                    to,
                    source: part.source,
                });
            }
            at = to;
        }
        Ok(carried)
    }

    /// The bytes of all subclusters that `range` has a part in.
    pub(crate) fn touched(&self, range: &Range<u64>) -> Range<u64> {
        let size = self.geometry.subcluster_size();
        range.start / size * size..range.end.div_ceil(size) * size
    }

    /// The entry of a cluster of which bytes `range` were written, all that they carry along too, to
    /// the cluster at `host`.
    pub(crate) fn written(
        &self,
        slot: &Slot,
        range: &Range<u64>,
        host: u64,
    ) -> (L2Entry, SubclusterBits) {
        let entry = L2Entry::standard(host);
        if !self.geometry.has_extended_l2() {
            return (entry, SubclusterBits(0));
        }
        if slot.entry.is_compressed() {
            return (entry, SubclusterBits::ALLOCATED);
        }
        (
            entry,
            slot.bits
                .allocated(self.subclusters_in(&self.touched(range))),
        )
    }

    /// A mask of the subclusters in `range`, which begins and ends with one.
    pub(crate) fn subclusters_in(&self, range: &Range<u64>) -> u32 {
        let size = self.geometry.subcluster_size();
        (0..u32::try_from(SUBCLUSTERS).expect("32"))
            .filter(|n| range.contains(&(u64::from(*n) * size)))
            .fold(0, |mask, n| mask | 1 << n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::geometry::Geometry;

    fn rules(extended: bool, has_data_file: bool) -> Rules {
        Rules {
            geometry: Geometry::new(1 << 30, 16, extended),
            version: 3,
            has_data_file,
        }
    }

    fn slot(entry: u64, bits: u64) -> Slot {
        Slot {
            entry: L2Entry(entry),
            bits: SubclusterBits(bits),
            place: 0x4_0000,
        }
    }

    const COPIED: u64 = 1 << 63;

    #[test]
    fn only_what_nobody_shares_is_written_in_place() {
        let rules = rules(false, false);
        let target = |entry| rules.target(&slot(entry, 0), 0, &(100..200)).unwrap();
        assert_eq!(target(0x5_0000 | COPIED), Target::InPlace(0x5_0064));
        assert_eq!(target(0x5_0000), Target::New, "a snapshot has it too");
        assert_eq!(target(0x5_0001 | COPIED), Target::SetAside(0x5_0000));
        assert_eq!(target(0x5_0001), Target::New);
        assert_eq!(target(1), Target::New);
        assert_eq!(target(0), Target::New);
        assert_eq!(target(1 << 62 | 0x5_0000), Target::New);
        assert!(
            rules
                .target(&slot(0x5_0200 | COPIED, 0), 0, &(0..1))
                .is_err()
        );
    }

    #[test]
    fn a_data_file_keeps_every_byte_at_its_guest_offset() {
        let rules = rules(false, true);
        let target = |entry| rules.target(&slot(entry, 0), 0x7_0000, &(0..9)).unwrap();
        assert_eq!(target(0), Target::SetAside(0x7_0000));
        assert_eq!(target(0x7_0000 | COPIED), Target::InPlace(0x7_0000));
        assert_eq!(target(1), Target::SetAside(0x7_0000));
    }

    #[test]
    fn a_new_cluster_is_written_whole() {
        let rules = rules(false, false);
        let carried = rules
            .carried(&slot(0, 0), &(100..200), Target::New)
            .unwrap();
        let absent = |from, to| Carried {
            from,
            to,
            source: Source::Absent,
        };
        assert_eq!(carried, [absent(0, 100), absent(200, 65_536)]);
        assert_eq!(
            rules
                .carried(&slot(0, 0), &(0..65_536), Target::New)
                .unwrap(),
            []
        );
    }

    #[test]
    fn of_subclusters_only_the_touched_ones_are_written_unless_the_cluster_moves() {
        let rules = rules(true, false);
        // Subcluster 0 stored, 1 absent, 2 zeros, the rest absent; the write touches 1 and 2.
        let bits = 1 | 1 << 34;
        let range = 2048 + 100..2 * 2048 + 100;
        let own = slot(0x5_0000 | COPIED, bits);
        let target = rules.target(&own, 0, &range).unwrap();
        assert_eq!(target, Target::SetAside(0x5_0000));
        let carried = rules.carried(&own, &range, target).unwrap();
        let spans: Vec<_> = carried.iter().map(|c| (c.from, c.to)).collect();
        assert_eq!(spans, [(2048, 2148), (4196, 6144)]);
        let shared = slot(0x5_0000, bits);
        let carried = rules.carried(&shared, &range, Target::New).unwrap();
        assert_eq!((carried[0].from, carried[0].to), (0, 2048));
        assert_eq!(carried[0].source, Source::Data(0x5_0000));
        let (entry, bits) = rules.written(&shared, &range, 0x9_0000);
        assert_eq!((entry.0, bits.0), (0x9_0000 | COPIED, 0b111));
    }
}
