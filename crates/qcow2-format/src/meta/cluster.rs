//! What an L2 entry means for reading (qcow2 specification, "Cluster mapping").

use std::borrow::Cow;

use super::geometry::Geometry;
use crate::Qcow2Error;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

/// Where guest bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Not from this image.
    Absent,
    /// Zeros; the place is set aside for them, where there is one.
    Zero(Option<u64>),
    /// The data file, from byte `0`.
    Data(u64),
    /// A compressed cluster: at byte `offset` of the image, in at most `len` bytes.
    Compressed { offset: u64, len: u64 },
}

/// What decides how entries are read, fixed for an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) geometry: Geometry,
    pub(crate) version: u32,
    pub(crate) has_data_file: bool,
}

/// The part of a cluster that is of one kind: `len` bytes from the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) source: Source,
    pub(crate) len: u64,
}

impl Rules {
    /// Decides where the byte `within` a cluster comes from, and how many after it come from the
    /// same. The entry lies at `entry_offset`; `bits` are given for extended entries.
    ///
    /// # Errors
    /// [`Qcow2Error::Entry`] for entries that contradict themselves or the image.
    pub(crate) fn part(
        &self,
        entry: L2Entry,
        bits: SubclusterBits,
        within: u64,
        entry_offset: u64,
    ) -> Result<Part, Qcow2Error> {
        let problem = |problem: Cow<'static, str>| Qcow2Error::Entry {
            structure: "L2 entry",
            offset: entry_offset,
            problem,
        };
        let rest = self.geometry.cluster_size() - within;
        if entry.is_compressed() {
            if self.has_data_file {
                return Err(problem(
                    "a compressed cluster in an image with a data file".into(),
                ));
            }
            let (offset, len) = entry.compressed_range(self.geometry.cluster_bits());
            return Ok(Part {
                source: Source::Compressed { offset, len },
                len: rest,
            });
        }
        let host = entry.host_offset();
        if !host.is_multiple_of(self.geometry.cluster_size()) {
            return Err(problem(
                format!("host offset {host:#x} is not cluster-aligned").into(),
            ));
        }
        // In a data file, offset 0 is a place like any other; the COPIED bit tells it from none.
        let placed = host != 0 || (self.has_data_file && entry.is_copied());
        let place = placed.then_some(host);
        if self.geometry.has_extended_l2() {
            return self.subclusters(place, bits, within).map_err(problem);
        }
        let source = match (entry.is_zero(), place) {
            (true, _) if self.version < 3 => {
                return Err(problem("a zero cluster in a version 2 image".into()));
            }
            (true, place) => Source::Zero(place.map(|place| place + within)),
            (false, Some(place)) => Source::Data(place + within),
            (false, None) => Source::Absent,
        };
        Ok(Part { source, len: rest })
    }

    fn subclusters(
        &self,
        place: Option<u64>,
        bits: SubclusterBits,
        within: u64,
    ) -> Result<Part, Cow<'static, str>> {
        let size = self.geometry.subcluster_size();
        let number = |at: u64| u32::try_from(at / size).expect("one of 32");
        let first = number(within);
        let both = bits.0 & bits.0 >> 32;
        if both != 0 {
            // One such subcluster makes the whole entry doubtful; QEMU 10.0 reads none of it either.
            let n = both.trailing_zeros();
            return Err(format!("subcluster {n} is both allocated and zero").into());
        }
        let kind = |n: u32| match (bits.is_allocated(n), bits.is_zero(n)) {
            (true, false) if place.is_none() => Err(format!(
                "subcluster {n} is allocated, but the cluster has no place"
            )),
            kind => Ok(kind),
        };
        let this = kind(first)?;
        // What comes next may be damaged; that is for whoever asks for it.
        let mut end = first + 1;
        while end < 32 && kind(end).as_ref() == Ok(&this) {
            end += 1;
        }
        let source = match (this, place) {
            ((true, _), Some(place)) => Source::Data(place + within),
            ((_, true), place) => Source::Zero(place.map(|place| place + within)),
            _ => Source::Absent,
        };
        Ok(Part {
            source,
            len: u64::from(end) * size - within,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(version: u32, extended: bool, has_data_file: bool) -> Rules {
        let geometry = Geometry::new(1 << 30, 16, extended);
        Rules {
            geometry,
            version,
            has_data_file,
        }
    }

    fn source(rules: Rules, entry: u64, bits: u64, within: u64) -> Result<Part, Qcow2Error> {
        rules.part(L2Entry(entry), SubclusterBits(bits), within, 0)
    }

    #[test]
    fn the_zero_flag_hides_the_backing_file_with_and_without_a_place() {
        let v3 = rules(3, false, false);
        assert_eq!(source(v3, 0, 0, 0).unwrap().source, Source::Absent);
        assert_eq!(source(v3, 1, 0, 5).unwrap().source, Source::Zero(None));
        let placed = source(v3, 0x5_0001, 0, 5).unwrap();
        assert_eq!(
            placed,
            Part {
                source: Source::Zero(Some(0x5_0005)),
                len: 65_531
            }
        );
        assert_eq!(
            source(v3, 0x5_0000, 0, 5).unwrap().source,
            Source::Data(0x5_0005)
        );
        assert!(
            source(rules(2, false, false), 1, 0, 0).is_err(),
            "version 2 has no such flag"
        );
    }

    #[test]
    fn offset_0_is_a_place_only_in_a_data_file() {
        let copied = 1 << 63;
        assert_eq!(
            source(rules(3, false, true), copied, 0, 0).unwrap().source,
            Source::Data(0)
        );
        assert_eq!(
            source(rules(3, false, true), 0, 0, 0).unwrap().source,
            Source::Absent
        );
        assert_eq!(
            source(rules(3, false, false), copied, 0, 0).unwrap().source,
            Source::Absent
        );
        assert!(source(rules(3, false, true), 1 << 62, 0, 0).is_err());
    }

    #[test]
    fn subclusters_run_as_far_as_their_bits_are_alike() {
        let extended = rules(3, true, false);
        let bits = 0b0111 | 0b1_1000 << 32;
        let part = |within| source(extended, 0x5_0000, bits, within).unwrap();
        assert_eq!(
            part(100),
            Part {
                source: Source::Data(0x5_0064),
                len: 3 * 2048 - 100
            }
        );
        assert_eq!(part(3 * 2048).len, 2 * 2048);
        assert_eq!(
            part(3 * 2048).source,
            Source::Zero(Some(0x5_0000 + 3 * 2048))
        );
        assert_eq!(
            part(5 * 2048),
            Part {
                source: Source::Absent,
                len: 27 * 2048
            }
        );
        assert!(
            source(extended, 0x5_0000, 1 | 1 << 32, 0).is_err(),
            "both bits"
        );
        assert!(source(extended, 0, 1, 0).is_err(), "allocated nowhere");
        let other = source(extended, 0x5_0000, 1 | 1 << 32, 2048);
        assert!(other.is_err(), "nothing of such a cluster is read");
        let plain = source(extended, 0, u64::from(u32::MAX) << 32, 0).unwrap();
        assert_eq!(
            plain,
            Part {
                source: Source::Zero(None),
                len: 65_536
            }
        );
    }

    #[test]
    fn unaligned_places_are_damage() {
        assert!(source(rules(3, false, false), 0x5_0200, 0, 0).is_err());
    }
}
