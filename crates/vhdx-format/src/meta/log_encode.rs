//! Log entries to be written ([MS-VHDX] §2.3.1).

use std::sync::Arc;

use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::ondisk::crc::checksum;
use crate::ondisk::log_entry::{
    CHECKSUM_FIELD, DATA_DESCRIPTOR_SIGNATURE, DATA_SECTOR_SIGNATURE, RawDescriptor,
    RawEntryHeader, SECTOR_BYTES, SIGNATURE, ZERO_DESCRIPTOR_SIGNATURE, descriptor_sectors,
};

/// What the header of a new entry says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryFields {
    pub(crate) tail: u32,
    pub(crate) sequence_number: u64,
    pub(crate) log_guid: Uuid,
    pub(crate) flushed_file_offset: u64,
    pub(crate) last_file_offset: u64,
}

/// A page of the file, by number, as an entry is to make it.
pub(crate) type PageUpdate = (u64, Arc<[u8; SECTOR_BYTES as usize]>);

/// Bytes of the entry that [`encode`] makes of `pages`.
pub(crate) fn encoded_len(pages: &[PageUpdate]) -> u32 {
    let (mut descriptors, mut data) = (0, 0);
    for_each_update(pages, |update| {
        descriptors += 1;
        data += u32::from(matches!(update, Update::Data(_)));
    });
    let sectors = descriptor_sectors(descriptors) + u64::from(data);
    u32::try_from(sectors * u64::from(SECTOR_BYTES)).expect("no more than the log")
}

