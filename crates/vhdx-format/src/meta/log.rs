//! Log entries, and which of them are to be replayed ([MS-VHDX] §2.3).
//!
//! ```text
//!   ring     … ┆ older ┆ tail │ N+1 │ N+2 │ head ┆ older …
//!                        └──────── active ───────┘
//!   the head names its tail; numbers rise by one; every entry bears the header's LogGuid
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::ondisk::crc::checksum;
use crate::ondisk::log_entry::{
    CHECKSUM_FIELD, DATA_DESCRIPTOR_SIGNATURE, DATA_SECTOR_SIGNATURE, RawDataSector, RawDescriptor,
    RawEntryHeader, SECTOR_BYTES, SIGNATURE, ZERO_DESCRIPTOR_SIGNATURE, descriptor_sectors,
};
use crate::ondisk::read;

/// Header of a log entry (§2.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntryHeader {
    /// `loge` in a valid entry.
    pub signature: [u8; 4],
    /// CRC-32C that the entry claims.
    pub checksum: u32,
    /// Length of the entry in bytes, a multiple of 4 KiB.
    pub entry_length: u32,
    /// Where in the log the sequence that ends with this entry begins.
    pub tail: u32,
    /// One more than that of the entry before.
    pub sequence_number: u64,
    /// Number of descriptors.
    pub descriptor_count: u32,
    /// Identity of the log the entry belongs to.
    pub log_guid: Uuid,
    /// Length in bytes that the file is known to have had on stable storage.
    pub flushed_file_offset: u64,
    /// Length in bytes that all structures fit into.
    pub last_file_offset: u64,
}

impl LogEntryHeader {
    /// Decodes the header at the start of a sector; `None` where there is no entry at all.
    pub(crate) fn decode(sector: &[u8]) -> Option<Self> {
        let raw: RawEntryHeader = read(sector, 0)?;
        (raw.signature == SIGNATURE).then(|| Self {
            signature: raw.signature,
            checksum: raw.checksum.get(),
            entry_length: raw.entry_length.get(),
            tail: raw.tail.get(),
            sequence_number: raw.sequence_number.get(),
            descriptor_count: raw.descriptor_count.get(),
            log_guid: raw.log_guid.get(),
            flushed_file_offset: raw.flushed_file_offset.get(),
            last_file_offset: raw.last_file_offset.get(),
        })
    }

    /// What is wrong with the header by itself, in a log `log_length` bytes long; the rest of the
    /// entry need not be read then.
    pub(crate) fn flaw(&self, log_length: u32) -> Option<&'static str> {
        let sectors = descriptor_sectors(self.descriptor_count) * u64::from(SECTOR_BYTES);
        if self.entry_length == 0 || !self.entry_length.is_multiple_of(SECTOR_BYTES) {
            Some("EntryLength is not a multiple of 4 KiB")
        } else if self.entry_length > log_length {
            Some("EntryLength is greater than the log")
        } else if !self.tail.is_multiple_of(SECTOR_BYTES) || self.tail >= log_length {
            Some("Tail is not a sector of the log")
        } else if self.sequence_number == 0 {
            Some("SequenceNumber is 0")
        } else if sectors > u64::from(self.entry_length) {
            Some("DescriptorCount is greater than the entry holds")
        } else {
            None
        }
    }
}

/// One update that a log entry asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogDescriptor {
    /// Write 4 KiB (§2.3.1.3).
    Data {
        /// Where to, a multiple of 4 KiB.
        file_offset: u64,
        /// Bytes 0 to 7 of the page.
        leading: [u8; 8],
        /// Bytes 4,092 to 4,095 of the page.
        trailing: [u8; 4],
        /// Which of the entry's data sectors has the rest.
        data_sector: u32,
    },
    /// Write zeros (§2.3.1.2).
    Zero {
        /// Where to, a multiple of 4 KiB.
        file_offset: u64,
        /// How many bytes, a multiple of 4 KiB.
        length: u64,
    },
}

/// A log entry, valid in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry {
    /// Where in the log it begins.
    pub log_offset: u32,
    /// Its header.
    pub header: LogEntryHeader,
    /// Its descriptors, in order.
    pub descriptors: Vec<LogDescriptor>,
}

