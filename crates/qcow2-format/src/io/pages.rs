//! Metadata as the image is to have it: what the file holds, and over it what is not written yet.
//!
//! ```text
//!   open batch      changes since the last flush began        ┐
//!   closing batch   changes that the running flush writes     ├─ looked at in this order
//!   page cache      pages as they are in the file             │
//!   the file                                                  ┘
//! ```
//!
//! A flush closes the open batch and writes it stage by stage, with a barrier between the stages, so
//! that the file never holds a reference to something it does not hold yet. What changes meanwhile
//! goes to the next batch.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use blockdev_core::{CacheOwner, PAGE_BYTES, PageCache, Result, Storage, StorageExt};

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const PAGE: u64 = PAGE_BYTES as u64;
/// What a host writes whole or not at all; no table entry lies across two of them.
const SECTOR: usize = 512;
const SECTORS: usize = PAGE_BYTES / SECTOR;
/// Bytes written at a time.
const LARGEST_WRITE: usize = 1 << 20;

type Page = Arc<[u8; PAGE_BYTES]>;

/// When a change goes to the file; each stage is stable before the next is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What nothing in the file refers to yet, and refcounts: too high a refcount is but a leak.
    Early,
    /// Entries of the refcount table, for which the blocks must be there.
    Middle,
    /// References to data and tables, for which the refcounts must be there.
    Late,
}

const STAGES: usize = 3;

/// A page that differs from the file, and which of its sectors do, by stage.
#[derive(Debug, Clone)]
struct Changed {
    bytes: Page,
    sectors: [u8; STAGES],
}

type Batch = BTreeMap<u64, Changed>;

#[derive(Debug, Default)]
struct Pending {
    open: Batch,
    closing: Batch,
}

/// The metadata pages of one file.
#[derive(Debug)]
pub(crate) struct Pages {
    storage: Arc<dyn Storage>,
    kept: CacheOwner,
    pending: RwLock<Pending>,
    /// Pages pending, so that readers of an unchanged image take no lock.
    count: AtomicUsize,
    /// Batches written: a page read from the file while one was is not kept, as it may be older.
    written: AtomicU64,
}

