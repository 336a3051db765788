//! Repair: what can be told for certain is made right, what cannot be is given up by name.
//!
//! ```text
//!   1  the log is replayed, as by every writable open
//!   2  a torn header is written anew from the one that holds
//!   3  one log entry: a damaged region table from the one that holds, reserved bits cleared,
//!      entries of the BAT that lead nowhere made UNDEFINED
//! ```
//!
//! A crash leaves an image that is repaired again.

use std::sync::Arc;

use blockdev_core::{CheckReport, OpenMode, OpenOptions, Recovery, Result, Storage, StorageExt};

use super::check::check;
use super::inspect;
use crate::image::VhdxImage;
use crate::meta::bat::{BITMAP_BLOCK_BYTES, ReadSemantics, Source, bitmap_place, payload_source};
use crate::meta::geometry::BatSlot;
use crate::meta::space::Space;
use crate::ondisk::bat_entry::{BatEntry, PayloadState};
use crate::ondisk::region_table::{self, OFFSETS};

/// Blocks that are listed by number; more are counted only.
const MOST_LISTED: usize = 10_000;

/// What a repair found and left.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Repaired {
    /// The check before.
    pub before: CheckReport,
    /// The check after.
    pub after: CheckReport,
    /// Payload blocks whose content was lost, by number; the first 10,000. They are UNDEFINED now,
    /// which this library reads as zeros.
    pub lost_blocks: Vec<u64>,
    /// How many these are in all.
    pub lost_count: u64,
}

/// Repairs the VHDX file in `storage`, which nobody else has open: replays its log, makes both headers
/// and both region tables valid where one is, and gives up blocks whose BAT entry is impossible (a
/// reserved state, a place outside the file, in a structure or in another block, a sector bitmap that
/// is not there). An image without fault stays as it is.
///
/// A file that does not open is left alone: what is in it can be salvaged into another image, by
/// [`OpenOptions::salvage`].
///
/// # Errors
/// As [`check`], and those of writing.
pub fn repair(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Repaired> {
    let before = check(Arc::clone(&storage), options)?;
    let mut lost = Lost::default();
    let mut writable = options.clone();
    writable.mode = OpenMode::ReadWrite;
    writable.recovery = Recovery::Auto;
    writable.strict = false;
    let headers = inspect::headers(&*storage)?;
    let is_dirty = headers
        .current()
        .is_ok_and(|header| !header.log_guid.is_nil());
    let is_torn = !headers.copies.iter().all(|copy| copy.is_valid());
    if (before.corruptions > 0 || before.warnings > 0 || is_dirty || is_torn)
        && let Ok(image) = VhdxImage::open(Arc::clone(&storage), &writable)
    {
        image.repair(is_torn, &mut lost)?;
        image.finish()?;
    }
    let after = check(storage, options)?;
    Ok(Repaired {
        before,
        after,
        lost_blocks: lost.listed,
        lost_count: lost.count,
    })
}

#[derive(Debug, Default)]
struct Lost {
    listed: Vec<u64>,
    count: u64,
}

impl Lost {
    fn add(&mut self, block: u64) {
        self.count += 1;
        if self.listed.len() < MOST_LISTED {
            self.listed.push(block);
        }
    }
}

impl VhdxImage {
    fn repair(&self, is_torn: bool, lost: &mut Lost) -> Result<()> {
        let engine = self.engine()?;
        if is_torn {
            // Both copies are written by any change of the header.
            self.announce_repair(engine, false)?;
        }
        self.repair_region_tables()?;
        // A sector bitmap that is given up takes the blocks with it that need it.
        while self.repair_bat(lost)? {
            self.flush_all()?;
        }
        self.flush_all()
    }

    /// Makes both copies of the region table what the one in use says.
    fn repair_region_tables(&self) -> Result<()> {
        let tables = &self.structures.region_tables;
        let current = tables.current()?;
        let mut bytes = vec![0; region_table::BYTES];
        self.storage.read_zero_padded(&mut bytes, current.offset)?;
        let engine = self.engine()?;
        for (copy, offset) in tables.copies.iter().zip(OFFSETS) {
            if !copy.is_valid() || !copy.says_the_same(current) {
                self.announce_repair(engine, false)?;
                let _room = self.with_room(engine)?;
                self.tables.pages().put(offset, &bytes)?;
            }
        }
        Ok(())
    }

    /// Makes entries of the BAT that are impossible such that they are not; true when there were any.
    fn repair_bat(&self, lost: &mut Lost) -> Result<bool> {
        let engine = self.engine()?;
        let mut space = Space::new(self.fixed_structures());
        let mut changed = false;
        for found in self.bat_entries() {
            let (index, slot, entry) = found?;
            let mut loses = false;
            let right = match slot {
                BatSlot::Payload { block } => {
                    let right = self.right_payload(&mut space, index, block, entry);
                    if right.is_none() {
                        loses = true;
                        lost.add(block);
                    }
                    right.unwrap_or(BatEntry::payload(PayloadState::Undefined, 0))
                }
                BatSlot::Bitmap { chunk } => self.right_bitmap(&mut space, index, chunk, entry),
            };
            if right != entry {
                self.announce_repair(engine, loses)?;
                let _room = self.with_room(engine)?;
                self.set_entry(index, right)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// What the entry of a payload block should be; `None` when its content is lost.
    fn right_payload(
        &self,
        space: &mut Space,
        index: u64,
        block: u64,
        entry: BatEntry,
    ) -> Option<BatEntry> {
        let needed = self.geometry.block_len(block);
        if needed == 0 {
            return Some(BatEntry::default());
        }
        let offset = self.tables.entry_offset(index);
        let semantics = ReadSemantics::Effective;
        let source = payload_source(entry, offset, block, needed, self.frame(), semantics).ok()?;
        if let Source::Partial(_) = source {
            let chunk = self.geometry.chunk_of(block);
            let index = self.geometry.bitmap_index(chunk);
            let (_, bitmap) = self.bat_entry(index).ok()??;
            let offset = self.tables.entry_offset(index);
            bitmap_place(bitmap, offset, chunk, self.file_len()).ok()?;
        }
        if let Source::Data(place) | Source::Partial(place) = source
            && space.take(place, self.geometry.block_size()).is_some()
        {
            return None;
        }
        let state = entry.payload_state()?;
        Some(BatEntry::payload(state, entry.file_offset()))
    }

    fn right_bitmap(&self, space: &mut Space, index: u64, chunk: u64, entry: BatEntry) -> BatEntry {
        let offset = self.tables.entry_offset(index);
        let place = match bitmap_place(entry, offset, chunk, self.file_len()) {
            Ok(place) if self.has_parent() => place,
            _ => return BatEntry::default(),
        };
        match space.take(place, BITMAP_BLOCK_BYTES) {
            None => BatEntry::bitmap(place),
            Some(_) => BatEntry::default(),
        }
    }
}
