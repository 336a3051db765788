//! The built file as pages in memory, zeros left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use super::bytes::{seal, to_index};
use super::damage::Slot;

const PAGE: u64 = 64 << 10;

/// A file image that keeps only the pages something was written to.
///
/// Bytes never written read as zero, so that a BAT of half a gigabyte costs what its used entries
/// cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseImage {
    pages: BTreeMap<u64, Vec<u8>>,
    len: u64,
}

impl SparseImage {
    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a file of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts or extends the file; what is cut is forgotten.
    pub fn set_len(&mut self, len: u64) {
        self.len = len;
        self.pages.retain(|&page, _| page * PAGE < len);
        if let Some(last) = self.pages.get_mut(&(len / PAGE)) {
            last[to_index(len % PAGE)..].fill(0);
        }
    }

    /// Overwrites `bytes` at `offset`, and extends the file where needed.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len() as u64);
        for_each_page(offset, bytes.len(), |page, within, part| {
            let bytes = &bytes[part];
            if self.pages.contains_key(&page) || bytes.iter().any(|&byte| byte != 0) {
                let held = self.pages.entry(page).or_insert_with(zero_page);
                held[within..within + bytes.len()].copy_from_slice(bytes);
            }
        });
    }

    /// `len` bytes at `offset`; zeros where nothing was written or the file has ended.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for_each_page(offset, len, |page, within, part| {
            if let Some(held) = self.pages.get(&page) {
                let len = part.len();
                out[part].copy_from_slice(&held[within..within + len]);
            }
        });
        out
    }

    /// Recomputes the CRC-32C of the structure of `len` bytes at `offset`, for a test that changed
    /// it with [`write`](Self::write) and wants it to pass as intact.
    pub fn reseal(&mut self, offset: u64, len: usize) {
        let mut bytes = self.read(offset, len);
        seal(&mut bytes);
        self.write(offset, &bytes);
    }

    /// [`reseal`](Self::reseal) for one of the two headers.
    pub fn reseal_header(&mut self, slot: Slot) {
        self.reseal(slot.header_offset(), 4 << 10);
    }

    /// [`reseal`](Self::reseal) for one of the two region tables.
    pub fn reseal_region_table(&mut self, slot: Slot) {
        self.reseal(slot.region_table_offset(), 64 << 10);
    }

    /// The whole file. Meant for small images: zeros are bytes here too.
    pub fn to_vec(&self) -> Vec<u8> {
        self.read(0, to_index(self.len))
    }

    /// Replaces the content of `file`, and leaves holes where there are only zeros.
    pub fn write_to(&self, mut file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.len)?;
        for (page, bytes) in &self.pages {
            if bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            let start = page * PAGE;
            let len = to_index((self.len - start).min(PAGE));
            file.seek(SeekFrom::Start(start))?;
            file.write_all(&bytes[..len])?;
        }
        file.flush()
    }

    /// Creates or replaces the file at `path`, as [`write_to`](Self::write_to) does.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.write_to(&File::create(path)?)
    }
}

fn zero_page() -> Vec<u8> {
    vec![0; to_index(PAGE)]
}

/// Calls `visit(page, start within the page, range of the caller's bytes)` for each page touched.
fn for_each_page(
    offset: u64,
    len: usize,
    mut visit: impl FnMut(u64, usize, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = to_index(at % PAGE);
        let step = (to_index(PAGE) - within).min(len - done);
        visit(at / PAGE, within, done..done + step);
        done += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_across_pages_are_read_back() {
        let mut image = SparseImage::default();
        let bytes: Vec<u8> = (0..200_000).map(|i: u32| i.to_le_bytes()[0] | 1).collect();
        image.write(60_000, &bytes);
        image.write(3 << 40, &[0; 100]);
        assert_eq!(image.len(), (3 << 40) + 100);
        assert_eq!(image.read(60_000, bytes.len()), bytes);
        assert_eq!(image.read(59_999, 2), [0, bytes[0]]);
        assert_eq!(image.pages.len(), 4);
    }

    #[test]
    fn a_cut_file_forgets_its_end() {
        let mut image = SparseImage::default();
        image.write(0, &[7; 100]);
        image.set_len(10);
        image.set_len(100);
        assert_eq!(image.to_vec()[8..12], [7, 7, 0, 0]);
    }

    #[test]
    fn a_saved_file_holds_the_same_bytes() {
        let mut image = SparseImage::default();
        image.write(100_000, b"payload");
        image.set_len(300_000);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("image");
        image.save(&path).expect("save");
        assert_eq!(std::fs::read(&path).expect("read"), image.to_vec());
    }
}