/// The bytes of an entry that makes the file's pages, in ascending order, what `pages` says.
pub(crate) fn encode(fields: &EntryFields, pages: &[PageUpdate]) -> Vec<u8> {
    let sector = SECTOR_BYTES as usize;
    let length = encoded_len(pages);
    let mut bytes = vec![0; length as usize];
    let sequence_number = fields.sequence_number;
    let (mut at, mut count) = (size_of::<RawEntryHeader>(), 0u32);
    let mut data = Vec::new();
    for_each_update(pages, |update| {
        let (signature, trailing, leading, page) = match update {
            Update::Data((number, page)) => {
                data.push(&**page);
                let (mut leading, mut trailing) = ([0; 8], [0; 4]);
                leading.copy_from_slice(&page[..8]);
                trailing.copy_from_slice(&page[sector - 4..]);
                (DATA_DESCRIPTOR_SIGNATURE, trailing, leading, *number)
            }
            Update::Zero { first, count } => {
                let length = (count * u64::from(SECTOR_BYTES)).to_le_bytes();
                (ZERO_DESCRIPTOR_SIGNATURE, [0; 4], length, first)
            }
        };
        let descriptor = RawDescriptor {
            signature,
            trailing,
            leading,
            file_offset: (page * u64::from(SECTOR_BYTES)).into(),
            sequence_number: sequence_number.into(),
        };
        bytes[at..at + size_of::<RawDescriptor>()].copy_from_slice(descriptor.as_bytes());
        at += size_of::<RawDescriptor>();
        count += 1;
    });
    let [a, b, c, d, e, f, g, h] = sequence_number.to_be_bytes();
    let (high, low) = (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    );
    let mut at = bytes.len() - data.len() * sector;
    for page in data {
        bytes[at..at + 4].copy_from_slice(&DATA_SECTOR_SIGNATURE);
        bytes[at + 4..at + 8].copy_from_slice(&high.to_le_bytes());
        bytes[at + 8..at + sector - 4].copy_from_slice(&page[8..sector - 4]);
        bytes[at + sector - 4..at + sector].copy_from_slice(&low.to_le_bytes());
        at += sector;
    }
    let header = RawEntryHeader {
        signature: SIGNATURE,
        checksum: 0.into(),
        entry_length: length.into(),
        tail: fields.tail.into(),
        sequence_number: sequence_number.into(),
        descriptor_count: count.into(),
        reserved: 0.into(),
        log_guid: fields.log_guid.into(),
        flushed_file_offset: fields.flushed_file_offset.into(),
        last_file_offset: fields.last_file_offset.into(),
    };
    bytes[..size_of::<RawEntryHeader>()].copy_from_slice(header.as_bytes());
    let sum = checksum(&bytes, CHECKSUM_FIELD);
    bytes[CHECKSUM_FIELD..CHECKSUM_FIELD + 4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// One descriptor's worth of pages.
enum Update<'a> {
    Data(&'a PageUpdate),
    /// Pages of zeros that follow one another need no data.
    Zero {
        first: u64,
        count: u64,
    },
}

fn for_each_update<'a>(pages: &'a [PageUpdate], mut visit: impl FnMut(Update<'a>)) {
    let mut rest = pages;
    while let [page @ (first, bytes), others @ ..] = rest {
        if bytes.iter().any(|byte| *byte != 0) {
            visit(Update::Data(page));
            rest = others;
            continue;
        }
        let is_next = |(n, (number, bytes)): (u64, &PageUpdate)| {
            *number == first + n && bytes.iter().all(|byte| *byte == 0)
        };
        let count = (0..).zip(rest).take_while(|pair| is_next(*pair)).count();
        visit(Update::Zero {
            first: *first,
            count: count as u64,
        });
        rest = &rest[count..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::log::{LogDescriptor, LogEntry};

    fn fields() -> EntryFields {
        EntryFields {
            tail: 8192,
            sequence_number: 0x1_0000_0007,
            log_guid: Uuid::from_u128(5),
            flushed_file_offset: 4 << 20,
            last_file_offset: 6 << 20,
        }
    }

    fn page(number: u64, byte: u8) -> PageUpdate {
        let mut bytes = [byte; 4096];
        if byte != 0 {
            // Told apart at both ends, which travel in the descriptor.
            bytes[0] = 1;
            bytes[4095] = 2;
        }
        (number, Arc::new(bytes))
    }

    #[test]
    fn what_is_written_is_read_as_the_same_pages() {
        let pages = [
            page(512, 7),
            page(600, 0),
            page(601, 0),
            page(602, 9),
            page(603, 0),
            page(1000, 0),
        ];
        let bytes = encode(&fields(), &pages);
        assert_eq!(bytes.len(), 3 * 4096, "one of descriptors, two of data");
        assert_eq!(encoded_len(&pages), 3 * 4096);
        let entry = LogEntry::decode(&bytes, 0).unwrap();
        assert_eq!(entry.header.sequence_number, 0x1_0000_0007);
        assert_eq!(
            (entry.header.tail, entry.header.log_guid),
            (8192, Uuid::from_u128(5))
        );
        assert_eq!(entry.header.flushed_file_offset, 4 << 20);
        assert_eq!(entry.header.last_file_offset, 6 << 20);
        let mut seen = Vec::new();
        for descriptor in &entry.descriptors {
            match *descriptor {
                LogDescriptor::Data {
                    file_offset,
                    leading,
                    trailing,
                    data_sector,
                } => {
                    let page = entry.page(&bytes, (leading, trailing, data_sector));
                    seen.push((file_offset / 4096, Arc::new(page)));
                }
                LogDescriptor::Zero {
                    file_offset,
                    length,
                } => {
                    for at in (file_offset..file_offset + length).step_by(4096) {
                        seen.push(page(at / 4096, 0));
                    }
                }
            }
        }
        assert_eq!(seen, pages);
        assert_eq!(
            entry.descriptors.len(),
            5,
            "two zero pages in one descriptor"
        );
    }

    #[test]
    fn an_entry_may_change_nothing_or_fill_its_descriptor_sectors() {
        assert_eq!(encode(&fields(), &[]).len(), 4096);
        for (count, sectors) in [(126, 127), (127, 129)] {
            let pages: Vec<PageUpdate> = (0..count).map(|n| page(n * 2, 3)).collect();
            let bytes = encode(&fields(), &pages);
            assert_eq!(bytes.len(), sectors * 4096);
            assert!(LogEntry::decode(&bytes, 0).is_ok());
        }
    }
}
