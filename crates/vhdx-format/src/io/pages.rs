//! Metadata as the image is to have it: what the file holds, and over it what is not there yet.
//!
//! ```text
//!   open      changed since the last entry was closed          ┐ one map: a page may be both
//!   logged    in the log, not written in its place yet         ┘
//!   page cache, the file
//! ```
//!
//! Everything that is not the header or payload goes this way ([MS-VHDX] §2.3): a flush closes what
//! is open and logs it; what is logged is written in place when the log needs its room, and at the
//! end. A page is never written in place as it is not in the log.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use blockdev_core::{CacheOwner, PAGE_BYTES, PageCache, Result, Storage, StorageExt};

use crate::meta::log_encode::PageUpdate;

const PAGE: u64 = PAGE_BYTES as u64;
/// Bytes written at a time.
const LARGEST_WRITE: usize = 1 << 20;

pub(crate) type Page = Arc<[u8; PAGE_BYTES]>;

/// A page that differs from the file.
#[derive(Debug)]
struct Changed {
    /// As it is to be.
    bytes: Page,
    /// It was changed since it was last closed.
    is_open: bool,
    /// As the log has it.
    logged: Option<Page>,
}

/// The metadata pages of one file.
#[derive(Debug)]
pub(crate) struct Pages {
    storage: Arc<dyn Storage>,
    kept: CacheOwner,
    changed: RwLock<BTreeMap<u64, Changed>>,
    /// Pages in the map, so that readers of an unchanged image take no lock.
    count: AtomicUsize,
    /// Of those, the open ones.
    open: AtomicUsize,
    /// Times that pages were written in place: a page read from the file meanwhile is not kept, as it
    /// may be older.
    applied: AtomicU64,
}

