//! A disk as disks are: text, what does not pack, zeros, and much that was never written.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::sh::Outcome;

const KIB: u64 = 1024;
/// Words of the language that the text is in.
const WORDS: usize = 4096;

/// Writes a raw disk of `size` bytes to `path`: about three fifths of it are stored, in runs of
/// 64 KiB to 4 MiB, the same for the same size.
pub(crate) fn save(path: &Path, size: u64) -> Outcome {
    let save = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.set_len(size)?;
        let mut source = Source::new();
        let mut at = 0;
        while at < size {
            let run = (64 * KIB * (1 + source.below(64))).min(size - at);
            file.seek(SeekFrom::Start(at))?;
            match source.below(20) {
                0..8 => {}
                8 => file.write_all(&vec![0; usize_of(run)])?,
                9..16 => file.write_all(&source.text(usize_of(run)))?,
                _ => file.write_all(&source.noise(usize_of(run)))?,
            }
            at += run;
        }
        file.sync_all()
    };
    save().map_err(|error| format!("{}: {error}", path.display()))
}

fn usize_of(run: u64) -> usize {
    usize::try_from(run).expect("at most 4 MiB")
}

/// Xorshift64*, and the words it made up at first.
struct Source {
    state: u64,
    words: Vec<Vec<u8>>,
}

impl Source {
    fn new() -> Self {
        let mut source = Self {
            state: 0x9E37_79B9_7F4A_7C15,
            words: Vec::new(),
        };
        for _ in 0..WORDS {
            let letters = 2 + usize_of(source.below(9));
            let noise = source.noise(letters).into_iter();
            let word = noise.map(|byte| b'a' + byte % 26).chain([b' ']);
            source.words.push(word.collect());
        }
        source
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn text(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 16);
        while bytes.len() < len {
            // Few words are frequent, most are rare.
            let word = self.below(WORDS as u64) * self.below(WORDS as u64) / WORDS as u64;
            bytes.extend_from_slice(&self.words[usize_of(word)]);
        }
        bytes.truncate(len);
        bytes
    }
}
