//! Header and tables as bytes.

use blockdev_core::{Error, Result, Storage};

/// Bytes in a block and in a table.
pub(crate) const BLOCK: u64 = 4096;

/// The first block that holds data.
pub(crate) const FIRST_BLOCK: u64 = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"TOYDISK1");

/// The first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Size of the disk in bytes, whole blocks.
    pub(crate) size: u64,
    /// Block of the table in use: 1 to 3.
    pub(crate) active: u64,
    /// Block of the snapshot's table, 0 without one.
    pub(crate) snapshot: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; 512] {
        let mut bytes = [0; 512];
        let words = [MAGIC, self.size, self.active, self.snapshot];
        for (chunk, word) in bytes.chunks_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn read(storage: &dyn Storage) -> Result<Self> {
        let mut bytes = [0; 32];
        storage.read_at(&mut bytes, 0)?;
        let [magic, size, active, snapshot] = [0, 1, 2, 3].map(|n| word(&bytes, n));
        let sane = size % BLOCK == 0 && size / BLOCK <= 512;
        if magic != MAGIC || !sane || !(1..=3).contains(&active) || snapshot > 3 {
            return Err(Error::corrupt("header", 0, "not a toy disk"));
        }
        Ok(Self {
            size,
            active,
            snapshot,
        })
    }

    pub(crate) fn blocks(&self) -> usize {
        usize::try_from(self.size / BLOCK).expect("at most 512")
    }
}

fn word(bytes: &[u8], n: usize) -> u64 {
    u64::from_le_bytes(bytes[n * 8..n * 8 + 8].try_into().expect("eight bytes"))
}

/// The table in block `block`, all 512 entries.
pub(crate) fn read_table(storage: &dyn Storage, block: u64) -> Result<Vec<u64>> {
    if block == 0 {
        return Ok(vec![0; 512]);
    }
    let mut bytes = [0; 4096];
    storage.read_at(&mut bytes, block * BLOCK)?;
    Ok((0..512).map(|n| decode_entry(word(&bytes, n))).collect())
}

/// An entry holds its number twice, so that half of one shows.
pub(crate) fn encode_entry(entry: u64) -> [u8; 8] {
    (entry | entry << 32).to_le_bytes()
}

fn decode_entry(word: u64) -> u64 {
    let (low, high) = (word & 0xFFFF_FFFF, word >> 32);
    if low == high { low } else { u64::MAX }
}

pub(crate) fn encode_table(table: &[u64]) -> Vec<u8> {
    table.iter().flat_map(|e| encode_entry(*e)).collect()
}
