//! What is on a disk: a few pieces here and there, of every length and alignment.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use testkit::Rng;

/// What a piece holds.
#[derive(Debug, Clone, Copy)]
enum Fill {
    /// Zeros that are written, not left out.
    Zeros,
    /// One byte all along, which packs well.
    Byte(u8),
    /// What does not pack at all.
    Noise(u64),
    /// Words that repeat, as in text.
    Text(u64),
}

/// A run of the disk that something was written to.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    len: u64,
    fill: Fill,
}

/// A disk's content: later pieces lie over earlier ones, and elsewhere there is nothing.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    size: u64,
    pieces: Vec<Piece>,
}

impl Content {
    /// Some content for a disk of `size` bytes; no piece is longer than 1 MiB.
    pub(crate) fn random(rng: &mut Rng, size: u64) -> Self {
        let mut pieces = Vec::new();
        let count = if size == 0 { 0 } else { 2 + rng.below(16) };
        for _ in 0..count {
            let align = *rng.pick(&[1, 512, 4096, 65_536]);
            let mut offset = rng.below(size) / align * align;
            // As long as a byte, as a mebibyte, and everything between them.
            let (scale, stretch) = (rng.below(21), 1 + rng.below(1 << 20) % 7);
            let len = ((1 << scale) * stretch / 4).clamp(1, 1 << 20).min(size);
            if rng.one_in(6) {
                // Up to the disk's very end.
                offset = size - len;
            }
            let fill = match rng.below(8) {
                0 | 1 => Fill::Zeros,
                2..=4 => Fill::Byte(u8::try_from(1 + rng.below(255)).unwrap()),
                5 | 6 => Fill::Text(rng.next_u64()),
                _ => Fill::Noise(rng.next_u64()),
            };
            let len = len.min(size - offset);
            pieces.push(Piece { offset, len, fill });
        }
        Self { size, pieces }
    }

    /// Writes the disk to the raw file `path`, with holes where nothing is.
    pub(crate) fn save(&self, path: &Path) -> Result<(), String> {
        File::create(path).map_err(|error| error.to_string())?;
        self.save_over(path)
    }

    /// Writes the pieces over what the raw file `path` holds.
    pub(crate) fn save_over(&self, path: &Path) -> Result<(), String> {
        let save = || {
            let mut file = File::options().write(true).open(path)?;
            file.set_len(self.size)?;
            for piece in &self.pieces {
                file.seek(SeekFrom::Start(piece.offset))?;
                file.write_all(&piece.bytes())?;
            }
            Ok(())
        };
        save().map_err(|error: std::io::Error| error.to_string())
    }
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap()];
        match self.fill {
            Fill::Zeros => {}
            Fill::Byte(byte) => bytes.fill(byte),
            Fill::Noise(seed) => Rng::new(seed).fill(&mut bytes),
            Fill::Text(seed) => {
                let mut rng = Rng::new(seed);
                let mut vocabulary = [0; 64];
                rng.fill(&mut vocabulary);
                for word in bytes.chunks_mut(8) {
                    let at = rng.index(56);
                    word.copy_from_slice(&vocabulary[at..at + word.len()]);
                }
            }
        }
        bytes
    }
}