impl LogEntry {
    /// Decodes the whole entry `bytes`, found at `log_offset` of the log.
    ///
    /// # Errors
    /// What is wrong with it. For old entries, partly overwritten, that is usual.
    pub(crate) fn decode(bytes: &[u8], log_offset: u32) -> Result<Self, &'static str> {
        let header = LogEntryHeader::decode(bytes).ok_or("Signature is not \"loge\"")?;
        if header.entry_length as usize != bytes.len() {
            return Err("EntryLength is not the length of the entry");
        }
        let length = header.entry_length;
        if let Some(flaw) = header.flaw(u32::MAX) {
            return Err(flaw);
        }
        if checksum(bytes, CHECKSUM_FIELD) != header.checksum {
            return Err("Checksum is not the CRC-32C of the entry");
        }
        let sectors = u32::try_from(descriptor_sectors(header.descriptor_count))
            .map_err(|_| "DescriptorCount is greater than the entry holds")?;
        let mut data_sectors = 0;
        let mut descriptors = Vec::with_capacity(header.descriptor_count as usize);
        for i in 0..header.descriptor_count as usize {
            let raw: RawDescriptor = read(bytes, size_of::<RawEntryHeader>() + i * 32)
                .ok_or("a descriptor lies outside the entry")?;
            if raw.sequence_number.get() != header.sequence_number {
                return Err("a descriptor has another sequence number");
            }
            let file_offset = raw.file_offset.get();
            if !file_offset.is_multiple_of(u64::from(SECTOR_BYTES)) {
                return Err("FileOffset of a descriptor is not a multiple of 4 KiB");
            }
            descriptors.push(match raw.signature {
                DATA_DESCRIPTOR_SIGNATURE => {
                    let data_sector = data_sectors;
                    data_sectors += 1;
                    let (leading, trailing) = (raw.leading, raw.trailing);
                    LogDescriptor::Data {
                        file_offset,
                        leading,
                        trailing,
                        data_sector,
                    }
                }
                ZERO_DESCRIPTOR_SIGNATURE => {
                    let length = u64::from_le_bytes(raw.leading);
                    if !length.is_multiple_of(u64::from(SECTOR_BYTES)) {
                        return Err("ZeroLength is not a multiple of 4 KiB");
                    }
                    LogDescriptor::Zero {
                        file_offset,
                        length,
                    }
                }
                _ => return Err("a descriptor has an unknown signature"),
            });
        }
        // It may be longer: a writer on a disk of large sectors starts the next entry in a sector
        // of its own (§2.3.1, note 3).
        if (u64::from(sectors) + u64::from(data_sectors)) * u64::from(SECTOR_BYTES)
            > u64::from(length)
        {
            return Err("EntryLength is less than its descriptors and data sectors take");
        }
        for i in 0..data_sectors {
            let sector = data_sector(bytes, sectors + i);
            let sequence =
                u64::from(sector.sequence_high.get()) << 32 | u64::from(sector.sequence_low.get());
            if sector.signature != DATA_SECTOR_SIGNATURE {
                return Err("a data sector has an unknown signature");
            }
            if sequence != header.sequence_number {
                return Err("a data sector has another sequence number");
            }
        }
        Ok(Self {
            log_offset,
            header,
            descriptors,
        })
    }

    /// The page that a data descriptor asks to write, put together from it and its data sector in
    /// `bytes`, the whole entry.
    pub(crate) fn page(
        &self,
        bytes: &[u8],
        (leading, trailing, data_sector_number): ([u8; 8], [u8; 4], u32),
    ) -> [u8; SECTOR_BYTES as usize] {
        let first = u32::try_from(descriptor_sectors(self.header.descriptor_count))
            .expect("the entry was decoded");
        let sector = data_sector(bytes, first + data_sector_number);
        let mut page = [0; SECTOR_BYTES as usize];
        page[..8].copy_from_slice(&leading);
        page[8..4092].copy_from_slice(&sector.data);
        page[4092..].copy_from_slice(&trailing);
        page
    }
}

/// Sector number `sector` of an entry whose length was checked.
fn data_sector(bytes: &[u8], sector: u32) -> &RawDataSector {
    let at = sector as usize * SECTOR_BYTES as usize;
    RawDataSector::ref_from_bytes(&bytes[at..at + SECTOR_BYTES as usize])
        .expect("one sector, of any alignment")
}

/// What the search for the active sequence needs to know of a valid entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) length: u32,
    pub(crate) tail: u32,
    pub(crate) sequence_number: u64,
}