impl Pages {
    pub(crate) fn new(storage: Arc<dyn Storage>, cache: &Arc<PageCache>) -> Self {
        Self {
            storage,
            kept: cache.owner(),
            pending: RwLock::default(),
            count: AtomicUsize::new(0),
            written: AtomicU64::new(0),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Pending> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Pending> {
        self.pending.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Page number `number`, with everything that was changed.
    pub(crate) fn page(&self, number: u64) -> Result<Page> {
        let written = self.written.load(Ordering::Acquire);
        if self.count.load(Ordering::Acquire) > 0 {
            let pending = self.read();
            let changed = pending.open.get(&number);
            if let Some(changed) = changed.or_else(|| pending.closing.get(&number)) {
                return Ok(Arc::clone(&changed.bytes));
            }
        }
        if let Some(hit) = self.kept.cached(number) {
            return Ok(hit);
        }
        let mut page = Arc::new([0; PAGE_BYTES]);
        let bytes = Arc::get_mut(&mut page).expect("not shared yet");
        self.storage.read_zero_padded(bytes, number * PAGE)?;
        // Under the lock, no batch can be settled between the question and the answer.
        let _unsettled = self.read();
        if self.written.load(Ordering::Acquire) == written {
            self.kept.keep(number, Arc::clone(&page));
        }
        Ok(page)
    }

    /// The eight bytes at `offset`, which is a multiple of eight.
    pub(crate) fn word(&self, offset: u64) -> Result<u64> {
        let page = self.page(offset / PAGE)?;
        let at = usize::try_from(offset % PAGE).expect("inside a page");
        let bytes = page[at..at + 8].try_into().expect("eight bytes");
        Ok(u64::from_be_bytes(bytes))
    }

    /// Changes the bytes from `offset`. Only one thread at a time changes pages.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8], stage: Stage) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = usize::try_from(at % PAGE).expect("inside a page");
            let len = (bytes.len() - done).min(PAGE_BYTES - within);
            let part = &bytes[done..done + len];
            self.alter(at, len, stage, |bytes| bytes.copy_from_slice(part))?;
            done += len;
        }
        Ok(())
    }

    /// Changes the `len` bytes from `offset`, which lie in one page, by `change`; it sees zeros if they
    /// are the whole page. Only one thread at a time changes pages.
    pub(crate) fn alter(
        &self,
        offset: u64,
        len: usize,
        stage: Stage,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let number = offset / PAGE;
        let within = usize::try_from(offset % PAGE).expect("inside a page");
        let apply = |changed: &mut Changed| {
            // Copied once a batch at most, unless somebody reads it just now.
            change(&mut Arc::make_mut(&mut changed.bytes)[within..within + len]);
            for sector in within / SECTOR..(within + len).div_ceil(SECTOR) {
                changed.sectors[stage as usize] |= 1 << sector;
            }
        };
        if let Some(changed) = self.change().open.get_mut(&number) {
            apply(changed);
            return Ok(());
        }
        let bytes = if len == PAGE_BYTES {
            Arc::new([0; PAGE_BYTES])
        } else {
            self.page(number)?
        };
        let sectors = [0; STAGES];
        let mut pending = self.change();
        let new = Changed { bytes, sectors };
        apply(pending.open.entry(number).or_insert(new));
        let count = pending.open.len() + pending.closing.len();
        self.count.store(count, Ordering::Release);
        Ok(())
    }

    /// Changes the eight bytes at `offset`.
    pub(crate) fn write_word(&self, offset: u64, word: u64, stage: Stage) -> Result<()> {
        self.write(offset, &word.to_be_bytes(), stage)
    }

    /// Makes `len` bytes from `offset` zeros: a new table, in space of whatever content.
    pub(crate) fn clear(&self, offset: u64, len: u64) -> Result<()> {
        static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let piece = (PAGE - at % PAGE).min(len - done);
            let bytes = usize::try_from(piece).expect("a page");
            self.write(at, &ZEROS[..bytes], Stage::Early)?;
            done += piece;
        }
        Ok(())
    }

    /// Pages that are not written yet.
    pub(crate) fn pending(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// True when the closing batch changes something in `stage`.
    pub(crate) fn is_closing(&self, stage: Stage) -> bool {
        let pending = self.read();
        let mut pages = pending.closing.values();
        pages.any(|changed| changed.sectors[stage as usize] != 0)
    }

    /// True when a batch was closed and is not settled yet.
    pub(crate) fn has_closing(&self) -> bool {
        !self.read().closing.is_empty()
    }

    /// Changes bytes in the file at once, and in whatever is known of it.
    pub(crate) fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.storage.write_at(bytes, offset)?;
        let number = offset / PAGE;
        let within = usize::try_from(offset % PAGE).expect("inside a page");
        debug_assert!(
            within + bytes.len() <= PAGE_BYTES,
            "one field of one structure"
        );
        let patch = |page: &mut Page| {
            Arc::make_mut(page)[within..within + bytes.len()].copy_from_slice(bytes);
        };
        let mut pending = self.change();
        let Pending { open, closing } = &mut *pending;
        for batch in [open, closing] {
            if let Some(changed) = batch.get_mut(&number) {
                patch(&mut changed.bytes);
            }
        }
        if let Some(mut page) = self.kept.cached(number) {
            patch(&mut page);
            self.kept.keep(number, page);
        }
        // Whoever reads the page from the file just now does not keep it.
        self.written.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Closes the open batch: it is what [`write_out`](Self::write_out) writes. The batch before it
    /// was settled.
    pub(crate) fn close_batch(&self) {
        let mut pending = self.change();
        debug_assert!(pending.closing.is_empty(), "one flush after the other");
        pending.closing = std::mem::take(&mut pending.open);
    }

    /// Writes what the closing batch changes in `stage`, neighbours together. May be done again.
    pub(crate) fn write_out(&self, stage: Stage) -> Result<()> {
        let pages: Vec<(u64, Page, u8)> = {
            let pending = self.read();
            let changed = pending.closing.iter();
            changed
                .map(|(number, page)| {
                    let sectors = page.sectors[stage as usize];
                    (*number, Arc::clone(&page.bytes), sectors)
                })
                .filter(|(.., sectors)| *sectors != 0)
                .collect()
        };
        let (mut start, mut run) = (0, Vec::new());
        for (number, bytes, sectors) in pages {
            for sector in (0..SECTORS).filter(|sector| sectors >> sector & 1 != 0) {
                let place = number * PAGE + (sector * SECTOR) as u64;
                if place != start + run.len() as u64 || run.len() >= LARGEST_WRITE {
                    self.write_run(start, &run)?;
                    run.clear();
                    start = place;
                }
                run.extend_from_slice(&bytes[sector * SECTOR..(sector + 1) * SECTOR]);
            }
        }
        self.write_run(start, &run)
    }

    fn write_run(&self, start: u64, run: &[u8]) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        self.storage.write_at(run, start)
    }

