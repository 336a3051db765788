//! Making a new image from a whole disk, in one pass.
//!
//! Blocks are laid down in the order of the disk, each when its first byte that is to be stored comes
//! by; BAT pages are written once, as the pass leaves them behind; the header section comes last, so
//! that a file which was not finished is no VHDX file.
//!
//! Over a parent what is stored is what differs from it, by sectors. What a block is by them shows
//! when the pass leaves it, and then its part of the sector bitmap is written.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev_core::{
    BlockDevice, BulkSink, Error, ErrorKind, PAGE_BYTES, Result, Storage, SyncKind, is_zero,
    nonzero_runs,
};
use uuid::Uuid;

use super::tables::ENTRY_BYTES;
use crate::meta::bat::BITMAP_BLOCK_BYTES;
use crate::meta::difference::{BlockDifference, differing_runs};
use crate::meta::geometry::{BatSlot, Geometry};
use crate::meta::layout::Layout;
use crate::{BatEntry, CreateOptions, PayloadState};

const PAGE: u64 = PAGE_BYTES as u64;

/// Zeros of at least so many bytes are left out: what a host page and most guests' blocks are.
const GRAIN: usize = 4096;

/// A new image being written; a [`BulkSink`] for [`bulk_copy`](blockdev_core::bulk_copy).
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{BulkOptions, LoneLayer, MemoryStorage, NoProgress, RawLayer, bulk_copy};
/// use vhdx_format::{CreateOptions, OpenOptions, VhdxImage, VhdxWriter};
///
/// let mut raw = vec![0; 4 << 20];
/// raw[1 << 20] = 7;
/// let disk = LoneLayer::new(Box::new(RawLayer::open(Arc::new(MemoryStorage::from(raw)))?));
///
/// let file = Arc::new(MemoryStorage::default());
/// let mut options = CreateOptions::new(4 << 20);
/// options.block_size = 1 << 20;
/// let writer = VhdxWriter::create(file.clone(), options)?;
/// bulk_copy(&disk, &writer, &BulkOptions::default(), &NoProgress)?;
/// writer.finish()?;
///
/// let image = VhdxImage::open(file, &OpenOptions::read_only())?;
/// assert_eq!(image.bat_entries().count(), 1, "one block of four holds anything");
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub struct VhdxWriter<'a> {
    storage: Arc<dyn Storage>,
    options: CreateOptions,
    layout: Layout,
    below: Option<&'a dyn BlockDevice>,
    state: Mutex<State>,
}

impl std::fmt::Debug for VhdxWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VhdxWriter")
            .field("storage", &self.storage)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What placing decides, one piece after the other.
#[derive(Debug)]
struct State {
    /// Where the next block goes.
    next: u64,
    /// The block last met.
    block: Option<Block>,
    /// The chunk that has a sector bitmap block and is not left behind, with the block's place.
    bitmap: Option<(u64, u64)>,
    /// The BAT page being filled: its number within the BAT, and its bytes.
    page: Option<(u64, Box<[u8; PAGE_BYTES]>)>,
}

/// The block that the pass is in.
#[derive(Debug)]
struct Block {
    number: u64,
    place: Option<u64>,
    /// How it differs from what is below, where anything is.
    difference: Option<BlockDifference>,
}

/// What is to be stored of one piece.
#[derive(Debug, Default)]
pub struct VhdxScratch {
    /// What is below the piece.
    below: Vec<u8>,
    /// The parts that differ from it, on whole sectors.
    differing: Vec<Range<usize>>,
    /// The piece holds something else than zeros.
    holds_data: bool,
    /// The parts to be written: of a new file the rest is zeros.
    runs: Vec<Range<usize>>,
    /// Where the piece's first byte goes.
    place: u64,
}

impl<'a> VhdxWriter<'a> {
    /// Begins a new image in `storage`, which is empty. One that has a parent stores everything it is
    /// given that is not zeros, as if there were nothing below.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with the option the format does not allow,
    /// [`NoSpace`](blockdev_core::ErrorKind::NoSpace) for a fixed disk that does not fit,
    /// [`Io`](blockdev_core::ErrorKind::Io).
    pub fn create(storage: Arc<dyn Storage>, options: CreateOptions) -> Result<Self> {
        Self::begin(storage, options, None)
    }

