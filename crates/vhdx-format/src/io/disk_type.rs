//! Another type of disk, in place ([MS-VHDX] §1.3).
//!
//! ```text
//!   dynamic ─► fixed          every block gets its space ── barrier ── LeaveBlockAllocated
//!   fixed ─► dynamic          LeaveBlockAllocated cleared
//!   differencing ─► dynamic   what is the parent's is copied ── barrier ── bitmaps given up
//!                             ── barrier ── HasParent and locator cleared
//!   dynamic ─► differencing   blocks that are not present are zeros by state ── barrier ──
//!                             HasParent and locator
//! ```
//!
//! What the disk reads is the same before, between and after.

use blockdev_core::{Below, Error, ErrorKind, ExtentKind, Result, ZeroFlags, is_zero};
use zerocopy::IntoBytes;

use super::relink::locator_of;
use super::write::Content;
use crate::image::{DiskType, VhdxImage};
use crate::known::{FILE_PARAMETERS, PARENT_LOCATOR};
use crate::meta::bat::{BITMAP_BLOCK_BYTES, ReadSemantics, Source};
use crate::meta::geometry::BatSlot;
use crate::meta::metadata_edit::ItemChange;
use crate::ondisk::MIB;
use crate::ondisk::bat_entry::{BatEntry, BitmapState, PayloadState};
use crate::ondisk::metadata_items::{HAS_PARENT, LEAVE_BLOCK_ALLOCATED, RawFileParameters};
use crate::parent_link::ParentLink;

impl VhdxImage {
    /// Makes a dynamic disk a fixed one: every block gets its space, in the order of the disk as far as
    /// it has none.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a differencing disk, and those of writing,
    /// [`NoSpace`](ErrorKind::NoSpace) among them; after these the image must be reopened.
    pub fn make_fixed(&mut self) -> Result<()> {
        self.expect_type(&[DiskType::Dynamic, DiskType::Fixed])?;
        self.as_a_whole(|image| {
            image.announce_unseen(image.engine()?)?;
            for block in 0..image.geometry.payload_blocks() {
                if !matches!(image.block_source(block)?, Source::Data(_)) {
                    image.set_aside(block)?;
                }
            }
            image.flush_all()?;
            image.change_items(&[image.file_parameters(LEAVE_BLOCK_ALLOCATED)])
        })
    }

    /// Makes a fixed disk a dynamic one. Its blocks keep their space until they are discarded, or
    /// [`compact`](Self::compact) finds them to be zeros.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a differencing disk, and those of writing; after
    /// these the image must be reopened.
    pub fn make_dynamic(&mut self) -> Result<()> {
        self.expect_type(&[DiskType::Dynamic, DiskType::Fixed])?;
        self.as_a_whole(|image| {
            image.announce_unseen(image.engine()?)?;
            image.change_items(&[image.file_parameters(0)])
        })
    }

    /// Makes a differencing disk a dynamic one that reads the same without its parent: copies what it
    /// has from `below`, the disk that it lies over.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a disk without parent, and those of reading and
    /// writing; after these the image must be reopened.
    pub fn make_standalone(&mut self, below: &dyn Below) -> Result<()> {
        self.expect_type(&[DiskType::Differencing])?;
        self.as_a_whole(|image| {
            image.announce_unseen(image.engine()?)?;
            image.take_over(below)?;
            image.make_whole()?;
            image.flush_all()?;
            image.give_up_bitmaps()?;
            image.flush_all()?;
            let parameters = image.file_parameters(0);
            image.change_items(&[parameters, ItemChange::Remove(PARENT_LOCATOR)])?;
            image.tables.set_entries(image.geometry.bat_entries(false));
            Ok(())
        })
    }

