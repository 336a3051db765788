//! Making a new image from a whole disk, in one pass.
//!
//! Blocks are laid down in the order of the disk, each when its first byte that is not zero comes
//! by; BAT pages are written once, as the pass leaves them behind; the header section comes last, so
//! that a file which was not finished is no VHDX file.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev_core::{
    BulkSink, Error, ErrorKind, PAGE_BYTES, Result, Storage, SyncKind, nonzero_runs,
};
use uuid::Uuid;

use super::tables::ENTRY_BYTES;
use crate::CreateOptions;
use crate::meta::geometry::{BatSlot, Geometry};
use crate::meta::layout::Layout;

const PAGE: u64 = PAGE_BYTES as u64;

/// Zeros of at least so many bytes are left out: what a host page and most guests' blocks are.
const GRAIN: usize = 4096;

/// State bits of a block that is all in the file.
const FULLY_PRESENT: u64 = 6;

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
#[derive(Debug)]
pub struct VhdxWriter {
    storage: Arc<dyn Storage>,
    options: CreateOptions,
    layout: Layout,
    state: Mutex<State>,
}

/// What placing decides, one piece after the other.
#[derive(Debug)]
struct State {
    /// Where the next block goes.
    next: u64,
    /// The block last placed, with its place.
    block: Option<(u64, u64)>,
    /// The BAT page being filled: its number within the BAT, and its bytes.
    page: Option<(u64, Box<[u8; PAGE_BYTES]>)>,
}

/// What is to be stored of one piece.
#[derive(Debug, Default)]
pub struct VhdxScratch {
    /// The parts that are not zeros, on multiples of [`GRAIN`].
    runs: Vec<Range<usize>>,
    /// Where the piece's first byte goes.
    place: u64,
}

impl VhdxWriter {
    /// Begins a new image in `storage`, which is empty.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with the option the format does not allow,
    /// [`NoSpace`](blockdev_core::ErrorKind::NoSpace) for a fixed disk that does not fit,
    /// [`Io`](blockdev_core::ErrorKind::Io).
    pub fn create(storage: Arc<dyn Storage>, mut options: CreateOptions) -> Result<Self> {
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
            state: Mutex::new(State {
                next: first,
                block: None,
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
            self.set_entry(&mut state, block, place)?;
        }
        state.next = first + blocks;
        self.write_page(&mut state)
    }

    fn geometry(&self) -> &Geometry {
        &self.layout.geometry
    }

    /// Notes in the BAT that `block` is at `place`. Blocks come in ascending order.
    fn set_entry(&self, state: &mut State, block: u64, place: u64) -> Result<()> {
        let index = self.geometry().payload_index(block);
        debug_assert_eq!(self.geometry().entry_at(index), BatSlot::Payload { block });
        let number = index * ENTRY_BYTES / PAGE;
        if state.page.as_ref().is_some_and(|(held, _)| *held != number) {
            self.write_page(state)?;
        }
        let (_, bytes) = state
            .page
            .get_or_insert_with(|| (number, Box::new([0; PAGE_BYTES])));
        let at = usize::try_from(index * ENTRY_BYTES % PAGE).expect("inside a page");
        bytes[at..at + 8].copy_from_slice(&(place | FULLY_PRESENT).to_le_bytes());
        Ok(())
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
        self.write_page(&mut state)?;
        // The last block may hold less than its space.
        self.storage.set_len(state.next)?;
        for (place, bytes) in self.layout.structures(&self.options).iter().rev() {
            self.storage.write_at(bytes, *place)?;
        }
        self.storage.sync(SyncKind::Full)
    }
}

impl BulkSink for VhdxWriter {
    type Scratch = VhdxScratch;

    /// The least block: no piece crosses from one block into another.
    fn unit_bytes(&self) -> u64 {
        1 << 20
    }

    fn prepare(&self, _: u64, bytes: &[u8], scratch: &mut VhdxScratch) -> Result<()> {
        scratch.runs.clear();
        scratch.runs.extend(nonzero_runs(bytes, GRAIN));
        Ok(())
    }

    fn place(&self, offset: u64, _: &[u8], scratch: &mut VhdxScratch) -> Result<()> {
        if scratch.runs.is_empty() {
            return Ok(());
        }
        let geometry = self.geometry();
        let block = geometry.block_of(offset);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match state.block {
            Some((held, place)) if held == block => place,
            _ if self.options.fixed => self.layout.first_block() + block * geometry.block_size(),
            _ => {
                let place = state.next;
                state.next += geometry.block_size();
                self.set_entry(&mut state, block, place)?;
                place
            }
        };
        state.block = Some((block, place));
        scratch.place = place + offset % geometry.block_size();
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
