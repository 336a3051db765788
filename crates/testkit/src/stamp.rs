//! Sectors that tell where they come from.
//!
//! ```text
//!   word   0       1        2          3…63
//!        MAGIC   sector   operation   a pattern of both, another in every word
//! ```
//!
//! A byte found in the wrong place is told apart from the right one wherever it lies in its sector.

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// Bytes in a sector, for offsets.
pub const SECTOR_BYTES: u64 = SECTOR as u64;

const MAGIC: u64 = 0x5053_4D41_5453_5744;

/// The content of guest sector `sector` as operation `op` writes it.
#[must_use]
pub fn stamp(sector: u64, op: u32) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let key = (sector.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(op) << 40) | 1;
    for (word, chunk) in (0u64..).zip(bytes.chunks_exact_mut(8)) {
        let value = match word {
            0 => MAGIC,
            1 => sector,
            2 => u64::from(op),
            // Never zero in any byte, so that a lost byte is never taken for one that is there.
            _ => key.wrapping_mul(2 * word + 1) | 0x0101_0101_0101_0101,
        };
        chunk.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The bytes that operation `op` writes at byte `offset`: its share of each sector's stamp.
#[must_use]
pub fn stamped(offset: u64, len: usize, op: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    let mut at = offset;
    while bytes.len() < len {
        let from = usize::try_from(at % SECTOR_BYTES).expect("inside a sector");
        let piece = (SECTOR - from).min(len - bytes.len());
        bytes.extend_from_slice(&stamp(at / SECTOR_BYTES, op)[from..from + piece]);
        at += piece as u64;
    }
    bytes
}

/// What a sector's bytes are, in words: zeros, a stamp with its origin, or foreign bytes.
#[must_use]
pub fn describe(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return "zeros".into();
    }
    let word = |n: usize| {
        bytes
            .get(n * 8..n * 8 + 8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes")))
    };
    if let (Some(MAGIC), Some(sector), Some(op)) = (word(0), word(1), word(2)) {
        let op = u32::try_from(op).unwrap_or(u32::MAX);
        let right = stamp(sector, op);
        let same = bytes.iter().zip(&right).take_while(|(a, b)| a == b).count();
        let whole = if same == bytes.len() {
            String::new()
        } else {
            format!(" for its first {same} bytes only")
        };
        return format!("sector {sector} by operation {op}{whole}");
    }
    let head = &bytes[..bytes.len().min(16)];
    format!("bytes {head:02x?}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stamp_differs_from_every_other_in_most_words() {
        let a = stamp(3, 5);
        for other in [stamp(4, 5), stamp(3, 6), stamp(5, 3)] {
            let words = a.chunks(8).zip(other.chunks(8));
            assert!(words.filter(|(a, b)| a == b).count() < 3);
        }
        assert_eq!(describe(&a), "sector 3 by operation 5");
        assert_eq!(describe(&[0; 512]), "zeros");
        assert_eq!(stamped(3 * 512 - 7, 512, 5)[7..], a[..505]);
    }
}
