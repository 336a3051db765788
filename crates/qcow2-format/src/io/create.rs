//! Making a new image from a whole disk, in one pass.
//!
//! Clusters are laid down in the order of the disk, each L2 table before the first cluster it maps;
//! tables are written once, as the pass leaves them behind; the header comes last, so that a file
//! which was not finished is no qcow2 file.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev_core::{BulkSink, Error, ErrorKind, Result, Storage, SyncKind, nonzero_runs};

use crate::CreateOptions;
use crate::meta::layout::Layout;
use crate::ondisk::l1_entry::COPIED;

/// Allocation bits of all subclusters of a cluster.
const ALL_SUBCLUSTERS: u64 = 0xFFFF_FFFF;

/// A new image being written; a [`BulkSink`] for [`bulk_copy`](blockdev_core::bulk_copy).
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{BulkOptions, LoneLayer, MemoryStorage, NoProgress, RawLayer, bulk_copy};
/// use qcow2_format::{CreateOptions, OpenOptions, Qcow2Image, Qcow2Writer};
///
/// let mut raw = vec![0; 1 << 20];
/// raw[70_000] = 7;
/// let disk = LoneLayer::new(Box::new(RawLayer::open(Arc::new(MemoryStorage::from(raw)))?));
///
/// let file = Arc::new(MemoryStorage::default());
/// let writer = Qcow2Writer::create(file.clone(), CreateOptions::new(1 << 20))?;
/// bulk_copy(&disk, &writer, &BulkOptions::default(), &NoProgress)?;
/// writer.finish()?;
///
/// let report = qcow2_format::check(file, &OpenOptions::read_only())?;
/// assert!(report.is_clean() && report.allocated_blocks == 1);
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Qcow2Writer {
    storage: Arc<dyn Storage>,
    options: CreateOptions,
    layout: Layout,
    state: Mutex<State>,
}

/// What placing decides, one piece after the other.
#[derive(Debug)]
struct State {
    /// The next cluster that is free.
    next: u64,
    l1: Vec<u64>,
    /// The L2 table being filled: its index in the L1 table, its place, its bytes.
    l2: Option<(u64, u64, Vec<u8>)>,
}

/// What is to be stored of one piece: its clusters that are not all zeros, with their places.
#[derive(Debug, Default)]
pub struct Qcow2Scratch {
    runs: Vec<Range<usize>>,
    placed: Vec<(Range<usize>, u64)>,
}

impl Qcow2Writer {
    /// Begins a new image in `storage`, which is empty.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with the option the format does not allow,
    /// [`NoSpace`](ErrorKind::NoSpace), [`Io`](ErrorKind::Io).
    pub fn create(storage: Arc<dyn Storage>, options: CreateOptions) -> Result<Self> {
        let layout = Layout::new(&options)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let entries = usize::try_from(layout.geometry.l1_entries()).expect("within the limits");
        let state = State {
            next: layout.first_free(),
            l1: vec![0; entries],
            l2: None,
        };
        storage.set_len(layout.first_free() * layout.geometry.cluster_size())?;
        Ok(Self {
            storage,
            options,
            layout,
            state: Mutex::new(state),
        })
    }

    fn cluster(&self) -> u64 {
        self.layout.geometry.cluster_size()
    }

    fn cluster_bytes(&self) -> usize {
        usize::try_from(self.cluster()).expect("at most 2 MiB")
    }

    /// Places the cluster at guest byte `guest`, and its L2 table if it is the first in it.
    fn place_cluster(&self, state: &mut State, guest: u64) -> Result<u64> {
        let geometry = &self.layout.geometry;
        let l1_index = geometry.l1_index(guest);
        if state.l2.as_ref().is_none_or(|(held, ..)| *held != l1_index) {
            self.write_l2(state)?;
            let place = state.next * self.cluster();
            state.next += 1;
            let at = usize::try_from(l1_index).expect("within the limits");
            state.l1[at] = place | COPIED;
            state.l2 = Some((l1_index, place, vec![0; self.cluster_bytes()]));
        }
        let place = state.next * self.cluster();
        state.next += 1;
        let (_, _, table) = state.l2.as_mut().expect("it was just made");
        let at = geometry.l2_index(guest) * geometry.l2_entry_bytes();
        let at = usize::try_from(at).expect("inside a cluster");
        table[at..at + 8].copy_from_slice(&(place | COPIED).to_be_bytes());
        if geometry.has_extended_l2() {
            table[at + 8..at + 16].copy_from_slice(&ALL_SUBCLUSTERS.to_be_bytes());
        }
        Ok(place)
    }