    /// Forgets that the closing batch was to be written: it is in the file.
    pub(crate) fn settle(&self) {
        let mut pending = self.change();
        for (number, changed) in std::mem::take(&mut pending.closing) {
            self.kept.keep(number, changed.bytes);
        }
        self.written.fetch_add(1, Ordering::AcqRel);
        self.count.store(pending.open.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use blockdev_core::MemoryStorage;

    use super::*;

    fn pages(bytes: Vec<u8>) -> (Arc<MemoryStorage>, Pages) {
        let storage = Arc::new(MemoryStorage::from(bytes));
        let pages = Pages::new(storage.clone(), &PageCache::new(1 << 20));
        (storage, pages)
    }

    #[test]
    fn only_changed_sectors_are_written_and_each_in_its_stage() {
        let (storage, pages) = pages(vec![7; 3 * PAGE_BYTES]);
        pages.write_word(512, 1, Stage::Early).unwrap();
        pages.write_word(4096 + 8, 2, Stage::Late).unwrap();
        assert_eq!(pages.word(512).unwrap(), 1);
        assert_eq!(
            storage.to_vec(),
            vec![7; 3 * PAGE_BYTES],
            "nothing before a flush"
        );
        pages.close_batch();
        // What others wrote into the same page meanwhile, but into another cluster, stays.
        storage.write_at(&[9; 512], 1024).unwrap();
        pages.write_out(Stage::Early).unwrap();
        let bytes = storage.to_vec();
        assert_eq!(bytes[512..520], 1u64.to_be_bytes());
        assert_eq!(bytes[1024..1536], [9; 512]);
        assert_eq!(bytes[4096..4112], [7; 16]);
        pages.write_out(Stage::Late).unwrap();
        assert_eq!(storage.to_vec()[4104..4112], 2u64.to_be_bytes());
        pages.settle();
        assert_eq!(pages.pending(), 0);
    }

    #[test]
    fn a_change_during_a_flush_waits_for_the_next() {
        let (storage, pages) = pages(vec![0; PAGE_BYTES]);
        pages.write_word(0, 1, Stage::Late).unwrap();
        pages.close_batch();
        pages.write_word(8, 2, Stage::Late).unwrap();
        assert_eq!((pages.word(0).unwrap(), pages.word(8).unwrap()), (1, 2));
        pages.write_out(Stage::Late).unwrap();
        pages.settle();
        assert_eq!(storage.to_vec()[8..16], [0; 8]);
        assert_eq!((pages.word(0).unwrap(), pages.word(8).unwrap()), (1, 2));
        pages.close_batch();
        pages.write_out(Stage::Late).unwrap();
        pages.settle();
        assert_eq!(storage.to_vec()[8..16], 2u64.to_be_bytes());
    }
}
