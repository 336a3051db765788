//! Space for blocks: gaps that nothing refers to, then the end of the file.

use blockdev_core::{ByteRange, ErrorKind, Result};

use super::State;
use crate::VhdxError;
use crate::image::VhdxImage;
use crate::meta::bat::BITMAP_BLOCK_BYTES;
use crate::meta::free_space::{Found, FreeSpace};
use crate::meta::geometry::BatSlot;
use crate::meta::space::Space;
use crate::ondisk::HEADER_SECTION_BYTES;
use crate::ondisk::bat_entry::{BitmapState, PayloadState};

impl VhdxImage {
    /// What space there is. The first time, every entry of the BAT is gone through: guest bytes must
    /// not be written where two blocks, or a block and a structure, overlap.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) when something overlaps, and as reading the BAT.
    pub(crate) fn look_for_space<'a>(&self, state: &'a mut State) -> Result<&'a mut FreeSpace> {
        if state.space.is_none() {
            state.space = Some(self.find_space()?);
        }
        Ok(state.space.as_mut().expect("just put there"))
    }

    fn find_space(&self) -> Result<FreeSpace> {
        Ok(FreeSpace::new(&self.taken_space()?, self.file_len()))
    }

    /// What of the file something lies in.
    ///
    /// # Errors
    /// As [`look_for_space`](Self::look_for_space).
    pub(crate) fn taken_space(&self) -> Result<Space> {
        let mut taken = Space::new(self.fixed_structures());
        // What blocks without content keep is theirs only if nobody else has it.
        let mut kept = Vec::new();
        for found in self.bat_entries() {
            let (index, slot, entry) = found?;
            let (what, len, present) = match slot {
                BatSlot::Payload { block } => {
                    let present = matches!(
                        entry.payload_state(),
                        Some(PayloadState::FullyPresent | PayloadState::PartiallyPresent)
                    );
                    // What is left behind the end of a disk that was longer is nobody's.
                    let present = present && self.geometry.block_len(block) > 0;
                    (
                        "payload block",
                        self.geometry.block_size(),
                        (block, present),
                    )
                }
                BatSlot::Bitmap { chunk } => {
                    let present = entry.bitmap_state() == Some(BitmapState::Present);
                    ("sector bitmap block", BITMAP_BLOCK_BYTES, (chunk, present))
                }
            };
            let (number, is_present) = present;
            let place = entry.file_offset();
            if !is_present {
                if place >= HEADER_SECTION_BYTES && place < self.file_len() {
                    kept.push((place, len));
                }
                continue;
            }
            if let Some(other) = taken.take(place, len) {
                return Err(VhdxError::Overlap {
                    structure: "BAT entry",
                    offset: self.tables.entry_offset(index),
                    what: format!("{what} {number} at {place:#x}"),
                    other: other.to_owned(),
                }
                .into());
            }
        }
        if taken.is_incomplete() {
            let text = "blocks lie too far apart to be accounted for";
            return Err(blockdev_core::Error::new(ErrorKind::LimitExceeded, text));
        }
        for (place, len) in kept {
            taken.take_if_free(place, len);
        }
        Ok(taken)
    }

    /// Everything but blocks that has a place in the file.
    pub(crate) fn fixed_structures(&self) -> Vec<(ByteRange, String)> {
        let header_section = ByteRange::new(0, HEADER_SECTION_BYTES).expect("1 MiB");
        let mut fixed = vec![(header_section, "the header section".to_owned())];
        fixed.extend(
            self.header()
                .log_range()
                .map(|log| (log, "the log".to_owned())),
        );
        if let Ok(table) = self.structures.region_tables.current() {
            let regions = table.entries.iter();
            fixed.extend(
                regions.filter_map(|entry| Some((entry.range()?, format!("the {}", entry.name())))),
            );
        }
        fixed
    }

    /// Finds `len` bytes for a block and makes the file long enough for them.
    ///
    /// # Errors
    /// [`NoSpace`](ErrorKind::NoSpace), [`Io`](ErrorKind::Io); nothing is taken then.
    pub(crate) fn take_space(&self, state: &mut State, len: u64) -> Result<Found> {
        let space = self.look_for_space(state)?;
        let found = space.take(len);
        if let Err(error) = self.lengthen_file(space.end()) {
            space.give_back(found.place, len);
            return Err(error);
        }
        Ok(found)
    }

    /// The same, of zeros whatever was there; gives the place.
    pub(crate) fn take_cleared(&self, state: &mut State, len: u64) -> Result<u64> {
        let found = self.take_space(state, len)?;
        if !found.is_fresh {
            self.clear_space(found.place, len)?;
            self.engine()?.wrote();
            self.tables.pages().changed_in_place(found.place, len)?;
        }
        Ok(found.place)
    }

    /// Makes the file at least `len` bytes long.
    pub(crate) fn lengthen_file(&self, len: u64) -> Result<()> {
        if len > self.file_len() {
            self.storage.set_len(len)?;
            self.raise_file_len(len);
        }
        Ok(())
    }

    /// Makes space that was used before read as zeros.
    pub(crate) fn clear_space(&self, place: u64, len: u64) -> Result<()> {
        match self.storage.punch_hole(place, len) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.storage.zero_range(place, len)
            }
            other => other,
        }
    }
}
