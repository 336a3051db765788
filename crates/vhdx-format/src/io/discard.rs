//! Giving guest bytes up: whole blocks by their state, parts in place.

use std::ops::Range;

use blockdev_core::{DiscardMode, ErrorKind, ExtentKind, Result, ZeroFlags, ZerosBelow};

use super::engine::Engine;
use super::write::Content;
use super::zero::Done;
use crate::image::VhdxImage;
use crate::meta::bat::Source;
use crate::ondisk::bat_entry::PayloadState;

const UNMAP: ZeroFlags = ZeroFlags {
    may_unmap: true,
    no_fallback: false,
};
const ONLY_UNMAP: ZeroFlags = ZeroFlags {
    may_unmap: true,
    no_fallback: true,
};

impl VhdxImage {
    /// Gives back the space of `len` bytes from guest byte `offset`; the range lies inside the disk.
    pub(crate) fn discard_guest(&self, offset: u64, len: u64, mode: DiscardMode) -> Result<()> {
        match mode {
            DiscardMode::ToParent if self.has_parent() => self.discard_to_parent(offset, len),
            DiscardMode::ToZero | DiscardMode::ToParent => {
                // Whole sectors: what completes others may be the parent's, which is not at hand.
                let guest = self.geometry.sectors_within(&(offset..offset + len));
                self.zero_guest(guest.start, guest.end - guest.start, UNMAP, &ZerosBelow)
            }
            DiscardMode::Best => self.discard_best(offset, len),
        }
    }

    fn discard_best(&self, offset: u64, len: u64) -> Result<()> {
        if self.keeps_blocks() {
            // There is nothing to give back, and the content may stay.
            return self.engine().map(drop);
        }
        let empty = if self.has_parent() {
            PayloadState::Unmapped
        } else {
            PayloadState::NotPresent
        };
        self.for_each_part(offset, len, |engine, part, run| {
            if matches!(run, ExtentKind::Zero | ExtentKind::Absent) {
                // Nothing is stored, and what is below stays as it is.
                return Ok(Done::Run);
            }
            self.announce(engine)?;
            let block = self.geometry.block_of(part.start);
            if part != self.geometry.block_range_in_disk(block)
                || !self.zero_by_state(engine, block, UNMAP, empty)?
            {
                self.punch_in_block(engine, block, &part)?;
            }
            Ok(Done::Part)
        })
    }

    /// Gives back the space of the whole sectors of `guest` that payload block `block` has.
    fn punch_in_block(&self, engine: &Engine, block: u64, guest: &Range<u64>) -> Result<()> {
        let sectors = self.geometry.sectors_within(guest);
        if sectors.is_empty() {
            return Ok(());
        }
        let mut state = engine.idle(engine.lock(), &sectors);
        let (Source::Data(place) | Source::Partial(place)) = self.block_source(block)? else {
            return Ok(());
        };
        // Sectors that are the parent's have nothing here that anybody sees, but none of them may
        // become present meanwhile.
        engine.hold(&mut state, sectors.clone());
        drop(state);
        let outcome = self.put(place, block, &sectors, Content::Zeros(ONLY_UNMAP));
        engine.wrote();
        engine.release(&mut engine.lock(), &sectors);
        match outcome {
            // A discard is leave to free space, not an order.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }

    /// Makes whole sectors those of the parent again.
    fn discard_to_parent(&self, offset: u64, len: u64) -> Result<()> {
        let guest = self.geometry.sectors_within(&(offset..offset + len));
        self.for_each_part(guest.start, guest.end - guest.start, |engine, part, run| {
            if run == ExtentKind::Absent {
                return Ok(Done::Run);
            }
            self.announce(engine)?;
            self.release_in_block(engine, &part)?;
            Ok(Done::Part)
        })
    }

    fn release_in_block(&self, engine: &Engine, guest: &Range<u64>) -> Result<()> {
        let block = self.geometry.block_of(guest.start);
        let block_size = self.geometry.block_size();
        let whole = self.geometry.block_range(block);
        let mut state = self.ready(engine, &whole)?;
        let is_whole = *guest == self.geometry.block_range_in_disk(block);
        match self.block_source(block)? {
            Source::Absent => Ok(()),
            source if is_whole => {
                self.set_payload(block, PayloadState::NotPresent, 0)?;
                if let Source::Data(place) | Source::Partial(place) = source {
                    state.free_later(place, block_size);
                }
                Ok(())
            }
            Source::Partial(place) => self.take_present(&mut state, block, place, guest, false),
            Source::Data(place) => self.take_present(&mut state, block, place, guest, true),
            Source::Zero => {
                let place = self.take_cleared(&mut state, block_size)?;
                self.take_present(&mut state, block, place, guest, true)
            }
        }
    }
}
