//! Reading the log: every entry in the ring, and the sequence to be replayed.

use std::collections::{BTreeMap, HashMap};

use blockdev_core::{ByteRange, Limits, Result, Storage, StorageExt};
use uuid::Uuid;

use crate::VhdxError;
use crate::meta::headers::HeaderCopy;
use crate::meta::log::{LogDescriptor, LogEntry, LogEntryHeader, Step, active_sequence};
use crate::ondisk::log_entry::{SECTOR_BYTES, SIGNATURE};

/// Bytes looked through at a time for the signatures of entries.
const SCAN_BYTES: u32 = 1 << 20;

/// Entries that overlap each other, as only a forger lays them, make the same bytes be checksummed
/// again and again: up to so many times the log. An honest log is read once, and a remnant or two.
const CHECKSUM_ROUNDS: u64 = 4;

/// A ring of sectors in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogRing<'a> {
    storage: &'a dyn Storage,
    offset: u64,
    length: u32,
}

impl<'a> LogRing<'a> {
    pub(crate) fn new(storage: &'a dyn Storage, header: &HeaderCopy) -> Self {
        Self {
            storage,
            offset: header.log_offset,
            length: header.log_length,
        }
    }

    /// Fills `buf` from byte `at` of the ring, going on at its start after its end.
    fn read(&self, buf: &mut [u8], at: u32) -> Result<()> {
        let until_end = (self.length - at) as usize;
        let (first, rest) = buf.split_at_mut(until_end.min(buf.len()));
        self.storage
            .read_zero_padded(first, self.offset + u64::from(at))?;
        if !rest.is_empty() {
            self.storage.read_zero_padded(rest, self.offset)?;
        }
        Ok(())
    }

    /// All bytes of the entry at `at`, whose header is `header`.
    pub(crate) fn entry_bytes(&self, at: u32, header: &LogEntryHeader) -> Result<Vec<u8>> {
        let mut bytes = vec![0; header.entry_length as usize];
        self.read(&mut bytes, at)?;
        Ok(bytes)
    }

    /// The headers of everything in the ring that begins like an entry, in order of place. Host
    /// holes are not read.
    fn candidates(&self) -> Result<Vec<(u32, LogEntryHeader)>> {
        let mut found = Vec::new();
        let mut buffer = vec![0; self.length.min(SCAN_BYTES) as usize];
        let file_len = self.storage.len()?;
        let mut at = 0;
        while at < self.length && self.offset + u64::from(at) < file_len {
            let host = self.storage.next_extent(self.offset + u64::from(at))?;
            if !host.allocated {
                let hole = u32::try_from(host.len).unwrap_or(u32::MAX);
                let end = at.saturating_add(hole).min(self.length);
                // An entry may begin in the sector in which the hole ends.
                let next = end - end % SECTOR_BYTES;
                if next > at {
                    at = next;
                    continue;
                }
            }
            let piece = &mut buffer[..(self.length - at).min(SCAN_BYTES) as usize];
            self.storage
                .read_zero_padded(piece, self.offset + u64::from(at))?;
            for sector in piece.chunks(SECTOR_BYTES as usize) {
                if sector.starts_with(&SIGNATURE)
                    && let Some(header) = LogEntryHeader::decode(sector)
                {
                    found.push((at, header));
                }
                at += SECTOR_BYTES;
            }
        }
        Ok(found)
    }
}

/// Something in the log that begins like an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundEntry {
    /// Where in the log it begins.
    pub log_offset: u32,
    /// Its header.
    pub header: LogEntryHeader,
    /// The entry when it is valid, or what is wrong with it. Remains of old entries are usual.
    pub entry: Result<LogEntry, &'static str>,
    /// True when it is part of the sequence that is to be replayed.
    pub active: bool,
}

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogContents {
    /// Everything that begins like an entry, in order of place.
    pub found: Vec<FoundEntry>,
    /// Indexes into `found`: the active sequence, tail first. Empty when the header names no log or
    /// none is valid.
    pub active: Vec<usize>,
}

