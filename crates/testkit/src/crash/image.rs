//! A file's bytes in shared pages: a thousand states of one image cost little more than one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const PAGE: usize = 4096;

/// Files that the machinery lets grow: beyond is a runaway engine, not a test.
const LARGEST: u64 = 1 << 30;

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

fn zero_page() -> Arc<Page> {
    static ZERO: OnceLock<Arc<Page>> = OnceLock::new();
    let page = ZERO.get_or_init(|| {
        Arc::new(Page {
            bytes: [0; PAGE],
            hash: AtomicU64::new(0),
        })
    });
    Arc::clone(page)
}

/// A number of bytes that is known to lie inside something held in memory.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).expect("an offset into memory")
}

/// The bytes of a file. A clone shares all pages until one of the two is written to.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Past `len`, the last page is zero.
    pages: Vec<Arc<Page>>,
    len: u64,
}

impl From<&[u8]> for Image {
    fn from(bytes: &[u8]) -> Self {
        let mut image = Self::default();
        image.write(0, bytes);
        image
    }
}

impl Image {
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
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return false;
        }
        let mut at = index(offset);
        let mut rest = buf;
        while !rest.is_empty() {
            let piece = (PAGE - at % PAGE).min(rest.len());
            let (now, later) = rest.split_at_mut(piece);
            now.copy_from_slice(&self.pages[at / PAGE].bytes[at % PAGE..at % PAGE + piece]);
            at += piece;
            rest = later;
        }
        true
    }

    /// Writes `bytes` at byte `offset`, growing where needed.
    ///
    /// # Panics
    /// When the file would pass 1 GiB.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.len {
            self.set_len(end);
        }
        let mut at = index(offset);
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = (PAGE - at % PAGE).min(rest.len());
            let (now, later) = rest.split_at(piece);
            self.page(at / PAGE)[at % PAGE..at % PAGE + piece].copy_from_slice(now);
            at += piece;
            rest = later;
        }
    }

    /// Makes a range zero; the length stays.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let end = index(offset.saturating_add(len).min(self.len));
        let mut at = index(offset.min(self.len));
        while at < end {
            let piece = (PAGE - at % PAGE).min(end - at);
            if piece == PAGE {
                self.pages[at / PAGE] = zero_page();
            } else {
                self.page(at / PAGE)[at % PAGE..at % PAGE + piece].fill(0);
            }
            at += piece;
        }
    }

    /// Makes the file `len` bytes long; new bytes are zeros.
    ///
    /// # Panics
    /// When `len` is more than 1 GiB.
    pub fn set_len(&mut self, len: u64) {
        assert!(len <= LARGEST, "a file of {len} bytes in a proof");
        let pages = index(len.div_ceil(PAGE as u64));
        if len < self.len {
            self.zero(len, self.len - len);
        }
        self.pages.resize_with(pages, zero_page);
        self.len = len;
    }

    /// All bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; index(self.len)];
        self.read(0, &mut bytes);
        bytes
    }

    /// A fingerprint of length and bytes.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let of_pages = self.pages.iter().zip(1u64..);
        of_pages.fold(mix(self.len ^ 0x5A5A), |sum, (page, n)| {
            sum.wrapping_add(mix(page.hash() ^ mix(n)))
        })
    }

    fn page(&mut self, n: usize) -> &mut [u8; PAGE] {
        let page = Arc::make_mut(&mut self.pages[n]);
        *page.hash.get_mut() = 0;
        &mut page.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
