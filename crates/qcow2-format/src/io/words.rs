//! Tables of 8-byte entries, read in pieces; holes of the host file are passed over.

use blockdev_core::{Result, Storage};

const PIECE: u64 = 256 << 10;
/// Bytes of the largest entry.
const UNIT: u64 = 16;

/// The entries of one table that may be other than 0.
pub(crate) struct Words {
    start: u64,
    at: u64,
    end: u64,
    bytes: Vec<u8>,
}

impl Words {
    /// The table of `len` bytes at `start`, as far as a file of `file_len` bytes goes.
    pub(crate) fn new(start: u64, len: u64, file_len: u64) -> Self {
        let end = start.saturating_add(len).min(file_len);
        let bytes = Vec::new();
        Self {
            start,
            at: start,
            end,
            bytes,
        }
    }

    /// Reads the next piece and gives the index of its first entry; `None` at the end.
    pub(crate) fn next(&mut self, storage: &dyn Storage) -> Result<Option<u64>> {
        // An entry that the file's end cuts is no entry.
        while self.at + 8 <= self.end {
            let run = storage.next_extent(self.at)?;
            let there =
                run.len
                    .min(self.end - self.at)
                    .min(if run.allocated { PIECE } else { u64::MAX });
            // Pieces end on 16 bytes, so that none cuts an extended entry in two; what lies across a
            // border of the host's is read.
            let cut = there < UNIT;
            let there = if cut {
                (self.end - self.at).min(UNIT) & !7
            } else {
                there & !(UNIT - 1)
            };
            let from = self.at;
            self.at += there;
            if run.allocated || cut {
                self.bytes
                    .resize(usize::try_from(there).expect("a piece"), 0);
                storage.read_at(&mut self.bytes, from)?;
                return Ok(Some((from - self.start) / 8));
            }
        }
        Ok(None)
    }

    /// The bytes of the piece.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The entries of the piece.
    pub(crate) fn entries(&self) -> impl Iterator<Item = u64> + '_ {
        let words = self.bytes.chunks_exact(8);
        words.map(|word| u64::from_be_bytes(word.try_into().expect("eight bytes")))
    }
}
