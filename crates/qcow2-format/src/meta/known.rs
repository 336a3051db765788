//! What is remembered of a cluster, in one word, so that requests find it without looking into tables.
//!
//! ```text
//!   63                            9         1   0
//!   ┌─────────────────────────────┬─────┬─────┬─────┐
//!   │ host offset                 │     │owned│ in  │      0: the image does not hold the cluster
//!   └─────────────────────────────┴─────┴─────┴─────┘
//! ```

use super::cluster::{Part, Rules, Source};
use super::write_plan::Slot;

/// The cluster is stored here.
const STORED: u64 = 1 << 0;
/// It is this disk's alone, and none of the image's structures lies there.
const OWNED: u64 = 1 << 1;

/// A cluster that is of one kind from end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known(pub(crate) u64);

impl Known {
    /// The same, said to be written to in place without another question.
    pub(crate) fn owned(self) -> Self {
        Self(self.0 | OWNED)
    }

    /// Where the cluster is stored, if it is.
    pub(crate) fn host(self) -> Option<u64> {
        (self.0 & STORED != 0).then_some(self.0 & !(STORED | OWNED))
    }

    /// Where it is written in place.
    pub(crate) fn owned_host(self) -> Option<u64> {
        self.host().filter(|_| self.0 & OWNED != 0)
    }
}

impl Rules {
    /// What is to be remembered of the cluster that `slot` is the entry of: that it is stored whole, or
    /// that nothing of it is here. Of all others nothing is.
    pub(crate) fn known(&self, slot: &Slot) -> Option<Known> {
        let Part { source, len } = self.part(slot.entry, slot.bits, 0, slot.place).ok()?;
        match source {
            _ if len != self.geometry.cluster_size() => None,
            // A multiple of the cluster size.
            Source::Data(host) => Some(Known(host | STORED)),
            Source::Absent => Some(Known(0)),
            Source::Zero(_) | Source::Compressed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::geometry::Geometry;
    use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

    fn known(extended: bool, entry: u64, bits: u64) -> Option<Known> {
        let rules = Rules {
            geometry: Geometry::new(1 << 30, 16, extended),
            version: 3,
            has_data_file: false,
        };
        let (entry, bits) = (L2Entry(entry), SubclusterBits(bits));
        rules.known(&Slot {
            entry,
            bits,
            place: 0x4_0000,
        })
    }

    #[test]
    fn only_what_is_of_one_kind_from_end_to_end_is_remembered() {
        let stored = known(false, 1 << 63 | 0x5_0000, 0).unwrap();
        assert_eq!((stored.host(), stored.owned_host()), (Some(0x5_0000), None));
        assert_eq!(stored.owned().owned_host(), Some(0x5_0000));
        assert_eq!(stored.owned().host(), Some(0x5_0000));
        assert_eq!(known(false, 0, 0).unwrap().host(), None);
        assert_eq!(known(false, 0x5_0001, 0), None, "zeros");
        assert_eq!(known(false, 1 << 62 | 0x5_0000, 0), None, "packed");
        assert_eq!(known(false, 0x5_0200, 0), None, "damaged");
        assert_eq!(
            known(true, 0x5_0000, 0xFFFF_FFFF),
            known(false, 0x5_0000, 0)
        );
        assert_eq!(known(true, 0x5_0000, 0x7FFF_FFFF), None, "a part is absent");
        assert_eq!(
            known(true, 0x5_0000, 0),
            known(false, 0, 0),
            "set aside, and absent"
        );
    }
}
