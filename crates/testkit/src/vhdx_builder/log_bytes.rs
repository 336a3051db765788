//! The bytes of a log entry, and the ring they are written to ([MS-VHDX] §2.3.1).
//!
//! ```text
//! ┌────────┬───────────┬───────────────────┬─────────┬─────────┐
//! │ header │ 126 desc. │ 128 descriptors … │ data 0  │ data 1 …│   all in 4 KiB sectors
//! └────────┴───────────┴───────────────────┴─────────┴─────────┘
//!  64 bytes  32 bytes each                   one for each data descriptor, in order
//! ```

use std::ops::Range;

use uuid::Uuid;

use super::bytes::{put, seal, to_index, to_u32};
use super::image::SparseImage;
use super::log::{DESCRIPTOR_LEN, Descriptor, HEADER_LEN, LOG_SECTOR, LogDamage, LogEntry};

/// What an entry takes from the image where it says nothing itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogContext {
    pub(super) guid: Uuid,
    pub(super) flushed_file_offset: u64,
    pub(super) last_file_offset: u64,
}

impl LogEntry {
    /// The entry as it is written to the ring.
    pub(super) fn encode(&self, context: &LogContext) -> Vec<u8> {
        let mut out = vec![0; to_index(u64::from(self.len_bytes()))];
        self.put_header(&mut out, context);
        for (i, descriptor) in self.descriptors.iter().enumerate() {
            let slot = descriptor_range(i);
            put_descriptor(&mut out[slot], descriptor, self.sequence);
        }
        let first_data = self.descriptor_sectors() * LOG_SECTOR;
        for (sector, bytes) in out[first_data..]
            .chunks_exact_mut(LOG_SECTOR)
            .zip(self.data_sectors())
        {
            put_data_sector(sector, bytes, self.sequence);
        }
        self.apply_damage(&mut out, first_data);
        out
    }

    fn put_header(&self, out: &mut [u8], context: &LogContext) {
        let flushed = self
            .flushed_file_offset
            .unwrap_or(context.flushed_file_offset);
        let last = self.last_file_offset.unwrap_or(context.last_file_offset);
        put(out, 0, b"loge");
        put(out, 8, &self.len_bytes().to_le_bytes());
        put(out, 12, &self.tail.to_le_bytes());
        put(out, 16, &self.sequence.to_le_bytes());
        put(
            out,
            24,
            &to_u32(self.descriptors.len() as u64).to_le_bytes(),
        );
        put(out, 32, &self.guid.unwrap_or(context.guid).to_bytes_le());
        put(out, 48, &flushed.to_le_bytes());
        put(out, 56, &last.to_le_bytes());
    }

    fn apply_damage(&self, out: &mut Vec<u8>, first_data: usize) {
        let descriptor = |i: usize| descriptor_range(i).start;
        let data_sector = |i: usize| first_data + i * LOG_SECTOR;
        for damage in &self.damage {
            match *damage {
                LogDamage::Checksum | LogDamage::Truncated(_) => {}
                LogDamage::Signature => out[0] ^= 1,
                LogDamage::EntryLength(length) => put(out, 8, &length.to_le_bytes()),
                LogDamage::DescriptorCount(count) => put(out, 24, &count.to_le_bytes()),
                LogDamage::DescriptorSignature(i) => out[descriptor(i)] ^= 1,
                LogDamage::DescriptorSequence(i) => {
                    let wrong = self.sequence.wrapping_add(1);
                    put(out, descriptor(i) + 24, &wrong.to_le_bytes());
                }
                LogDamage::DataSignature(i) => out[data_sector(i)] ^= 1,
                LogDamage::DataSequenceHigh(i) => {
                    let wrong = split(self.sequence).0.wrapping_add(1);
                    put(out, data_sector(i) + 4, &wrong.to_le_bytes());
                }
                LogDamage::DataSequenceLow(i) => {
                    let wrong = split(self.sequence).1.wrapping_add(1);
                    put(out, data_sector(i) + LOG_SECTOR - 4, &wrong.to_le_bytes());
                }
            }
        }
        seal(out);
        for damage in &self.damage {
            match *damage {
                LogDamage::Checksum => out[4] ^= 1,
                LogDamage::Truncated(len) => out.truncate(len),
                _ => {}
            }
        }
    }
}

