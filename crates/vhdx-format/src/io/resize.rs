//! Another size of the disk.
//!
//! ```text
//!   grow     BAT moved, if it is too short ── what lies behind the old end made zeros
//!            ── barrier ── size
//!   shrink   size ── barrier ── entries behind the new end cleared, their space given back
//! ```
//!
//! Nobody looks behind the end of the disk: a crash before the size changes leaves the old disk, and
//! one after it the new. Growing clears what an earlier, longer life or a crash left there.

use std::ops::Range;

use blockdev_core::{Error, ErrorKind, Result, ZeroFlags};

use super::engine::State;
use crate::image::VhdxImage;
use crate::known::VIRTUAL_DISK_SIZE;
use crate::meta::bat::{BITMAP_BLOCK_BYTES, Source};
use crate::meta::geometry::{BatSlot, Geometry};
use crate::ondisk::bat_entry::{BatEntry, BitmapState, PayloadState};

impl VhdxImage {
    /// Makes the disk `size` bytes long. New bytes read as zeros, also where the parent, of
    /// `below_size` bytes, goes on; bytes beyond a new end are lost. A fixed disk gets the space of
    /// its new blocks set aside.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a size that is not whole logical sectors or is
    /// above 64 TiB, and those of writing; after the latter the image must be reopened.
    pub fn resize(&mut self, size: u64, below_size: u64) -> Result<()> {
        self.engine()?;
        let new = self.geometry.with_virtual_size(size).map_err(|error| {
            let text = format!("a disk of {size} bytes: {error}");
            Error::new(ErrorKind::InvalidInput, text)
        })?;
        if new == self.geometry {
            return Ok(());
        }
        self.as_a_whole(|image| {
            image.announce(image.engine()?)?;
            if size < image.geometry.virtual_size() {
                image.shrink(new)
            } else {
                image.grow(new, below_size)
            }
        })
    }

