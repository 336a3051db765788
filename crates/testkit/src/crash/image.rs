//! A file's bytes in shared pages: a thousand states of one image cost little more than one.
//!
//! ```text
//!   image   ├─ MiB ─┼─ MiB ─┼─ none ─┼─ MiB ─┤        none: zeros
//!   MiB     256 pages of 4 KiB, each shared with other states, or none
//! ```
//!
//! A copy shares every MiB, a write copies the list of one and the page it touches, and each page and
//! each MiB keeps its fingerprint: what a state costs follows from what makes it differ, not from the
//! length of the file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const PAGE: usize = 4096;

/// Pages that are shared as one.
const PAGES: usize = 256;

const CHUNK: usize = PAGE * PAGES;

/// Files that the machinery lets grow: beyond is a runaway engine, not a test.
const LARGEST: u64 = 1 << 40;

#[derive(Debug)]
struct Page {
    bytes: [u8; PAGE],
    /// 0 until asked for.
    hash: AtomicU64,
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes,
            hash: AtomicU64::new(0),
        }
    }
}

impl Page {
    fn zero() -> Self {
        Self {
            bytes: [0; PAGE],
            hash: AtomicU64::new(0),
        }
    }

    /// The fingerprint of zeros.
    fn hash_of_zeros() -> u64 {
        static HASH: OnceLock<u64> = OnceLock::new();
        *HASH.get_or_init(|| Self::zero().hash())
    }

    fn hash(&self) -> u64 {
        let known = self.hash.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let mut lanes = [0x243F_6A88_85A3_08D3_u64, 0x1319_8A2E_0370_7344];
        for pair in self.bytes.chunks_exact(16) {
            for (lane, word) in lanes.iter_mut().zip(pair.chunks_exact(8)) {
                let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
                *lane = mix(*lane ^ word);
            }
        }
        let hash = mix(lanes[0]).wrapping_add(mix(lanes[1] ^ 0xA5)) | 1;
        self.hash.store(hash, Ordering::Relaxed);
        hash
    }
}

fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value ^ value.rotate_right(29)
}

/// What part number `n` adds to the fingerprint of the whole; nothing if it is all zeros, so that it
/// does not matter whether zeros are kept or left out.
fn share(n: usize, hash: u64, of_zeros: u64) -> u64 {
    if hash == of_zeros {
        0
    } else {
        mix(hash ^ mix(n as u64 + 1))
    }
}

/// One MiB.
#[derive(Debug)]
struct Chunk {
    pages: [Option<Arc<Page>>; PAGES],
    /// 0 until asked for, 1 for zeros.
    hash: AtomicU64,
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        Self {
            pages: self.pages.clone(),
            hash: AtomicU64::new(0),
        }
    }
}

impl Chunk {
    const OF_ZEROS: u64 = 1;

    fn zero() -> Self {
        Self {
            pages: [const { None }; PAGES],
            hash: AtomicU64::new(0),
        }
    }

    fn hash(&self) -> u64 {
        let known = self.hash.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let of_zeros = Page::hash_of_zeros();
        let pages = self.pages.iter().enumerate();
        let hash = pages.fold(0u64, |sum, (n, page)| {
            let page = page
                .as_ref()
                .map_or(0, |page| share(n, page.hash(), of_zeros));
            sum.wrapping_add(page)
        });
        let hash = hash.max(Self::OF_ZEROS);
        self.hash.store(hash, Ordering::Relaxed);
        hash
    }
}

/// A number of bytes that is known to lie inside something held in memory.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).expect("an offset into memory")
}

/// The bytes of a file. A clone shares all pages until one of the two is written to.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Past `len`, the last page is zero.
    chunks: Vec<Option<Arc<Chunk>>>,
    len: u64,
}

impl From<&[u8]> for Image {
    fn from(bytes: &[u8]) -> Self {
        let mut image = Self::default();
        image.write(0, bytes);
        image
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(&bytes[..])
    }
}

/// The pieces of a range, each inside one page: chunk, page in it, first byte in that, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut at = index(offset);
    let end = at + len;
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let piece = (PAGE - at % PAGE).min(end - at);
        let place = (at / CHUNK, at % CHUNK / PAGE, at % PAGE, piece);
        at += piece;
        Some(place)
    })
}