/// Where descriptor `i` is in an entry: a whole number of descriptors fills what the header
/// leaves of the first sector, so they follow each other without a gap.
fn descriptor_range(i: usize) -> Range<usize> {
    let start = HEADER_LEN + i * DESCRIPTOR_LEN;
    start..start + DESCRIPTOR_LEN
}

/// High and low half of a sequence number, as a data sector stores them (§2.3.1.4).
fn split(sequence: u64) -> (u32, u32) {
    (
        to_u32(sequence >> 32),
        to_u32(sequence & u64::from(u32::MAX)),
    )
}

/// §2.3.1.2 and §2.3.1.3.
fn put_descriptor(out: &mut [u8], descriptor: &Descriptor, sequence: u64) {
    match descriptor {
        Descriptor::Zero {
            file_offset,
            length,
        } => {
            put(out, 0, b"zero");
            put(out, 8, &length.to_le_bytes());
            put(out, 16, &file_offset.to_le_bytes());
        }
        Descriptor::Data { file_offset, bytes } => {
            put(out, 0, b"desc");
            put(out, 4, &bytes[LOG_SECTOR - 4..]);
            put(out, 8, &bytes[..8]);
            put(out, 16, &file_offset.to_le_bytes());
        }
    }
    put(out, 24, &sequence.to_le_bytes());
}

/// §2.3.1.4.
fn put_data_sector(out: &mut [u8], bytes: &[u8], sequence: u64) {
    let (high, low) = split(sequence);
    put(out, 0, bytes);
    put(out, 0, b"data");
    put(out, 4, &high.to_le_bytes());
    put(out, LOG_SECTOR - 4, &low.to_le_bytes());
}

/// Writes `bytes` into the ring, from its start again where it ends.
pub(super) fn write_ring(image: &mut SparseImage, log: (u64, u32), ring_offset: u32, bytes: &[u8]) {
    let (log_offset, log_length) = (log.0, u64::from(log.1));
    let mut rest = bytes;
    let mut at = u64::from(ring_offset);
    while !rest.is_empty() && log_length > 0 {
        at %= log_length;
        let room = to_index(log_length - at).min(rest.len());
        let (now, later) = rest.split_at(room);
        image.write(log_offset + at, now);
        at += room as u64;
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: LogContext = LogContext {
        guid: Uuid::from_u128(1),
        flushed_file_offset: 3 << 20,
        last_file_offset: 4 << 20,
    };

    #[test]
    fn a_data_sector_gives_its_edges_to_the_descriptor() {
        let update: Vec<u8> = (0..4096u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
        let bytes = LogEntry::new(0x0102_0304_0506_0708)
            .data(0x30_0000, update.clone())
            .encode(&CONTEXT);
        assert_eq!(bytes.len(), 2 * LOG_SECTOR);
        assert_eq!(bytes[64..68], *b"desc");
        assert_eq!(bytes[68..72], update[4092..]);
        assert_eq!(bytes[72..80], update[..8]);
        assert_eq!(bytes[4096..4104], *b"data\x04\x03\x02\x01");
        assert_eq!(bytes[4104..8188], update[8..4092]);
        assert_eq!(bytes[8188..], [8, 7, 6, 5]);
    }

    #[test]
    fn an_entry_wraps_at_the_end_of_the_ring() {
        let mut image = SparseImage::default();
        let bytes: Vec<u8> = [vec![1; 4096], vec![2; 4096]].concat();
        write_ring(&mut image, (1 << 20, 1 << 20), (1 << 20) - 4096, &bytes);
        assert_eq!(image.read((2 << 20) - 1, 2), [1, 0]);
        assert_eq!(image.read(1 << 20, 1), [2]);
    }
}
