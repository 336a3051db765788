//! Changing metadata items ([MS-VHDX] §2.6), all of them in one log entry.

use blockdev_core::{Error, ErrorKind, PAGE_BYTES, Result};

use super::open::load_metadata;
use crate::image::VhdxImage;
use crate::known::METADATA_REGION;
use crate::meta::metadata_edit::{ItemChange, edit};
use crate::ondisk::metadata_table;

impl VhdxImage {
    /// Makes the system items what `changes` say, which is stable when this returns; what is known of
    /// them here follows.
    ///
    /// # Errors
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) when the metadata region or one log entry has no
    /// room for them; nothing is changed then.
    pub(crate) fn change_items(&mut self, changes: &[ItemChange]) -> Result<()> {
        let engine = self.engine()?;
        let region = *self
            .structures
            .region_tables
            .current()?
            .require(METADATA_REGION)?;
        let region = region.range().expect("a region that ends inside the file");
        self.settle()?;
        let mut table = vec![0; metadata_table::BYTES];
        self.storage.read_at(&mut table, region.start())?;
        let full = |what: &str| {
            let text = format!("{what} has no room for the changed metadata items");
            Error::new(ErrorKind::LimitExceeded, text)
        };
        let placed = edit(&mut table, region.len(), changes).ok_or_else(|| full("the region"))?;
        let pages = |len: usize| len / PAGE_BYTES + 2;
        let most: usize = placed.iter().map(|(_, bytes)| pages(bytes.len())).sum();
        if most + pages(table.len()) > engine.most_pages() {
            return Err(full("the log"));
        }
        {
            let _whole = engine.lock();
            for (at, bytes) in &placed {
                self.tables.pages().put(region.start() + at, bytes)?;
            }
            self.tables.pages().put(region.start(), &table)?;
        }
        // What is read back is what other readers find.
        self.settle()?;
        let (table, items) = load_metadata(&*self.storage, region, false)?;
        let sector = items.logical_sector_size;
        self.refs = items
            .parent_locator
            .iter()
            .map(|l| l.file_ref(sector))
            .collect();
        self.structures.metadata_table = table;
        self.structures.items = items;
        Ok(())
    }
}