    /// A change of the image as a whole: one that failed in its middle is not gone on with.
    pub(crate) fn as_a_whole<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outcome = change(self);
        match &self.engine {
            Some(engine) => engine.poisoned_by(outcome),
            None => outcome,
        }
    }

    fn shrink(&mut self, new: Geometry) -> Result<()> {
        let entries = self.tables.entries();
        self.put_size(new.virtual_size())?;
        self.flush_all()?;
        self.become_of(new);
        // Of the longer table, of which the disk no longer knows.
        let first = new.bat_entries(false);
        self.clear_entries(first..entries, |slot| match slot {
            BatSlot::Payload { block } => block >= new.payload_blocks(),
            BatSlot::Bitmap { chunk } => chunk >= new.bitmap_blocks(),
        })?;
        self.flush_all()
    }

    fn grow(&mut self, new: Geometry, below_size: u64) -> Result<()> {
        let old = self.geometry;
        let entries = new.bat_entries(self.has_parent());
        self.move_bat_for(entries)?;
        // Nothing was given up by these: they are the remains of what was.
        self.forget_entries(old.bat_entries(false)..entries, |slot| match slot {
            BatSlot::Payload { block } => block >= old.payload_blocks(),
            BatSlot::Bitmap { chunk } => chunk >= old.bitmap_blocks(),
        })?;
        self.zero_tail(&new)?;
        let hidden = if self.has_parent() { below_size } else { 0 };
        self.hide_below(&new, hidden)?;
        if self.keeps_blocks() {
            for block in old.payload_blocks()..new.payload_blocks() {
                self.set_aside(block)?;
            }
        }
        // It must be stable before anybody can look at it.
        self.flush_all()?;
        self.put_size(new.virtual_size())?;
        self.flush_all()?;
        self.become_of(new);
        Ok(())
    }

    /// Makes the image's own knowledge of its size what the file says.
    fn become_of(&mut self, new: Geometry) {
        self.tables.set_entries(new.bat_entries(self.has_parent()));
        self.structures.items.virtual_disk_size = new.virtual_size();
        self.info.size = new.virtual_size();
        self.geometry = new;
    }

    fn put_size(&self, size: u64) -> Result<()> {
        let _room = self.with_room(self.engine()?)?;
        let table = &self.structures.metadata_table;
        let item = table.require(VIRTUAL_DISK_SIZE)?;
        let offset = table.offset + u64::from(item.offset);
        self.tables.pages().put(offset, &size.to_le_bytes())
    }

    /// Clears the entries of `range` that `wanted` names, and gives up what they refer to.
    fn clear_entries(&self, range: Range<u64>, wanted: impl Fn(BatSlot) -> bool) -> Result<()> {
        self.change_entries(range, |state, slot, entry| {
            if !wanted(slot) {
                return None;
            }
            let place = entry.file_offset();
            match (slot, entry.payload_state(), entry.bitmap_state()) {
                (
                    BatSlot::Payload { .. },
                    Some(PayloadState::FullyPresent | PayloadState::PartiallyPresent),
                    _,
                ) => state.free_later(place, self.geometry.block_size()),
                (BatSlot::Bitmap { .. }, _, Some(BitmapState::Present)) => {
                    state.free_metadata_later(place, BITMAP_BLOCK_BYTES);
                }
                _ => {}
            }
            Some(BatEntry::default())
        })
    }

    /// Clears the entries of `range` that `wanted` names, whatever they refer to.
    pub(crate) fn forget_entries(
        &self,
        range: Range<u64>,
        wanted: impl Fn(BatSlot) -> bool,
    ) -> Result<()> {
        self.change_entries(range, |_, slot, _| wanted(slot).then(BatEntry::default))
    }

    /// Makes entries of `range` what `change` gives for them. Pages that the host does not store are
    /// zeros, and stay so.
    fn change_entries(
        &self,
        range: Range<u64>,
        change: impl Fn(&mut State, BatSlot, BatEntry) -> Option<BatEntry>,
    ) -> Result<()> {
        let engine = self.engine()?;
        let mut index = range.start;
        while index < range.end {
            let mut state = self.with_room(engine)?;
            let page = self.tables.bat_page(index)?;
            if page.is_zero() {
                index = self.tables.skip_hole(page.end())?.max(page.end());
                continue;
            }
            for index in index..page.end().min(range.end) {
                let entry = page.entry(index).expect("the page was asked for");
                if let Some(new) = change(&mut state, self.geometry.entry_at(index), entry) {
                    self.set_entry(index, new)?;
                }
            }
            index = page.end();
        }
        Ok(())
    }

    /// Makes what the last block holds behind the end of the disk zeros.
    fn zero_tail(&self, new: &Geometry) -> Result<()> {
        let old_end = self.geometry.virtual_size();
        let Some(block) = self.straddling_block() else {
            return Ok(());
        };
        let (Source::Data(place) | Source::Partial(place)) = self.block_source(block)? else {
            return Ok(());
        };
        let tail = old_end..new.block_range(block).end;
        self.lengthen_file(place + new.block_size())?;
        let flags = ZeroFlags {
            may_unmap: !self.keeps_blocks(),
            no_fallback: false,
        };
        let at = place + (tail.start - new.block_range(block).start);
        let outcome = self.zero_in_place(at, tail.end - tail.start, flags);
        self.engine()?.wrote();
        outcome
    }

    /// The block in which the disk ends, if it does not end with it.
    fn straddling_block(&self) -> Option<u64> {
        let end = self.geometry.virtual_size();
        (!end.is_multiple_of(self.geometry.block_size())).then(|| self.geometry.block_of(end))
    }

    /// Makes what the parent has from the old end on, up to its own end at `below_size`, zeros.
    fn hide_below(&self, new: &Geometry, below_size: u64) -> Result<()> {
        let old_end = self.geometry.virtual_size();
        let end = below_size.min(new.virtual_size());
        if end <= old_end {
            return Ok(());
        }
        let engine = self.engine()?;
        if let Some(block) = self.straddling_block() {
            let tail = old_end..new.block_range(block).end;
            let mut state = self.with_room(engine)?;
            match self.block_source(block)? {
                Source::Partial(_) => self.put_present(block, &tail)?,
                Source::Absent => {
                    let place = self.take_cleared(&mut state, new.block_size())?;
                    self.set_partial(&mut state, block, place, &tail)?;
                }
                Source::Data(_) | Source::Zero => {}
            }
        }
        for block in self.geometry.payload_blocks()..end.div_ceil(new.block_size()) {
            let _room = self.with_room(engine)?;
            self.set_payload(block, PayloadState::Zero, 0)?;
        }
        Ok(())
    }

    /// Gives payload block `block`, of zeros, its place and its space.
    pub(crate) fn set_aside(&self, block: u64) -> Result<()> {
        let mut state = self.with_room(self.engine()?)?;
        let len = self.geometry.block_size();
        let place = self.take_cleared(&mut state, len)?;
        self.storage.zero_range(place, len)?;
        self.engine()?.wrote();
        self.set_payload(block, PayloadState::FullyPresent, place)
    }
}
