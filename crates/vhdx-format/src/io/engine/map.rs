//! Changes of the mapping: BAT entries and the bits of sector bitmaps. Each call is one change that is
//! logged whole; the caller holds the state, with room in the open batch.

use std::ops::Range;

use blockdev_core::{PAGE_BYTES, Result};

use super::State;
use crate::image::VhdxImage;
use crate::meta::bat::{BITMAP_BLOCK_BYTES, bitmap_place};
use crate::meta::bitmap;
use crate::ondisk::bat_entry::{BatEntry, BitmapState, PayloadState};

/// Bits in a page of a sector bitmap.
const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

impl VhdxImage {
    /// Makes the BAT entry of payload block `block` say so.
    pub(crate) fn set_payload(&self, block: u64, state: PayloadState, place: u64) -> Result<()> {
        let index = self.geometry.payload_index(block);
        self.set_entry(index, BatEntry::payload(state, place))
    }

    /// Makes BAT entry number `index` `entry`.
    pub(crate) fn set_entry(&self, index: u64, entry: BatEntry) -> Result<()> {
        self.tables.set_entry(index, entry)
    }

    /// Makes payload block `block`, which was not present, present at `place` in the sectors of the
    /// guest bytes `present`, and in no other (§2.5.1.1): whatever bits an earlier life left are reset.
    pub(crate) fn set_partial(
        &self,
        state: &mut State,
        block: u64,
        place: u64,
        present: &Range<u64>,
    ) -> Result<()> {
        let bitmap = self.own_bitmap(state, self.geometry.chunk_of(block))?;
        let whole = self.bits_of(&self.geometry.block_range(block));
        let bits = self.bits_of(present);
        self.put_bits(bitmap, whole.start..bits.start, false)?;
        self.put_bits(bitmap, bits.clone(), true)?;
        self.put_bits(bitmap, bits.end..whole.end, false)?;
        self.set_payload(block, PayloadState::PartiallyPresent, place)
    }

    /// Makes the sectors of the guest bytes `present` of payload block `block`, which is partially
    /// present at `place`, present; all of them together make the block fully present.
    pub(crate) fn add_present(&self, block: u64, place: u64, present: &Range<u64>) -> Result<()> {
        self.put_present(block, present)?;
        let bitmap = self.bitmap_of(self.geometry.chunk_of(block))?;
        // What lies behind is what is most often missing.
        let inside = self.bits_of(&self.geometry.block_range_in_disk(block));
        let behind = self.bits_of(present).end..inside.end;
        if self.are_set(bitmap, behind)? && self.are_set(bitmap, inside)? {
            self.set_payload(block, PayloadState::FullyPresent, place)?;
        }
        Ok(())
    }

    /// The same, without a look at the block as a whole.
    pub(crate) fn put_present(&self, block: u64, present: &Range<u64>) -> Result<()> {
        let bitmap = self.bitmap_of(self.geometry.chunk_of(block))?;
        self.put_bits(bitmap, self.bits_of(present), true)
    }

    /// Makes the whole sectors of the guest bytes `absent` of payload block `block`, at `place`, those
    /// of the parent again. `is_full` says that the block was fully present, or is new.
    pub(crate) fn take_present(
        &self,
        state: &mut State,
        block: u64,
        place: u64,
        absent: &Range<u64>,
        is_full: bool,
    ) -> Result<()> {
        let bitmap = self.own_bitmap(state, self.geometry.chunk_of(block))?;
        let bits = self.bits_of(absent);
        if is_full {
            let whole = self.bits_of(&self.geometry.block_range(block));
            self.put_bits(bitmap, whole.start..bits.start, true)?;
            self.put_bits(bitmap, bits.end..whole.end, true)?;
        }
        self.put_bits(bitmap, bits, false)?;
        self.set_payload(block, PayloadState::PartiallyPresent, place)
    }

    /// True when the sectors of the guest bytes `guest` of payload block `block`, which is partially
    /// present, are all there.
    pub(crate) fn is_present(&self, block: u64, guest: &Range<u64>) -> Result<bool> {
        let bitmap = self.bitmap_of(self.geometry.chunk_of(block))?;
        self.are_set(bitmap, self.bits_of(guest))
    }

    /// Where the sector bitmap block of `chunk` is.
    fn bitmap_of(&self, chunk: u64) -> Result<u64> {
        let index = self.geometry.bitmap_index(chunk);
        let page = self.tables.bat_page(index)?;
        let entry = page.entry(index).expect("the page was asked for");
        let entry_offset = self.tables.entry_offset(index);
        Ok(bitmap_place(entry, entry_offset, chunk, self.file_len())?)
    }

    /// The same; one of zeros is made where there is none.
    fn own_bitmap(&self, state: &mut State, chunk: u64) -> Result<u64> {
        let index = self.geometry.bitmap_index(chunk);
        let page = self.tables.bat_page(index)?;
        let entry = page.entry(index).expect("the page was asked for");
        if entry.bitmap_state() == Some(BitmapState::Present) {
            return self.bitmap_of(chunk);
        }
        let place = self.take_cleared(state, BITMAP_BLOCK_BYTES)?;
        // Pages of an earlier life of the place may be known.
        self.tables
            .pages()
            .changed_in_place(place, BITMAP_BLOCK_BYTES)?;
        self.set_entry(index, BatEntry::bitmap(place))?;
        Ok(place)
    }

    /// The bits, in their chunk's bitmap, of the sectors that guest bytes lie in.
    fn bits_of(&self, guest: &Range<u64>) -> Range<u64> {
        if guest.is_empty() {
            let bit = self.geometry.bitmap_bit(guest.start);
            return bit..bit;
        }
        self.geometry.bitmap_bit(guest.start)..self.geometry.bitmap_bit(guest.end - 1) + 1
    }

    fn put_bits(&self, bitmap: u64, bits: Range<u64>, value: bool) -> Result<()> {
        self.for_each_page(bits, |page, bits| {
            let number = bitmap / PAGE_BYTES as u64 + page;
            let is_so = |bytes: &[u8; PAGE_BYTES]| bitmap::are(bytes, bits.clone(), value);
            let put = |bytes: &mut [u8; PAGE_BYTES]| bitmap::put(bytes, bits.clone(), value);
            self.tables.pages().change(number, is_so, put)?;
            Ok(true)
        })
        .map(drop)
    }

    fn are_set(&self, bitmap: u64, bits: Range<u64>) -> Result<bool> {
        self.for_each_page(bits, |page, bits| {
            let bytes = self.tables.page_at(bitmap + page * PAGE_BYTES as u64)?;
            Ok(bitmap::are(&*bytes, bits, true))
        })
    }

    /// Visits the part of `bits` in each page of the bitmap, until `visit` says no.
    fn for_each_page(
        &self,
        bits: Range<u64>,
        mut visit: impl FnMut(u64, Range<usize>) -> Result<bool>,
    ) -> Result<bool> {
        let as_index = |bit: u64| usize::try_from(bit).expect("bits of a page");
        let mut at = bits.start;
        while at < bits.end {
            let page = at / PAGE_BITS;
            let end = bits.end.min((page + 1) * PAGE_BITS);
            let within = as_index(at % PAGE_BITS)..as_index(end - page * PAGE_BITS);
            if !visit(page, within)? {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }
}