impl Image {
    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: u64) -> Self {
        let mut image = Self::default();
        image.set_len(len);
        image
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buf` from byte `offset`. False when the range reaches past the end.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        if !self.holds(offset, buf.len()) {
            return false;
        }
        let mut rest = buf;
        for (chunk, page, from, len) in pieces(offset, rest.len()) {
            let (now, later) = rest.split_at_mut(len);
            match self.page(chunk, page) {
                Some(page) => now.copy_from_slice(&page.bytes[from..from + len]),
                None => now.fill(0),
            }
            rest = later;
        }
        true
    }

    /// The `len` bytes from byte `offset`.
    ///
    /// # Panics
    /// When the range reaches past the end.
    #[must_use]
    pub fn part(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.read(offset, &mut bytes), "{len} bytes at {offset:#x}");
        bytes
    }

    /// Where, counted from byte `offset`, the bytes are first other than `bytes`, or end.
    #[must_use]
    pub fn differs(&self, offset: u64, bytes: &[u8]) -> Option<usize> {
        if !self.holds(offset, bytes.len()) {
            return Some(index(self.len.saturating_sub(offset)).min(bytes.len()));
        }
        let mut done = 0;
        for (chunk, page, from, len) in pieces(offset, bytes.len()) {
            let found = &bytes[done..done + len];
            let held = self
                .page(chunk, page)
                .map_or(&[0; PAGE], |page| &page.bytes);
            let held = &held[from..from + len];
            if held != found {
                let same = held.iter().zip(found).take_while(|(a, b)| a == b).count();
                return Some(done + same);
            }
            done += len;
        }
        None
    }

    /// Writes `bytes` at byte `offset`, growing where needed.
    ///
    /// # Panics
    /// When the file would pass 1 TiB.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.len {
            self.set_len(end);
        }
        let mut rest = bytes;
        for (chunk, page, from, len) in pieces(offset, bytes.len()) {
            let (now, later) = rest.split_at(len);
            rest = later;
            if self.page(chunk, page).is_none() && now.iter().all(|byte| *byte == 0) {
                continue;
            }
            self.page_mut(chunk, page)[from..from + len].copy_from_slice(now);
        }
    }

    /// Makes a range zero; the length stays.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let end = index(offset.saturating_add(len).min(self.len));
        let mut at = index(offset.min(self.len));
        while at < end {
            let chunk = at / CHUNK;
            let whole = at.is_multiple_of(CHUNK) && end - at >= CHUNK;
            if whole || self.chunks[chunk].is_none() {
                self.chunks[chunk] = None;
                at = ((chunk + 1) * CHUNK).min(end);
                continue;
            }
            let (page, from) = (at % CHUNK / PAGE, at % PAGE);
            let piece = (PAGE - from).min(end - at);
            if self.page(chunk, page).is_some() {
                if piece == PAGE {
                    self.chunk_mut(chunk).pages[page] = None;
                } else {
                    self.page_mut(chunk, page)[from..from + piece].fill(0);
                }
            }
            at += piece;
        }
    }

    /// Makes the file `len` bytes long; new bytes are zeros.
    ///
    /// # Panics
    /// When `len` is more than 1 TiB.
    pub fn set_len(&mut self, len: u64) {
        assert!(len <= LARGEST, "a file of {len} bytes in a proof");
        if len < self.len {
            self.zero(len, self.len - len);
        }
        self.chunks.resize(index(len.div_ceil(CHUNK as u64)), None);
        self.len = len;
    }

    /// All bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.part(0, index(self.len))
    }

    /// How many bytes from byte `offset` (inside the file) on are alike in being kept, or left out as
    /// zeros, and which of the two they are.
    #[must_use]
    pub fn run(&self, offset: u64) -> (u64, bool) {
        let at = index(offset);
        let kept = self.page(at / CHUNK, at % CHUNK / PAGE).is_some();
        let mut next = at / PAGE;
        while ((next * PAGE) as u64) < self.len {
            let chunk = next / PAGES;
            if self.chunks[chunk].is_none() {
                if kept {
                    break;
                }
                next = (chunk + 1) * PAGES;
                continue;
            }
            if self.page(chunk, next % PAGES).is_some() != kept {
                break;
            }
            next += 1;
        }
        let end = ((next * PAGE) as u64).min(self.len);
        (end - offset, kept)
    }

    /// A fingerprint of length and bytes.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let start = mix(self.len ^ 0x5A5A);
        let chunks = self.chunks.iter().enumerate();
        chunks.fold(start, |sum, (n, chunk)| {
            let chunk = chunk
                .as_ref()
                .map_or(0, |chunk| share(n, chunk.hash(), Chunk::OF_ZEROS));
            sum.wrapping_add(chunk)
        })
    }

    /// A fingerprint of several files; of one alone, its own.
    pub(crate) fn hash_of(images: &[Self]) -> u64 {
        let hashes = images.iter().map(Self::hash);
        hashes
            .reduce(|sum, hash| mix(sum.rotate_left(7)) ^ hash)
            .unwrap_or_default()
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        let end = offset.checked_add(len as u64);
        end.is_some_and(|end| end <= self.len)
    }

    fn page(&self, chunk: usize, page: usize) -> Option<&Page> {
        self.chunks[chunk].as_ref()?.pages[page].as_deref()
    }

    fn chunk_mut(&mut self, chunk: usize) -> &mut Chunk {
        let chunk = self.chunks[chunk].get_or_insert_with(|| Arc::new(Chunk::zero()));
        let chunk = Arc::make_mut(chunk);
        *chunk.hash.get_mut() = 0;
        chunk
    }

    fn page_mut(&mut self, chunk: usize, page: usize) -> &mut [u8; PAGE] {
        let page = self.chunk_mut(chunk).pages[page].get_or_insert_with(|| Arc::new(Page::zero()));
        let page = Arc::make_mut(page);
        *page.hash.get_mut() = 0;
        &mut page.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn behaves_as_a_vector_does_and_its_clones_stay_apart() {
        let mut image = Image::from(&[7; 5000][..]);
        let before = (image.clone(), image.hash());
        image.write(6000, &[8; 3000]);
        image.zero(100, 4500);
        image.set_len(8192);
        let mut right = vec![7; 5000];
        right.resize(6000, 0);
        right.resize(9000, 8);
        right[100..4600].fill(0);
        right.truncate(8192);
        assert_eq!(image.to_vec(), right);
        image.set_len(4700);
        image.set_len(5000);
        right.truncate(4700);
        right.resize(5000, 0);
        assert_eq!(image.to_vec(), right);
        assert_ne!(image.hash(), before.1);
        assert_eq!(image.hash(), Image::from(&right[..]).hash());
        assert_eq!(before.0.to_vec(), [7; 5000]);
        assert!(!image.read(4999, &mut [0; 2]));
    }

    #[test]
    fn behaves_as_a_vector_does_over_several_mebibytes() {
        let mut rng = Rng::new(1);
        let (mut image, mut right) = (Image::default(), Vec::new());
        let mut kept: Vec<(Image, Vec<u8>)> = Vec::new();
        for step in 0..400u32 {
            let at = rng.index(4 << 20);
            let most = if rng.one_in(8) { 3 << 20 } else { 9000 };
            let len = 1 + rng.index(most);
            let end = (at + len).min(right.len());
            match rng.below(5) {
                0 if at < end => {
                    image.zero(at as u64, len as u64);
                    right[at..end].fill(0);
                }
                1 if rng.one_in(6) => {
                    image.set_len(at as u64);
                    right.resize(at, 0);
                }
                _ => {
                    let bytes = vec![step.to_le_bytes()[0]; len];
                    image.write(at as u64, &bytes);
                    right.resize(right.len().max(at + len), 0);
                    right[at..at + len].copy_from_slice(&bytes);
                }
            }
            if step % 40 == 0 {
                kept.push((image.clone(), right.clone()));
            }
        }
        kept.push((image, right));
        for (image, right) in &kept {
            assert!(image.to_vec() == *right);
            assert_eq!(image.hash(), Image::from(&right[..]).hash());
            assert_eq!(image.differs(0, right), None);
            let mut at = 0;
            while at < image.len() {
                let (len, kept) = image.run(at);
                assert!(
                    len > 0 && (kept || right[index(at)..index(at + len)].iter().all(|b| *b == 0))
                );
                at += len;
            }
            assert_eq!(at, image.len());
        }
        let hashes: std::collections::HashSet<u64> = kept.iter().map(|(i, _)| i.hash()).collect();
        assert_eq!(hashes.len(), kept.len());
        let (image, right) = kept.last().expect("the last");
        let mut other = right.clone();
        other[70_000] ^= 1;
        assert_eq!(image.differs(1000, &other[1000..]), Some(69_000));
        assert_eq!(
            image.differs(image.len() - 1, &[other[other.len() - 1], 0]),
            Some(1)
        );
    }

    #[test]
    fn zeros_cost_nothing_however_many() {
        let mut image = Image::zeros(16 << 30);
        image.write(9 << 30, b"there");
        assert_eq!(image.part((9 << 30) - 1, 6), b"\0there");
        assert_eq!(image.run(0), (9 << 30, false));
        assert_eq!(image.run(9 << 30), (4096, true));
    }
}