/// Finds the newest valid and complete sequence in a log `log_length` bytes long (§2.3.3) whose
/// valid entries are `entries`, by place: the places of its entries, tail first; empty when there is
/// none.
///
/// The specification starts anew from every sector and follows the entries as far as their numbers
/// rise by one. All starts that lead to one head are settled by a single question: does the entry
/// that the head names as its tail lead there? So the work is linear, whatever a forger lays out.
pub(crate) fn active_sequence(log_length: u32, entries: &BTreeMap<u32, Step>) -> Vec<u32> {
    // Step 3: the entry that extends a sequence which ends with the one at `at`.
    let follower = |at: u32, step: Step| {
        let end = u64::from(at) + u64::from(step.length);
        let next = u32::try_from(end % u64::from(log_length)).expect("less than the log's length");
        let number = entries.get(&next)?.sequence_number;
        (step.sequence_number.checked_add(1) == Some(number)).then_some(next)
    };
    // Newest first, so that a follower's head is known before it is asked for.
    let mut newest_first: Vec<(u32, Step)> = entries.iter().map(|(at, s)| (*at, *s)).collect();
    newest_first.sort_by_key(|(at, step)| (Reverse(step.sequence_number), *at));
    let mut heads = HashMap::new();
    for &(at, step) in &newest_first {
        let head = follower(at, step).map_or(at, |next| heads[&next]);
        heads.insert(at, head);
    }
    // Steps 4 and 5: complete when the head's tail is in it; newest wins.
    let complete = newest_first
        .iter()
        .filter(|(at, step)| heads[at] == *at && heads.get(&step.tail) == Some(at));
    for (_, head) in complete {
        let mut sequence = Vec::new();
        let mut taken = 0;
        let mut next = Some(head.tail);
        while let Some(at) = next {
            let step = entries[&at];
            taken += u64::from(step.length);
            sequence.push(at);
            next = follower(at, step);
        }
        // More than the ring holds was never there at one time.
        if taken <= u64::from(log_length) {
            return sequence;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const K4: u32 = 4096;

    /// Entries as (place, length, tail, number) in units of sectors.
    fn find(sectors: u32, entries: &[(u32, u32, u32, u64)]) -> Vec<u32> {
        let map: BTreeMap<u32, Step> = entries
            .iter()
            .map(|&(at, length, tail, sequence_number)| {
                (
                    at * K4,
                    Step {
                        length: length * K4,
                        tail: tail * K4,
                        sequence_number,
                    },
                )
            })
            .collect();
        let found = active_sequence(sectors * K4, &map);
        found.iter().map(|at| at / K4).collect()
    }

    #[test]
    fn the_newest_complete_sequence_wins() {
        assert_eq!(
            find(16, &[(0, 2, 0, 5), (4, 2, 4, 9), (6, 1, 4, 10)]),
            [4, 6]
        );
        assert_eq!(find(16, &[]), [0u32; 0]);
    }

    #[test]
    fn replay_starts_at_the_heads_tail_not_at_the_oldest_entry_that_still_fits() {
        let entries = [(0, 1, 0, 1), (1, 1, 0, 2), (2, 1, 2, 3), (3, 1, 2, 4)];
        assert_eq!(find(16, &entries), [2, 3]);
    }

    #[test]
    fn a_sequence_wraps_at_the_end_of_the_ring_between_and_inside_entries() {
        assert_eq!(find(8, &[(6, 2, 6, 1), (0, 2, 6, 2)]), [6, 0]);
        assert_eq!(
            find(8, &[(5, 2, 5, 1), (7, 3, 5, 2), (2, 1, 5, 3)]),
            [5, 7, 2]
        );
    }

    #[test]
    fn a_gap_in_the_numbers_ends_a_sequence() {
        assert_eq!(find(8, &[(0, 1, 0, 1), (1, 1, 1, 3)]), [1]);
        assert_eq!(
            find(8, &[(0, 1, 0, 1), (1, 1, 0, 3)]),
            [0],
            "its tail is not in it"
        );
    }

    /// The specification's steps from every sector, taken literally: the number of the head, 0 when
    /// there is no sequence.
    fn literally(sectors: u32, map: &BTreeMap<u32, Step>) -> u64 {
        let ring = sectors * K4;
        let mut best = 0;
        for start in (0..sectors).map(|sector| sector * K4) {
            let (mut at, mut places) = (start, Vec::<u32>::new());
            while let Some(entry) = map.get(&at) {
                let last = places.last().map(|at| map[at].sequence_number);
                if last.is_some_and(|last| last + 1 != entry.sequence_number) {
                    break;
                }
                places.push(at);
                at = (at + entry.length) % ring;
            }
            let Some(head) = places.last().map(|at| map[at]) else {
                continue;
            };
            let Some(tail) = places.iter().position(|at| *at == head.tail) else {
                continue;
            };
            let taken: u32 = places[tail..].iter().map(|at| map[at].length).sum();
            if taken <= ring {
                best = best.max(head.sequence_number);
            }
        }
        best
    }

    proptest::proptest! {
        #[test]
        fn equals_the_steps_of_the_specification_on_any_ring(
            entries in proptest::collection::vec((0u32..12, 1u32..5, 0u32..12, 1u64..7), 0..12),
        ) {
            let map: BTreeMap<u32, Step> = entries
                .iter()
                .map(|&(at, length, tail, sequence_number)| {
                    let (length, tail) = (length * K4, tail * K4);
                    (at * K4, Step { length, tail, sequence_number })
                })
                .collect();
            let found = active_sequence(12 * K4, &map);
            let head = found.last().map_or(0, |at| map[at].sequence_number);
            assert_eq!(head, literally(12, &map));
            if let Some(last) = found.last() {
                assert_eq!(found[0], map[last].tail);
            }
            for pair in found.windows(2) {
                let (a, b) = (map[&pair[0]], map[&pair[1]]);
                assert_eq!(pair[1], (pair[0] + a.length) % (12 * K4));
                assert_eq!(b.sequence_number, a.sequence_number + 1);
            }
        }
    }

    #[test]
    fn entries_that_chase_their_own_tail_end() {
        // One entry as long as the log leads back to itself.
        assert_eq!(find(4, &[(0, 4, 0, u64::MAX)]), [0]);
        assert_eq!(find(4, &[(1, 2, 1, 1), (3, 2, 1, 2)]), [1, 3]);
    }
}
