//! Less space for the same disk, in place.
//!
//! ```text
//!   1  fully present blocks of zeros become ZERO blocks, their space is free
//!   ── flush ──
//!   2  blocks at the end are copied into gaps ── barrier ── entries refer to the copies
//!   ── flush, the log is emptied ──
//!   3  the file is cut behind what is left
//! ```
//!
//! Each step leaves the same disk, so a crash between or in them leaves one that is less compact.

use std::sync::atomic::Ordering;

use blockdev_core::{Error, ErrorKind, Progress, Result, SyncKind, is_zero};

use super::engine::Engine;
use crate::image::VhdxImage;
use crate::meta::bat::BITMAP_BLOCK_BYTES;
use crate::meta::free_space::FreeSpace;
use crate::meta::geometry::BatSlot;
use crate::ondisk::MIB;
use crate::ondisk::bat_entry::{BatEntry, BitmapState, PayloadState};

/// What compacting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Compacted {
    /// Blocks that held nothing but zeros, and are without space now.
    pub dropped_blocks: u64,
    /// Blocks that lie elsewhere now, those of sector bitmaps included.
    pub moved_blocks: u64,
    /// Length of the file in bytes before.
    pub old_length: u64,
    /// Length of the file in bytes now.
    pub new_length: u64,
}

impl VhdxImage {
    /// Makes the file as short as it can be without a change of what the disk reads: blocks of zeros
    /// lose their space (not in a fixed disk), others are moved towards the start of the file, which is
    /// cut at its end. The identity of the content stays, so that children find their parent.
    ///
    /// `progress` counts the bytes of the disk that are stored.
    ///
    /// # Errors
    /// Those of reading and writing; the image must be reopened then.
    /// [`InvalidInput`](ErrorKind::InvalidInput) when `progress` cancels: what was done stays done.
    pub fn compact(&mut self, progress: &dyn Progress) -> Result<Compacted> {
        self.engine()?;
        let mut done = Compacted {
            old_length: self.storage.len()?,
            ..Compacted::default()
        };
        let was_cancelled = self.as_a_whole(|image| {
            let engine = image.engine()?;
            image.announce_unseen(engine)?;
            if !image.keeps_blocks() {
                image.drop_zeros(engine, progress, &mut done.dropped_blocks)?;
            }
            // Gaps are those that are stable.
            image.finish()?;
            image.move_down(engine, progress, &mut done.moved_blocks)?;
            image.finish()?;
            done.new_length = image.cut(engine)?;
            Ok(progress.is_cancelled())
        })?;
        if was_cancelled {
            return Err(Error::new(ErrorKind::InvalidInput, "cancelled"));
        }
        Ok(done)
    }

    fn drop_zeros(
        &self,
        engine: &Engine,
        progress: &dyn Progress,
        dropped: &mut u64,
    ) -> Result<()> {
        let mut buffer = vec![0; usize::try_from(MIB).expect("1 MiB")];
        progress.start(self.geometry.virtual_size());
        for found in self.bat_entries() {
            let (index, slot, entry) = found?;
            let BatSlot::Payload { block } = slot else {
                continue;
            };
            if progress.is_cancelled() {
                break;
            }
            let len = self.geometry.block_len(block);
            progress.advance(len);
            let (state, freed) = match entry.payload_state() {
                // The remains of a disk that was longer.
                _ if len == 0 => (PayloadState::NotPresent, 0),
                Some(PayloadState::FullyPresent)
                    if self.is_stored_zero(entry.file_offset(), len, &mut buffer)? =>
                {
                    *dropped += 1;
                    (PayloadState::Zero, self.geometry.block_size())
                }
                Some(PayloadState::FullyPresent | PayloadState::PartiallyPresent) | None => {
                    continue;
                }
                // A place that is kept for content which nobody relies on.
                Some(state) => (state, 0),
            };
            let mut room = self.with_room(engine)?;
            self.set_entry(index, BatEntry::payload(state, 0))?;
            if freed > 0 {
                room.free_later(entry.file_offset(), freed);
            }
        }
        Ok(())
    }

    /// True when `len` bytes from byte `at` of the file are zeros.
    fn is_stored_zero(&self, at: u64, len: u64, buffer: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while done < len {
            let host = self.storage.next_extent(at + done)?;
            let run = host.len.min(len - done);
            if !host.allocated {
                done += run;
                continue;
            }
            let piece = usize::try_from(run).map_or(buffer.len(), |run| run.min(buffer.len()));
            self.storage.read_at(&mut buffer[..piece], at + done)?;
            if !is_zero(&buffer[..piece]) {
                return Ok(false);
            }
            done += piece as u64;
        }
        Ok(true)
    }

    /// Moves blocks from the end of the file into gaps before them, as long as that makes it shorter.
    fn move_down(&self, engine: &Engine, progress: &dyn Progress, moved: &mut u64) -> Result<()> {
        loop {
            let taken = self.taken_space()?;
            let mut gaps = 0;
            taken.for_each_gap(taken.end(), |gap| gaps += gap.len());
            // There the file would end if it had no gaps.
            let end = taken.end() - gaps;
            let free = FreeSpace::new(&taken, self.file_len());
            engine.lock().set_space(free);
            let now = self.move_from_behind(engine, end, progress)?;
            if now == 0 {
                return Ok(());
            }
            *moved += now;
            // Their old places are gaps for others when that is stable.
            self.finish()?;
        }
    }

    fn move_from_behind(&self, engine: &Engine, end: u64, progress: &dyn Progress) -> Result<u64> {
        let mut moved = 0;
        for found in self.bat_entries() {
            let (index, slot, entry) = found?;
            let (len, is_bitmap) = match (slot, entry.payload_state(), entry.bitmap_state()) {
                (
                    BatSlot::Payload { .. },
                    Some(PayloadState::FullyPresent | PayloadState::PartiallyPresent),
                    _,
                ) => (self.geometry.block_size(), false),
                (BatSlot::Bitmap { .. }, _, Some(BitmapState::Present)) => {
                    (BITMAP_BLOCK_BYTES, true)
                }
                _ => continue,
            };
            if matches!(slot, BatSlot::Payload { block } if self.geometry.block_len(block) == 0) {
                continue;
            }
            let old = entry.file_offset();
            if progress.is_cancelled() {
                break;
            }
            if old + len <= end {
                continue;
            }
            if is_bitmap {
                // Its pages are in memory, perhaps newer than in the file.
                self.settle()?;
            }
            let mut state = self.with_room(engine)?;
            let Some(new) = self.look_for_space(&mut state)?.take_below(old, len) else {
                continue;
            };
            self.clear_space(new, len)?;
            self.copy_stored(old, new, len)?;
            self.set_entry(index, BatEntry(entry.0 - old + new))?;
            if is_bitmap {
                self.tables.pages().changed_in_place(new, len)?;
                state.free_metadata_later(old, len);
            } else {
                state.free_later(old, len);
            }
            moved += 1;
        }
        Ok(moved)
    }

    /// Cuts the file behind everything that is in it. The log is empty, so that no entry speaks of a
    /// longer file.
    fn cut(&self, engine: &Engine) -> Result<u64> {
        let taken = self.taken_space()?;
        let mut log = engine.turn()?;
        let mut state = engine.lock();
        let end = taken.end();
        if end < self.file_len() {
            self.storage.set_len(end)?;
            engine.poisoned_by(self.storage.sync(SyncKind::Full))?;
            self.file_len.store(end, Ordering::Release);
            log.stable_len = end;
        }
        state.set_space(FreeSpace::new(&taken, self.file_len()));
        Ok(self.file_len())
    }
}
