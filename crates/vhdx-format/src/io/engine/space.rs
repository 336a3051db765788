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
    /// [`Corrupt`](ErrorKind::Corrupt) when something overlaps or reaches past the end of the file, and
    /// as reading the BAT.
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
        let mut is_kept = false;
        for found in self.bat_entries() {
            let (index, slot, entry) = found?;
            let (what, number, len, needed, is_present) = match slot {
                BatSlot::Payload { block } => {
                    let (len, needed) =
                        (self.geometry.block_size(), self.geometry.block_len(block));
                    let is_present = matches!(
                        entry.payload_state(),
                        Some(PayloadState::FullyPresent | PayloadState::PartiallyPresent)
                    );
                    // What is left behind the end of a disk that was longer is nobody's.
                    (
                        "payload block",
                        block,
                        len,
                        needed,
                        is_present && needed > 0,
                    )
                }
                BatSlot::Bitmap { chunk } => {
                    let is_present = entry.bitmap_state() == Some(BitmapState::Present);
                    let len = BITMAP_BLOCK_BYTES;
                    ("sector bitmap block", chunk, len, len, is_present)
                }
            };
            let place = entry.file_offset();
            if !is_present {
                is_kept |= place > 0;
                continue;
            }
            let offset = self.tables.entry_offset(index);
            // Were the file to grow, what is missing would be there, as zeros.
            if place
                .checked_add(needed)
                .is_none_or(|end| end > self.file_len())
            {
                return Err(VhdxError::Block {
                    offset,
                    what: format!("{what} {number}"),
                    place,
                    problem: "reaches past the end of the file".into(),
                }
                .into());
            }
            if let Some(other) = taken.take(place, len) {
                return Err(VhdxError::Overlap {
                    structure: "BAT entry",
                    offset,
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
        if is_kept {
            self.take_what_is_kept(&mut taken)?;
        }
        Ok(taken)
    }

    /// Takes the places that blocks without content keep: theirs only if nobody else has them.
    fn take_what_is_kept(&self, taken: &mut Space) -> Result<()> {
        for found in self.bat_entries() {
            let (_, slot, entry) = found?;
            let len = match slot {
                BatSlot::Payload { .. } => self.geometry.block_size(),
                BatSlot::Bitmap { .. } => BITMAP_BLOCK_BYTES,
            };
            let place = entry.file_offset();
            if place >= HEADER_SECTION_BYTES && place < self.file_len() {
                taken.take_if_free(place, len);
            }
        }
        Ok(())
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
            let outcome = self.clear_space(found.place, len);
            self.engine()?.wrote();
            if let Err(error) = outcome {
                self.look_for_space(state)?.give_back(found.place, len);
                return Err(error);
            }
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
