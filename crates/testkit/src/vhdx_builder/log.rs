//! Log entries ([MS-VHDX] §2.3.1, §2.3.2).

use uuid::Uuid;

use super::bytes::to_u32;

/// Size of a log sector, and of the update a data descriptor makes.
pub const LOG_SECTOR: usize = 4 << 10;
pub(super) const HEADER_LEN: usize = 64;
pub(super) const DESCRIPTOR_LEN: usize = 32;

/// One update that a log entry makes to the file.
#[derive(Clone, Debug)]
pub enum Descriptor {
    /// Writes 4 KiB.
    Data {
        /// FileOffset in bytes.
        file_offset: u64,
        /// 4,096 bytes.
        bytes: Vec<u8>,
    },
    /// Writes zeros.
    Zero {
        /// FileOffset in bytes.
        file_offset: u64,
        /// ZeroLength in bytes.
        length: u64,
    },
}

/// Deliberate damage to a log entry. All but `Checksum` and `Truncated` leave a right checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDamage {
    /// One bit of the checksum is wrong.
    Checksum,
    /// One bit of the entry's signature is wrong.
    Signature,
    /// EntryLength says this, whatever the entry's length is.
    EntryLength(u32),
    /// DescriptorCount says this, whatever their number is.
    DescriptorCount(u32),
    /// One bit of the signature of this descriptor is wrong.
    DescriptorSignature(usize),
    /// This descriptor carries the sequence number plus one.
    DescriptorSequence(usize),
    /// One bit of the signature of this data sector is wrong.
    DataSignature(usize),
    /// SequenceHigh of this data sector is one too high.
    DataSequenceHigh(usize),
    /// SequenceLow of this data sector is one too high.
    DataSequenceLow(usize),
    /// Only this many bytes of the entry reached the log.
    Truncated(usize),
}

/// A log entry and its place in the ring.
///
/// Numbers are stored as they are, so that an entry can break any rule.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Where the entry starts, in bytes from the start of the log; it wraps at the ring's end.
    pub ring_offset: u32,
    /// SequenceNumber.
    pub sequence: u64,
    /// Tail in bytes from the start of the log.
    pub tail: u32,
    /// LogGuid, or `None` for the one that the headers name.
    pub guid: Option<Uuid>,
    /// FlushedFileOffset, or `None` for the size of the file in whole MiB.
    pub flushed_file_offset: Option<u64>,
    /// LastFileOffset, or `None` for the end of the last structure.
    pub last_file_offset: Option<u64>,
    /// The updates.
    pub descriptors: Vec<Descriptor>,
    /// What is wrong with the entry.
    pub damage: Vec<LogDamage>,
}

impl LogEntry {
    /// An intact entry without descriptors at the start of the ring, its own tail.
    pub fn new(sequence: u64) -> Self {
        Self {
            ring_offset: 0,
            sequence,
            tail: 0,
            guid: None,
            flushed_file_offset: None,
            last_file_offset: None,
            descriptors: Vec::new(),
            damage: Vec::new(),
        }
    }

    /// Moves the entry, and its tail, to `ring_offset`.
    pub fn at(self, ring_offset: u32) -> Self {
        Self {
            ring_offset,
            tail: ring_offset,
            ..self
        }
    }

    /// Names another entry as the tail.
    pub fn tail(self, tail: u32) -> Self {
        Self { tail, ..self }
    }

    /// Uses another LogGuid than the headers.
    pub fn guid(self, guid: Uuid) -> Self {
        Self {
            guid: Some(guid),
            ..self
        }
    }

    /// Sets FlushedFileOffset and LastFileOffset.
    pub fn file_offsets(self, flushed: u64, last: u64) -> Self {
        Self {
            flushed_file_offset: Some(flushed),
            last_file_offset: Some(last),
            ..self
        }
    }

    /// Appends a data descriptor; `bytes` shorter than 4 KiB are followed by zeros.
    pub fn data(mut self, file_offset: u64, mut bytes: Vec<u8>) -> Self {
        bytes.resize(LOG_SECTOR, 0);
        self.descriptors
            .push(Descriptor::Data { file_offset, bytes });
        self
    }

    /// Appends a zero descriptor.
    pub fn zero(mut self, file_offset: u64, length: u64) -> Self {
        self.descriptors.push(Descriptor::Zero {
            file_offset,
            length,
        });
        self
    }

    /// Adds damage.
    pub fn damage(mut self, damage: LogDamage) -> Self {
        self.damage.push(damage);
        self
    }

    /// Bytes the entry takes up in the ring.
    pub fn len_bytes(&self) -> u32 {
        to_u32(((self.descriptor_sectors() + self.data_sectors().count()) * LOG_SECTOR) as u64)
    }

    pub(super) fn descriptor_sectors(&self) -> usize {
        (HEADER_LEN + self.descriptors.len() * DESCRIPTOR_LEN).div_ceil(LOG_SECTOR)
    }

    pub(super) fn data_sectors(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.descriptors
            .iter()
            .filter_map(|descriptor| match descriptor {
                Descriptor::Data { bytes, .. } => Some(bytes),
                Descriptor::Zero { .. } => None,
            })
    }
}

/// A log sequence: entries one after the other from `start` on, with consecutive sequence
/// numbers, the first being the tail of all ([MS-VHDX] §2.3.2).
///
/// `log_length` in bytes is where the ring wraps.
pub fn log_sequence(
    start: u32,
    first_sequence: u64,
    log_length: u32,
    updates: impl IntoIterator<Item = Vec<Descriptor>>,
) -> Vec<LogEntry> {
    let mut next = start;
    let mut entries = Vec::new();
    for (sequence, descriptors) in (first_sequence..).zip(updates) {
        let entry = LogEntry {
            descriptors,
            ..LogEntry::new(sequence).at(next).tail(start)
        };
        next = to_u32((u64::from(next) + u64::from(entry.len_bytes())) % u64::from(log_length));
        entries.push(entry);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_spread_over_126_then_128() {
        let len = |count: usize| {
            (0..count)
                .fold(LogEntry::new(1), |entry, _| entry.zero(0, 4096))
                .len_bytes()
        };
        assert_eq!(
            [0, 1, 126, 127, 254, 255].map(len),
            [1, 1, 1, 2, 2, 3].map(|n| n * 4096)
        );
    }

    #[test]
    fn a_sequence_is_consecutive_and_shares_its_tail() {
        let update = || {
            vec![Descriptor::Zero {
                file_offset: 0,
                length: 4096,
            }]
        };
        let entries = log_sequence((1 << 20) - 4096, 7, 1 << 20, [update(), update()]);
        let places: Vec<_> = entries
            .iter()
            .map(|e| (e.ring_offset, e.sequence, e.tail))
            .collect();
        assert_eq!(
            places,
            [
                ((1 << 20) - 4096, 7, (1 << 20) - 4096),
                (0, 8, (1 << 20) - 4096)
            ]
        );
    }
}