    /// As [`create`](Self::create), for an image that stores only the sectors that differ from
    /// `below`, the disk that the parent is the top of. Past its end it counts as zeros.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`InvalidInput`](ErrorKind::InvalidInput) when the options
    /// name no parent.
    pub fn create_over(
        storage: Arc<dyn Storage>,
        options: CreateOptions,
        below: &'a dyn BlockDevice,
    ) -> Result<Self> {
        if options.parent.is_none() {
            let text = "the new image names no parent";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Self::begin(storage, options, Some(below))
    }

    fn begin(
        storage: Arc<dyn Storage>,
        mut options: CreateOptions,
        below: Option<&'a dyn BlockDevice>,
    ) -> Result<Self> {
        let layout = Layout::new(&options)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        // Decided once: both copies of the header say the same.
        for guid in [
            &mut options.virtual_disk_id,
            &mut options.file_write_guid,
            &mut options.data_write_guid,
        ] {
            guid.get_or_insert_with(Uuid::new_v4);
        }
        let first = layout.first_block();
        let writer = Self {
            storage,
            options,
            layout,
            below,
            state: Mutex::new(State {
                next: first,
                block: None,
                bitmap: None,
                page: None,
            }),
        };
        if writer.options.fixed {
            writer.set_all_aside()?;
        } else {
            writer.storage.set_len(first)?;
        }
        Ok(writer)
    }

    /// Gives every block its place and space.
    fn set_all_aside(&self) -> Result<()> {
        let geometry = self.geometry();
        let blocks = geometry.payload_blocks() * geometry.block_size();
        let first = self.layout.first_block();
        self.storage.set_len(first + blocks)?;
        self.storage.zero_range(first, blocks)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for block in 0..geometry.payload_blocks() {
            let place = first + block * geometry.block_size();
            self.set_payload(&mut state, block, PayloadState::FullyPresent, place)?;
        }
        state.next = first + blocks;
        self.write_page(&mut state)
    }

    fn geometry(&self) -> &Geometry {
        &self.layout.geometry
    }

    /// Notes in the BAT what `block` is, and its place. Blocks come in ascending order.
    fn set_payload(
        &self,
        state: &mut State,
        block: u64,
        is: PayloadState,
        place: u64,
    ) -> Result<()> {
        let index = self.geometry().payload_index(block);
        debug_assert_eq!(self.geometry().entry_at(index), BatSlot::Payload { block });
        self.set_entry(state, index, BatEntry::payload(is, place))
    }

    /// Sets entry number `index` of the BAT. Entries come in ascending order of pages.
    fn set_entry(&self, state: &mut State, index: u64, entry: BatEntry) -> Result<()> {
        let number = index * ENTRY_BYTES / PAGE;
        if state.page.as_ref().is_some_and(|(held, _)| *held != number) {
            self.write_page(state)?;
        }
        let (_, bytes) = state
            .page
            .get_or_insert_with(|| (number, Box::new([0; PAGE_BYTES])));
        let at = usize::try_from(index * ENTRY_BYTES % PAGE).expect("inside a page");
        bytes[at..at + 8].copy_from_slice(&entry.0.to_le_bytes());
        Ok(())
    }

    /// Makes block `number` the one that the pass is in.
    fn enter(&self, state: &mut State, number: u64) -> Result<()> {
        if state
            .block
            .as_ref()
            .is_some_and(|block| block.number == number)
        {
            return Ok(());
        }
        self.leave(state)?;
        let chunk = self.geometry().chunk_of(number);
        if state.bitmap.is_some_and(|(held, _)| held != chunk) {
            self.leave_chunk(state)?;
        }
        let sectors = self.sectors(self.geometry().block_size());
        let difference = self.below.map(|_| BlockDifference::new(sectors));
        state.block = Some(Block {
            number,
            place: None,
            difference,
        });
        Ok(())
    }

    /// Settles what the block is that the pass was in, if it was in one.
    fn leave(&self, state: &mut State) -> Result<()> {
        let Some(block) = state.block.take() else {
            return Ok(());
        };
        if self.options.fixed {
            // All was set aside, and noted.
            return Ok(());
        }
        let Some(difference) = &block.difference else {
            // It was met for what it holds.
            return match block.place {
                Some(place) => {
                    self.set_payload(state, block.number, PayloadState::FullyPresent, place)
                }
                None => Ok(()),
            };
        };
        let is = difference.state(self.sectors(self.geometry().block_len(block.number)));
        match is {
            PayloadState::NotPresent => return Ok(()),
            PayloadState::FullyPresent | PayloadState::PartiallyPresent => {
                // What is zeros where the parent has something was not written, and needs room.
                let place = block.place.unwrap_or_else(|| self.take_block(state));
                self.set_payload(state, block.number, is, place)?;
            }
            _ => self.set_payload(state, block.number, is, 0)?,
        }
        if is == PayloadState::PartiallyPresent {
            self.write_bitmap(state, block.number, difference.bitmap())?;
        }
        Ok(())
    }

    /// Writes the part of a sector bitmap block that is for payload block `number`. A new bitmap block
    /// is zeros: no other block of the chunk is partially present until its part is written.
    fn write_bitmap(&self, state: &mut State, number: u64, bits: &[u8]) -> Result<()> {
        let geometry = self.geometry();
        let chunk = geometry.chunk_of(number);
        let place = match state.bitmap {
            Some((_, place)) => place,
            None => {
                let place = state.next;
                state.next += BITMAP_BLOCK_BYTES;
                state.bitmap = Some((chunk, place));
                place
            }
        };
        let within = geometry.bitmap_bit(number * geometry.block_size()) / 8;
        self.storage.write_at(bits, place + within)
    }

    /// Notes the sector bitmap block of the chunk that the pass leaves behind, if there is one.
    fn leave_chunk(&self, state: &mut State) -> Result<()> {
        match state.bitmap.take() {
            Some((chunk, place)) => {
                let index = self.geometry().bitmap_index(chunk);
                debug_assert_eq!(self.geometry().entry_at(index), BatSlot::Bitmap { chunk });
                self.set_entry(state, index, BatEntry::bitmap(place))
            }
            None => Ok(()),
        }
    }

    /// The next place for a block.
    fn take_block(&self, state: &mut State) -> u64 {
        let place = state.next;
        state.next += self.geometry().block_size();
        place
    }

    /// Whole sectors in `bytes` of one block.
    fn sectors(&self, bytes: u64) -> usize {
        let sectors = bytes / self.geometry().logical_sector_size();
        usize::try_from(sectors).expect("of one block: at most 2^19")
    }

    /// Writes the BAT page that is being filled, if there is one.
    fn write_page(&self, state: &mut State) -> Result<()> {
        match state.page.take() {
            Some((number, bytes)) => self
                .storage
                .write_at(&*bytes, self.layout.bat_offset + number * PAGE),
            None => Ok(()),
        }
    }

    /// Writes what is left and makes the image durable.
    ///
    /// # Errors
    /// [`NoSpace`](blockdev_core::ErrorKind::NoSpace), [`Io`](blockdev_core::ErrorKind::Io).
    pub fn finish(self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.leave(&mut state)?;
        self.leave_chunk(&mut state)?;
        self.write_page(&mut state)?;
        // The last block may hold less than its space.
        self.storage.set_len(state.next)?;
        for (place, bytes) in self.layout.structures(&self.options)?.iter().rev() {
            // They are mostly zeros, as what is not written of a new file is.
            for run in nonzero_runs(bytes, GRAIN) {
                let at = place + run.start as u64;
                self.storage.write_at(&bytes[run], at)?;
            }
        }
        self.storage.sync(SyncKind::Full)
    }
}

impl BulkSink for VhdxWriter<'_> {
    type Scratch = VhdxScratch;