impl Pages {
    pub(crate) fn new(storage: Arc<dyn Storage>, cache: &Arc<PageCache>) -> Self {
        Self {
            storage,
            kept: cache.owner(),
            changed: RwLock::default(),
            count: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            applied: AtomicU64::new(0),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Changed>> {
        self.changed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Changed>> {
        self.changed.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Page number `number` of the file, with everything that was changed.
    pub(crate) fn page(&self, number: u64) -> Result<Page> {
        let applied = self.applied.load(Ordering::Acquire);
        if self.count.load(Ordering::Acquire) > 0
            && let Some(changed) = self.read().get(&number)
        {
            return Ok(Arc::clone(&changed.bytes));
        }
        if let Some(hit) = self.kept.cached(number) {
            return Ok(hit);
        }
        let mut page = Arc::new([0; PAGE_BYTES]);
        let bytes = Arc::get_mut(&mut page).expect("not shared yet");
        self.storage.read_zero_padded(bytes, number * PAGE)?;
        // Under the lock, nothing can be written in place between the question and the answer.
        let _unchanged = self.read();
        if self.applied.load(Ordering::Acquire) == applied {
            self.kept.keep(number, Arc::clone(&page));
        }
        Ok(page)
    }

    /// The first changed page from number `number` on.
    pub(crate) fn next_changed(&self, number: u64) -> Option<u64> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.read()
            .range(number..)
            .next()
            .map(|(number, _)| *number)
    }

    /// Changes the bytes from `offset`, where they are not so already. Only one thread at a time
    /// changes pages.
    pub(crate) fn put(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = usize::try_from(at % PAGE).expect("inside a page");
            let len = (bytes.len() - done).min(PAGE_BYTES - within);
            let part = &bytes[done..done + len];
            self.change(
                at / PAGE,
                |page| page[within..within + len] == *part,
                |page| page[within..within + len].copy_from_slice(part),
            )?;
            done += len;
        }
        Ok(())
    }

    /// Changes page number `number` by `change`, unless `is_so` says of it that it is so already: then
    /// it does not count as changed. Only one thread at a time changes pages.
    pub(crate) fn change(
        &self,
        number: u64,
        is_so: impl FnOnce(&[u8; PAGE_BYTES]) -> bool,
        change: impl FnOnce(&mut [u8; PAGE_BYTES]),
    ) -> Result<()> {
        let before = self.page(number)?;
        if is_so(&before) {
            return Ok(());
        }
        let mut map = self.write();
        // Nobody else holds a page that was changed before, mostly: it is changed where it is.
        let changed = match map.entry(number) {
            Entry::Occupied(changed) => {
                drop(before);
                changed.into_mut()
            }
            Entry::Vacant(unchanged) => unchanged.insert(Changed {
                bytes: before,
                is_open: false,
                logged: None,
            }),
        };
        change(Arc::make_mut(&mut changed.bytes));
        if !std::mem::replace(&mut changed.is_open, true) {
            self.open.fetch_add(1, Ordering::AcqRel);
        }
        self.count.store(map.len(), Ordering::Release);
        Ok(())
    }

    /// Takes note that `len` bytes from `offset`, whole pages of which none is changed here, were written
    /// in the file by somebody else.
    pub(crate) fn changed_in_place(&self, offset: u64, len: u64) -> Result<()> {
        // Whoever reads one of them just now does not keep it.
        drop({
            let map = self.write();
            self.applied.fetch_add(1, Ordering::AcqRel);
            map
        });
        for number in offset / PAGE..(offset + len) / PAGE {
            if self.kept.cached(number).is_some() {
                let mut page = Arc::new([0; PAGE_BYTES]);
                let bytes = Arc::get_mut(&mut page).expect("not shared yet");
                self.storage.read_zero_padded(bytes, number * PAGE)?;
                self.kept.keep(number, page);
            }
        }
        Ok(())
    }

    /// Open pages.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Pages that are not in their place as they are to be.
    pub(crate) fn changed(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Closes what is open, for the log. [`logged`](Self::logged) or [`reopen`](Self::reopen) says
    /// what came of it.
    pub(crate) fn close_batch(&self) -> Vec<PageUpdate> {
        let mut map = self.write();
        let open = map.iter_mut().filter(|(_, changed)| changed.is_open);
        let batch = open
            .map(|(number, changed)| {
                changed.is_open = false;
                (*number, Arc::clone(&changed.bytes))
            })
            .collect();
        self.open.store(0, Ordering::Release);
        batch
    }

    /// The batch is stable in the log.
    pub(crate) fn logged(&self, batch: Vec<PageUpdate>) {
        let mut map = self.write();
        for (number, page) in batch {
            if let Some(changed) = map.get_mut(&number) {
                changed.logged = Some(page);
            }
        }
    }

    /// The batch did not get into the log: it is open again.
    pub(crate) fn reopen(&self, batch: &[PageUpdate]) {
        let mut map = self.write();
        for (number, _) in batch {
            if let Some(changed) = map.get_mut(number)
                && !std::mem::replace(&mut changed.is_open, true)
            {
                self.open.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Writes what is logged in its place, neighbours together; true when there was anything. It is
    /// not stable there yet. May be done again where it failed.
    pub(crate) fn apply(&self) -> Result<bool> {
        let logged: Vec<PageUpdate> = {
            let map = self.read();
            let logged = map.iter().filter_map(|(number, changed)| {
                let page = changed.logged.as_ref()?;
                Some((*number, Arc::clone(page)))
            });
            logged.collect()
        };
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (number, page) in &logged {
            let place = number * PAGE;
            if place != start + run.len() as u64 || run.len() >= LARGEST_WRITE {
                self.write_run(start, &run)?;
                run.clear();
                start = place;
            }
            run.extend_from_slice(&**page);
        }
        self.write_run(start, &run)?;
        let mut map = self.write();
        for (number, page) in &logged {
            if let Some(changed) = map.get_mut(number) {
                changed.logged = None;
                // What differs is open, or closed and on its way into the log.
                if Arc::ptr_eq(&changed.bytes, page) {
                    map.remove(number);
                    self.kept.keep(*number, Arc::clone(page));
                }
            }
        }
        self.applied.fetch_add(1, Ordering::AcqRel);
        self.count.store(map.len(), Ordering::Release);
        Ok(!logged.is_empty())
    }

    fn write_run(&self, start: u64, run: &[u8]) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        self.storage.write_at(run, start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockdev_core::MemoryStorage;

    fn pages() -> (Arc<MemoryStorage>, Pages) {
        let storage = Arc::new(MemoryStorage::from(vec![9; 16 * PAGE_BYTES]));
        let pages = Pages::new(storage.clone(), &PageCache::new(1 << 20));
        (storage, pages)
    }

    fn in_file(storage: &MemoryStorage, number: usize) -> u8 {
        storage.to_vec()[number * PAGE_BYTES]
    }

    #[test]
    fn a_page_is_written_in_place_only_as_the_log_has_it() {
        let (storage, pages) = pages();
        pages.put(2 * PAGE, &[1]).unwrap();
        assert!(!pages.apply().unwrap(), "nothing is in the log");
        assert_eq!(in_file(&storage, 2), 9);
        let batch = pages.close_batch();
        pages.put(2 * PAGE, &[2]).unwrap();
        pages.logged(batch);
        assert!(pages.apply().unwrap());
        assert_eq!(in_file(&storage, 2), 1, "2 is not in the log yet");
        assert_eq!(pages.page(2).unwrap()[0], 2);
        assert_eq!((pages.open(), pages.changed()), (1, 1));
        let batch = pages.close_batch();
        pages.logged(batch);
        assert!(pages.apply().unwrap());
        assert_eq!((in_file(&storage, 2), pages.changed()), (2, 0));
        assert_eq!(pages.page(2).unwrap()[0], 2);
    }

    /// The log began anew with the very batch that changed a page again: what was applied took the
    /// place of what was being logged, and the next change was made to that.
    #[test]
    fn a_page_on_its_way_into_the_log_is_not_given_up_for_what_is_applied() {
        let (storage, pages) = pages();
        pages.put(2 * PAGE, &[1]).unwrap();
        let batch = pages.close_batch();
        pages.logged(batch);
        pages.put(2 * PAGE + 1, &[2]).unwrap();
        let batch = pages.close_batch();
        assert!(pages.apply().unwrap());
        assert_eq!(pages.page(2).unwrap()[..3], [1, 2, 9]);
        pages.logged(batch);
        assert_eq!(pages.page(2).unwrap()[..3], [1, 2, 9]);
        assert!(pages.apply().unwrap());
        assert_eq!((in_file(&storage, 2), pages.changed()), (1, 0));
        assert_eq!(pages.page(2).unwrap()[..3], [1, 2, 9]);
    }

    #[test]
    fn a_batch_that_did_not_get_into_the_log_comes_again() {
        let (_, pages) = pages();
        pages.put(3 * PAGE, &[1]).unwrap();
        let batch = pages.close_batch();
        assert_eq!((batch.len(), pages.open()), (1, 0));
        pages.reopen(&batch);
        assert_eq!(pages.open(), 1);
        pages.put(3 * PAGE + 1, &[2]).unwrap();
        let batch = pages.close_batch();
        assert_eq!(batch[0].1[..3], [1, 2, 9]);
    }

    #[test]
    fn who_holds_a_page_keeps_it_as_it_was() {
        let (_, pages) = pages();
        pages.put(2 * PAGE, &[1]).unwrap();
        let held = pages.page(2).unwrap();
        pages.put(2 * PAGE, &[2]).unwrap();
        assert_eq!((held[0], pages.page(2).unwrap()[0]), (1, 2));
    }

    #[test]
    fn what_stays_as_it_is_costs_no_log() {
        let (_, pages) = pages();
        pages.put(PAGE - 2, &[9; 4]).unwrap();
        assert_eq!(pages.open(), 0);
        assert_eq!(pages.next_changed(0), None);
        pages.put(PAGE - 2, &[9, 9, 9, 8]).unwrap();
        assert_eq!((pages.open(), pages.next_changed(0)), (1, Some(1)));
    }
}