/// Reads the log that `header` points at, and finds its active sequence (§2.3.3).
///
/// # Errors
/// [`LimitExceeded`](blockdev_core::ErrorKind::LimitExceeded) when the log is longer than
/// `limits` allow or costs more to validate than an honest one can,
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn log_contents(
    storage: &dyn Storage,
    header: &HeaderCopy,
    limits: &Limits,
) -> Result<LogContents> {
    let place = header.log_offset;
    let limit = |what, found, limit| VhdxError::Limit {
        structure: "log",
        offset: place,
        what,
        found,
        limit,
    };
    let length = u64::from(header.log_length);
    if length > limits.log_bytes {
        return Err(limit("LogLength", length, limits.log_bytes).into());
    }
    if header
        .log_range()
        .is_none_or(|log: ByteRange| log.is_empty())
    {
        return Ok(LogContents {
            found: Vec::new(),
            active: Vec::new(),
        });
    }
    let ring = LogRing::new(storage, header);
    let mut found = Vec::new();
    let (mut spent, budget) = (0, CHECKSUM_ROUNDS * length);
    for (at, entry_header) in ring.candidates()? {
        let entry = match flaw(&entry_header, header.log_guid, header.log_length) {
            Some(flaw) => Err(flaw),
            None => {
                spent += u64::from(entry_header.entry_length);
                if spent > budget {
                    return Err(limit("bytes of overlapping entries", spent, budget).into());
                }
                LogEntry::decode(&ring.entry_bytes(at, &entry_header)?, at)
            }
        };
        found.push(FoundEntry {
            log_offset: at,
            header: entry_header,
            entry,
            active: false,
        });
    }
    let active = find_active(&found, header);
    for index in &active {
        found[*index].active = true;
    }
    Ok(LogContents { found, active })
}

/// The 4 KiB that data descriptor number `descriptor` of `entry`, found in the log of `header`, asks to
/// write (§2.3.1.3, §2.3.1.4); `None` for a zero descriptor, for one that is not there, and for an
/// entry that is not valid.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn log_page(
    storage: &dyn Storage,
    header: &HeaderCopy,
    entry: &FoundEntry,
    descriptor: usize,
) -> Result<Option<Box<[u8; SECTOR_BYTES as usize]>>> {
    let Ok(decoded) = &entry.entry else {
        return Ok(None);
    };
    let Some(&LogDescriptor::Data {
        leading,
        trailing,
        data_sector,
        ..
    }) = decoded.descriptors.get(descriptor)
    else {
        return Ok(None);
    };
    let ring = LogRing::new(storage, header);
    let bytes = ring.entry_bytes(entry.log_offset, &entry.header)?;
    let page = decoded.page(&bytes, (leading, trailing, data_sector));
    Ok(Some(Box::new(page)))
}

/// What keeps an entry from belonging to the log at all.
fn flaw(entry: &LogEntryHeader, log_guid: Uuid, log_length: u32) -> Option<&'static str> {
    if entry.log_guid != log_guid {
        return Some("LogGuid is not that of the header");
    }
    entry.flaw(log_length)
}

fn find_active(found: &[FoundEntry], header: &HeaderCopy) -> Vec<usize> {
    if header.log_guid.is_nil() {
        return Vec::new();
    }
    let valid = || {
        found
            .iter()
            .enumerate()
            .filter(|(_, found)| found.entry.is_ok())
    };
    let steps: BTreeMap<u32, Step> = valid()
        .map(|(_, found)| {
            let h = &found.header;
            let sequence_number = h.sequence_number;
            let step = Step {
                length: h.entry_length,
                tail: h.tail,
                sequence_number,
            };
            (found.log_offset, step)
        })
        .collect();
    let index: HashMap<u32, usize> = valid().map(|(i, found)| (found.log_offset, i)).collect();
    active_sequence(header.log_length, &steps)
        .iter()
        .map(|at| index[at])
        .collect()
}
