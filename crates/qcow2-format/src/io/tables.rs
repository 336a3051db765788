//! L1 and L2 tables, a page at a time through the shared cache.

use std::sync::Arc;

use blockdev_core::{PAGE_BYTES, Result, Translations};

use super::pages::Pages;
use crate::Qcow2Error;
use crate::meta::geometry::Geometry;
use crate::ondisk::l1_entry::L1Entry;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};
use crate::sync::atomic::{AtomicU64, Ordering};

const PAGE: u64 = PAGE_BYTES as u64;

/// The tables of one disk in a file.
#[derive(Debug)]
pub(crate) struct Tables {
    pages: Arc<Pages>,
    pub(crate) l1_offset: u64,
    /// Tables end before this: the end of the file, or of what will be in it.
    end: AtomicU64,
    /// What they said of guest clusters, as [`Known`](crate::meta::known::Known) has it. Whoever changes
    /// an entry, or where entries are, has it forgotten.
    pub(crate) known: Translations,
}

/// Some entries of one L2 table: those in one page.
pub(crate) struct L2Page {
    bytes: Arc<[u8; PAGE_BYTES]>,
    /// Where the page lies.
    offset: u64,
    /// Where the table lies.
    table: u64,
    entry_bytes: u64,
}

impl L2Page {
    /// Entry number `index` of the table and where it lies, if this page holds it.
    pub(crate) fn entry(&self, index: u64) -> Option<(L2Entry, SubclusterBits, u64)> {
        let place = self.table + index * self.entry_bytes;
        let within = place
            .checked_sub(self.offset)
            .filter(|within| *within < PAGE)?;
        let word = |at: u64| {
            let at = usize::try_from(at).expect("inside a page");
            u64::from_be_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
        };
        let bits = if self.entry_bytes == 16 {
            word(within + 8)
        } else {
            0
        };
        Some((L2Entry(word(within)), SubclusterBits(bits), place))
    }
}

impl Tables {
    /// The tables of a disk whose L1 table lies at `l1_offset`, in a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`Qcow2Error::Entry`] when the file ends before the L1 table does: what is cut off would
    /// read as nothing there.
    pub(crate) fn new(
        pages: Arc<Pages>,
        l1_offset: u64,
        geometry: &Geometry,
        file_len: u64,
    ) -> Result<Self> {
        let l1_bytes = geometry.l1_entries() * 8;
        if l1_bytes > 0 && l1_offset.saturating_add(l1_bytes) > file_len {
            let problem = "the table reaches past the end of the file".into();
            let (structure, offset) = ("L1 table", l1_offset);
            return Err(Qcow2Error::Entry {
                structure,
                offset,
                problem,
            }
            .into());
        }
        Ok(Self {
            pages,
            l1_offset,
            end: AtomicU64::new(file_len),
            known: Translations::default(),
        })
    }

    /// Says that the file will reach to `end` at least.
    pub(crate) fn raise_end(&self, end: u64) {
        self.end.fetch_max(end, Ordering::AcqRel);
    }

    /// Where L1 entry number `index` lies.
    pub(crate) fn l1_place(&self, index: u64) -> u64 {
        self.l1_offset + index * 8
    }

    /// L1 entry number `index`, which the table has.
    pub(crate) fn l1_entry(&self, index: u64) -> Result<L1Entry> {
        self.pages.word(self.l1_place(index)).map(L1Entry)
    }

    /// Where the L2 table of L1 entry number `index` lies; `None` when there is none.
    ///
    /// # Errors
    /// [`Qcow2Error::Entry`] for an offset that is not cluster-aligned.
    pub(crate) fn l2_table(&self, index: u64, geometry: &Geometry) -> Result<Option<u64>> {
        let table = self.l1_entry(index)?.l2_offset();
        if table % geometry.cluster_size() != 0 {
            let problem = format!("L2 table offset {table:#x} is not cluster-aligned").into();
            let offset = self.l1_offset + index * 8;
            return Err(Qcow2Error::Entry {
                structure: "L1 entry",
                offset,
                problem,
            }
            .into());
        }
        if table != 0 && table + geometry.cluster_size() > self.end.load(Ordering::Acquire) {
            let problem = format!("L2 table {table:#x} reaches past the end of the file").into();
            let offset = self.l1_offset + index * 8;
            return Err(Qcow2Error::Entry {
                structure: "L1 entry",
                offset,
                problem,
            }
            .into());
        }
        Ok(Some(table).filter(|table| *table != 0))
    }

    /// The page of the L2 table at `table` that holds entry number `index`.
    pub(crate) fn l2_page(&self, table: u64, index: u64, geometry: &Geometry) -> Result<L2Page> {
        let entry_bytes = geometry.l2_entry_bytes();
        let number = (table + index * entry_bytes) / PAGE;
        Ok(L2Page {
            bytes: self.pages.page(number)?,
            offset: number * PAGE,
            table,
            entry_bytes,
        })
    }
}
