//! BAT and sector bitmaps, a page at a time through the shared cache.

use std::sync::Arc;

use blockdev_core::{PAGE_BYTES, PageCache, Result, Storage, Translations};

use super::pages::{Page, Pages};
use crate::meta::bat::Source;
use crate::meta::geometry::Geometry;
use crate::ondisk::bat_entry::BatEntry;

/// Bytes of a BAT entry.
pub(crate) const ENTRY_BYTES: u64 = 8;

const PAGE: u64 = PAGE_BYTES as u64;

/// The tables of one file.
#[derive(Debug)]
pub(crate) struct Tables {
    storage: Arc<dyn Storage>,
    pages: Pages,
    /// What a guest reads of blocks, by the numbers of their entries.
    known: Translations,
    bat_offset: u64,
    entries: u64,
}

/// One page of the BAT, with the number of its first entry.
pub(crate) struct BatPage {
    bytes: Page,
    first: u64,
    count: u64,
}

impl BatPage {
    /// Entry number `index` of the BAT, if this page holds it.
    pub(crate) fn entry(&self, index: u64) -> Option<BatEntry> {
        let within = index
            .checked_sub(self.first)
            .filter(|within| *within < self.count)?;
        let at = usize::try_from(within * ENTRY_BYTES).expect("inside a page");
        let bytes = self.bytes[at..at + 8].try_into().expect("eight bytes");
        Some(BatEntry::from_le_bytes(bytes))
    }

    /// One past the number of the page's last entry.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.count
    }

    /// True when every entry is 0: not present, and no place.
    pub(crate) fn is_zero(&self) -> bool {
        *self.bytes == [0; PAGE_BYTES]
    }
}

impl Tables {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        cache: &Arc<PageCache>,
        bat_offset: u64,
        geometry: &Geometry,
        has_parent: bool,
    ) -> Self {
        let entries = geometry.bat_entries(has_parent);
        Self {
            pages: Pages::new(Arc::clone(&storage), cache),
            storage,
            known: Translations::default(),
            bat_offset,
            entries,
        }
    }

    /// Entries of the BAT that mean anything.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The BAT is that of a disk with so many entries.
    pub(crate) fn set_entries(&mut self, entries: u64) {
        self.entries = entries;
        self.known.forget_all();
    }

    /// The BAT begins at byte `offset` from now on.
    pub(crate) fn set_bat_offset(&mut self, offset: u64) {
        self.bat_offset = offset;
        self.known.forget_all();
    }

    /// Makes entry number `index` `entry`: the only way in which one changes.
    pub(crate) fn set_entry(&self, index: u64, entry: BatEntry) -> Result<()> {
        let offset = self.entry_offset(index);
        let outcome = self.pages.put(offset, &entry.0.to_le_bytes());
        // Whoever asks from here on sees the page as it is now. What the block leaves behind is given up
        // later, and dated later still.
        self.known.forget(index);
        outcome
    }

    /// Where the block of entry number `index` comes from: as it is remembered, else by `look`.
    pub(crate) fn source(
        &self,
        index: u64,
        look: impl FnOnce() -> Result<Source>,
    ) -> Result<Source> {
        match self.known.find(index) {
            Some(word) => Ok(Source::from_word(word)),
            None => self.known.learn(index, look, |source| source.to_word()),
        }
    }

    /// Where entry number `index` lies in the file.
    pub(crate) fn entry_offset(&self, index: u64) -> u64 {
        self.bat_offset + index * ENTRY_BYTES
    }

    /// The page of the BAT that holds entry number `index`.
    pub(crate) fn bat_page(&self, index: u64) -> Result<BatPage> {
        let page = self.entry_offset(index) / PAGE;
        // The BAT begins on a MiB, so a page holds entries of the BAT alone.
        let first = (page * PAGE - self.bat_offset) / ENTRY_BYTES;
        Ok(BatPage {
            bytes: self.pages.page(page)?,
            first,
            count: PAGE / ENTRY_BYTES,
        })
    }

    /// The page that holds byte `offset` of the file.
    pub(crate) fn page_at(&self, offset: u64) -> Result<Page> {
        self.pages.page(offset / PAGE)
    }

    /// Every page of metadata.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The number of the first entry, at or after `index`, whose page the host stores; entries
    /// before it are all 0. May be past the last entry.
    pub(crate) fn skip_hole(&self, index: u64) -> Result<u64> {
        let at = self.entry_offset(index);
        // Asked for before the host: what is written in place meanwhile is seen there.
        let changed = self.pages.next_changed(at / PAGE);
        let changed = changed.map_or(u64::MAX, |number| number * PAGE);
        let end = if at >= self.storage.len()? {
            self.entry_offset(self.entries)
        } else {
            let host = self.storage.next_extent(at)?;
            if host.allocated {
                return Ok(index);
            }
            // A hole that ends inside a page leaves the rest of that page to be looked at.
            (at + host.len) / PAGE * PAGE
        };
        let end = end.min(changed);
        Ok(index.max(end.saturating_sub(self.bat_offset) / ENTRY_BYTES))
    }
}