    /// The least block: no piece crosses from one block into another.
    fn unit_bytes(&self) -> u64 {
        1 << 20
    }

    fn below(&self) -> Option<&dyn BlockDevice> {
        self.below
    }

    fn prepare(&self, offset: u64, bytes: &[u8], scratch: &mut VhdxScratch) -> Result<()> {
        scratch.runs.clear();
        let Some(below) = self.below else {
            scratch.runs.extend(nonzero_runs(bytes, GRAIN));
            return Ok(());
        };
        let sector = self.geometry().logical_sector_size();
        // Of a source that ends inside a sector the image holds all the sector, zeros at its end.
        let end = (offset + bytes.len() as u64).next_multiple_of(sector);
        let len = usize::try_from(end - offset).expect("a piece and less than a sector");
        read_below(below, offset, len, &mut scratch.below)?;
        scratch.holds_data = !is_zero(bytes);
        scratch.differing.clear();
        let sector = usize::try_from(sector).expect("at most 4096");
        for run in differing_runs(bytes, &scratch.below, sector) {
            let there = run.start..run.end.min(bytes.len());
            let written = nonzero_runs(&bytes[there], GRAIN);
            let written = written.map(|part| run.start + part.start..run.start + part.end);
            scratch.runs.extend(written);
            scratch.differing.push(run);
        }
        Ok(())
    }

    fn place(&self, offset: u64, _: &[u8], scratch: &mut VhdxScratch) -> Result<()> {
        let noted = self.below.is_some() && (scratch.holds_data || !scratch.differing.is_empty());
        if scratch.runs.is_empty() && !noted {
            return Ok(());
        }
        let geometry = self.geometry();
        let (number, within) = (geometry.block_of(offset), offset % geometry.block_size());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        self.enter(state, number)?;
        let mut block = state.block.take().expect("it was entered");
        if let Some(difference) = &mut block.difference {
            let sector = |at: usize| self.sectors(within + at as u64);
            let differing = scratch.differing.iter();
            difference.note(
                differing.map(|run| sector(run.start)..sector(run.end)),
                scratch.holds_data,
            );
        }
        if !scratch.runs.is_empty() {
            let place = block.place.unwrap_or_else(|| match self.options.fixed {
                true => self.layout.first_block() + number * geometry.block_size(),
                false => self.take_block(state),
            });
            block.place = Some(place);
            scratch.place = place + within;
        }
        state.block = Some(block);
        Ok(())
    }

    fn write(&self, _: u64, bytes: &[u8], scratch: &VhdxScratch) -> Result<()> {
        for run in &scratch.runs {
            self.storage
                .write_at(&bytes[run.clone()], scratch.place + run.start as u64)?;
        }
        Ok(())
    }
}

/// Fills `into` with `len` bytes from byte `offset` of `below`.
fn read_below(below: &dyn BlockDevice, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
    let there = below.size().saturating_sub(offset).min(len as u64);
    let there = usize::try_from(there).expect("no more than asked for");
    into.clear();
    into.resize(len, 0);
    if there > 0 {
        below.read_at(&mut into[..there], offset)?;
    }
    Ok(())
}