    /// Writes the L2 table that is being filled, if there is one.
    fn write_l2(&self, state: &mut State) -> Result<()> {
        match state.l2.take() {
            Some((_, place, bytes)) => self.storage.write_at(&bytes, place),
            None => Ok(()),
        }
    }

    /// Writes what is left and makes the image durable.
    ///
    /// # Errors
    /// [`NoSpace`](ErrorKind::NoSpace), [`Io`](ErrorKind::Io).
    pub fn finish(self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_l2(&mut state)?;
        let l1: Vec<u8> = state
            .l1
            .iter()
            .flat_map(|entry| entry.to_be_bytes())
            .collect();
        self.storage
            .write_at(&l1, self.layout.l1_table() * self.cluster())?;
        let end = self.write_refcounts(state.next)?;
        // The last cluster of the disk may hold less than its space.
        self.storage.set_len(end * self.cluster())?;
        self.storage
            .write_at(&self.layout.header(&self.options), 0)?;
        self.storage.sync(SyncKind::Full)
    }

    /// Counts every cluster once, `used` of them and the blocks that this takes; gives the end.
    fn write_refcounts(&self, used: u64) -> Result<u64> {
        let blocks = self.layout.blocks_for(used);
        let end = used + blocks - 1;
        let per_block = self.layout.clusters_per_block;
        let mut table = Vec::new();
        for block in 0..blocks {
            let place = if block == 0 {
                self.layout.first_block()
            } else {
                used + block - 1
            };
            let counted = end.saturating_sub(block * per_block).min(per_block);
            self.storage
                .write_at(&self.ones(counted), place * self.cluster())?;
            table.extend_from_slice(&(place * self.cluster()).to_be_bytes());
        }
        self.storage.write_at(&table, self.cluster())?;
        Ok(end)
    }

    /// A refcount block in which the first `count` clusters are counted once.
    fn ones(&self, count: u64) -> Vec<u8> {
        let mut block = vec![0; self.cluster_bytes()];
        let order = self.options.refcount_order;
        for index in 0..usize::try_from(count).expect("no more than a block holds") {
            match order {
                // Narrower than a byte: from its lowest bit up.
                0..=2 => {
                    let bit = index << order;
                    block[bit / 8] |= 1 << (bit % 8);
                }
                // Big-endian: the last byte of each.
                _ => block[((index + 1) << (order - 3)) - 1] = 1,
            }
        }
        block
    }
}

impl BulkSink for Qcow2Writer {
    type Scratch = Qcow2Scratch;

    fn unit_bytes(&self) -> u64 {
        self.cluster()
    }

    fn prepare(&self, _: u64, bytes: &[u8], scratch: &mut Qcow2Scratch) -> Result<()> {
        scratch.runs.clear();
        scratch
            .runs
            .extend(nonzero_runs(bytes, self.cluster_bytes()));
        Ok(())
    }

    fn place(&self, offset: u64, _: &[u8], scratch: &mut Qcow2Scratch) -> Result<()> {
        scratch.placed.clear();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for run in &scratch.runs {
            for from in run.clone().step_by(self.cluster_bytes()) {
                let to = (from + self.cluster_bytes()).min(run.end);
                let place = self.place_cluster(&mut state, offset + from as u64)?;
                match scratch.placed.last_mut() {
                    Some((last, at)) if last.end == from && *at + last.len() as u64 == place => {
                        last.end = to;
                    }
                    _ => scratch.placed.push((from..to, place)),
                }
            }
        }
        Ok(())
    }

    fn write(&self, _: u64, bytes: &[u8], scratch: &Qcow2Scratch) -> Result<()> {
        for (run, place) in &scratch.placed {
            self.storage.write_at(&bytes[run.clone()], *place)?;
        }
        Ok(())
    }
}