    /// Makes a dynamic disk a differencing one over the parent that `link` tells of, of which it shows
    /// nothing at first: blocks that are not present become zeros by their state. What is given up by
    /// [`discard`](blockdev_core::Layer::discard) to the parent shows it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a disk that is not dynamic, for a parent of other
    /// sector sizes, and for what a locator cannot say; those of writing, after which the image must be
    /// reopened.
    pub fn make_differencing(&mut self, link: &ParentLink) -> Result<()> {
        self.expect_type(&[DiskType::Dynamic])?;
        let locator = locator_of(link)?.encode();
        let own = self.items().logical_sector_size;
        if link.sector_sizes.is_some_and(|(logical, _)| logical != own) {
            let text = "the logical sectors of parent and child must be of one size";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        self.as_a_whole(|image| {
            image.announce_unseen(image.engine()?)?;
            let entries = image.geometry.bat_entries(true);
            image.move_bat_for(entries)?;
            for block in 0..image.geometry.payload_blocks() {
                let _room = image.with_room(image.engine()?)?;
                if image.block_source(block)? == Source::Absent {
                    image.set_payload(block, PayloadState::Zero, 0)?;
                }
            }
            // Bitmap entries of a disk that had no use for them.
            let blocks = image.geometry.payload_blocks();
            let first = image.geometry.bat_entries(false);
            image.forget_entries(0..entries, |slot| matches!(slot, BatSlot::Bitmap { .. }))?;
            image.forget_entries(first..entries, |slot| match slot {
                BatSlot::Payload { block } => block >= blocks,
                BatSlot::Bitmap { .. } => false,
            })?;
            image.flush_all()?;
            let parameters = image.file_parameters(HAS_PARENT);
            image.change_items(&[parameters, ItemChange::Put(PARENT_LOCATOR, locator)])?;
            image.tables.set_entries(entries);
            Ok(())
        })
    }

    fn expect_type(&self, types: &[DiskType]) -> Result<()> {
        self.engine()?;
        if types.contains(&self.disk_type()) {
            return Ok(());
        }
        let text = format!(
            "that is not possible with a {} disk",
            self.disk_type().as_str()
        );
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    fn file_parameters(&self, flags: u32) -> ItemChange {
        let parameters = RawFileParameters {
            block_size: self.items().file_parameters.block_size.into(),
            flags: flags.into(),
        };
        ItemChange::Put(FILE_PARAMETERS, parameters.as_bytes().to_vec())
    }

    /// Copies everything that is the parent's.
    fn take_over(&self, below: &dyn Below) -> Result<()> {
        let engine = self.engine()?;
        let size = self.geometry.virtual_size();
        let mut buffer = vec![0; usize::try_from(MIB).expect("1 MiB")];
        let mut at = 0;
        while at < size {
            let block = self.geometry.block_of(at);
            let whole = self.geometry.block_range_in_disk(block);
            let run = self.next_run(at, size - at, ReadSemantics::Effective)?;
            if run.kind != ExtentKind::Absent {
                at += run.len;
                continue;
            }
            let is_whole = at == whole.start && run.len >= whole.end - whole.start;
            if is_whole {
                // Blocks that are not present read as zeros without a parent as well.
                let end = at + self.known_zeros(below, at, run.len)?;
                let last = self
                    .geometry
                    .block_range_in_disk(self.geometry.block_of(end.min(size - 1)));
                let end = if end == size { end } else { last.start };
                if end > at {
                    at = end;
                    continue;
                }
            }
            if is_whole && below_is_zero(below, &whole, &mut buffer)? {
                self.zero_by_state(engine, block, ZeroFlags::default(), PayloadState::Zero)?;
                at = whole.end;
                continue;
            }
            let end = (at + run.len.min(MIB)).min(whole.end);
            let piece = &mut buffer[..usize::try_from(end - at).expect("at most 1 MiB")];
            below.read_at(piece, at)?;
            self.put_in_block(engine, at..end, Content::Bytes(piece), below)?;
            at = end;
        }
        Ok(())
    }

    /// How many bytes at `offset` of what lies below are known to be zeros, of at most `len`.
    fn known_zeros(&self, below: &dyn Below, offset: u64, len: u64) -> Result<u64> {
        let mut done = 0;
        while done < len {
            let run = below.next_run(offset + done, len - done)?;
            if !run.is_zero {
                break;
            }
            done += run.len;
        }
        Ok(done)
    }

    /// Makes blocks fully present of which everything is there, though nobody had cause to notice.
    fn make_whole(&self) -> Result<()> {
        let engine = self.engine()?;
        for found in self.bat_entries() {
            let (_, BatSlot::Payload { block }, entry) = found? else {
                continue;
            };
            if entry.payload_state() == Some(PayloadState::PartiallyPresent)
                && self.geometry.block_len(block) > 0
            {
                let _room = self.with_room(engine)?;
                self.set_payload(block, PayloadState::FullyPresent, entry.file_offset())?;
            }
        }
        Ok(())
    }

    /// Gives up sector bitmap blocks, which no block needs any more.
    fn give_up_bitmaps(&self) -> Result<()> {
        let engine = self.engine()?;
        for found in self.bat_entries() {
            let (index, BatSlot::Bitmap { .. }, entry) = found? else {
                continue;
            };
            let mut state = self.with_room(engine)?;
            self.set_entry(index, BatEntry::default())?;
            if entry.bitmap_state() == Some(BitmapState::Present) {
                state.free_metadata_later(entry.file_offset(), BITMAP_BLOCK_BYTES);
            }
        }
        Ok(())
    }
}

fn below_is_zero(
    below: &dyn Below,
    range: &std::ops::Range<u64>,
    buffer: &mut [u8],
) -> Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let piece = left.min(buffer.len());
        below.read_at(&mut buffer[..piece], at)?;
        if !is_zero(&buffer[..piece]) {
            return Ok(false);
        }
        at += piece as u64;
    }
    Ok(true)
}
