//! Making a new image from a whole disk, in one pass.
//!
//! Clusters are laid down in the order of the disk, each L2 table before the first cluster it maps;
//! tables are written once, as the pass leaves them behind; the header comes last, so that a file
//! which was not finished is no qcow2 file.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev_core::{BlockDevice, BulkSink, Error, ErrorKind, Result, Storage, SyncKind, is_zero};

use crate::io::compress::Packer;
use crate::meta::layout::Layout;
use crate::meta::space::Space;
use crate::ondisk::l1_entry::COPIED;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};
use crate::{CreateOptions, Preallocation, Qcow2Error};

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
pub struct Qcow2Writer<'a> {
    storage: Arc<dyn Storage>,
    /// Where guest data goes, if not into the image.
    data: Option<Arc<dyn Storage>>,
    options: CreateOptions,
    layout: Layout,
    below: Option<&'a dyn BlockDevice>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Qcow2Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qcow2Writer")
            .field("storage", &self.storage)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What placing decides, one piece after the other.
#[derive(Debug)]
struct State {
    space: Space,
    l1: Vec<u64>,
    l2: Option<Table>,
    /// Where all is preallocated: every guest byte before this has its place.
    filled: u64,
}

/// The L2 table being filled.
#[derive(Debug)]
struct Table {
    l1_index: u64,
    place: u64,
    bytes: Vec<u8>,
}

/// What is to be stored of one piece: its clusters that are not what is below, with their places.
#[derive(Debug, Default)]
pub struct Qcow2Scratch {
    packer: Option<Packer>,
    /// Packed clusters, one after the other.
    packed: Vec<u8>,
    /// A cluster that the end of the disk cuts short, filled up.
    whole: Vec<u8>,
    /// What is below the piece.
    below: Vec<u8>,
    clusters: Vec<Cluster>,
    /// Bytes to be written, with their places in the file.
    writes: Vec<(Bytes, u64)>,
}

/// A cluster to be stored.
#[derive(Debug)]
struct Cluster {
    /// Its bytes in the piece.
    plain: Range<usize>,
    form: Form,
}

/// How a cluster is stored.
#[derive(Debug)]
enum Form {
    /// As it is.
    Plain,
    /// By these bytes among the packed ones.
    Packed(Range<usize>),
    /// By a mark that it is zeros, whatever is below.
    Zero,
}

/// Some bytes of a piece, as they are or packed.
#[derive(Debug)]
enum Bytes {
    Plain(Range<usize>),
    Packed(Range<usize>),
}

impl Bytes {
    fn len(&self) -> u64 {
        let (Self::Plain(range) | Self::Packed(range)) = self;
        range.len() as u64
    }

    /// Takes in `next` if it follows in memory.
    fn join(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::Plain(a), Self::Plain(b)) | (Self::Packed(a), Self::Packed(b))
                if a.end == b.start =>
            {
                a.end = b.end;
                true
            }
            _ => false,
        }
    }
}

impl<'a> Qcow2Writer<'a> {
    /// Begins a new image in `storage`, which is empty. One that names a backing file stores
    /// everything it is given that is not zeros, as if there were nothing below.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with the option the format does not allow,
    /// [`NoSpace`](ErrorKind::NoSpace), [`Io`](ErrorKind::Io).
    pub fn create(storage: Arc<dyn Storage>, options: CreateOptions) -> Result<Self> {
        Self::begin(storage, options, None)
    }

    /// As [`create`](Self::create), for an image that stores only what differs from `below`, the
    /// disk that the backing file is the top of. Past its end it counts as zeros.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`InvalidInput`](ErrorKind::InvalidInput) when the options
    /// name no backing file.
    pub fn create_over(
        storage: Arc<dyn Storage>,
        options: CreateOptions,
        below: &'a dyn BlockDevice,
    ) -> Result<Self> {
        if options.backing.is_none() {
            let text = "the new image names no backing file";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Self::begin(storage, options, Some(below))
    }

    /// Writes an image that holds nothing to `storage`, which is empty, with its data file if the
    /// options name one. Where nothing is set aside it is laid out as `qemu-img create` does: header,
    /// refcount table, refcount block, and the L1 table, with which the file ends.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`with_data_file`](Self::with_data_file).
    pub fn write_empty(
        storage: Arc<dyn Storage>,
        data: Option<Arc<dyn Storage>>,
        options: CreateOptions,
    ) -> Result<()> {
        let raw_data = options.data_file.as_ref().is_some_and(|file| file.raw);
        let adds = options.preallocation != Preallocation::Off || raw_data;
        let layout = match adds {
            true => Layout::new(&options),
            false => Layout::of_empty(&options),
        };
        let writer = Self::lay_out(storage, options, layout, None)?;
        match data {
            Some(data) => writer.with_data_file(data)?.finish(),
            None => writer.finish(),
        }
    }

    fn begin(
        storage: Arc<dyn Storage>,
        options: CreateOptions,
        below: Option<&'a dyn BlockDevice>,
    ) -> Result<Self> {
        let layout = Layout::new(&options);
        Self::lay_out(storage, options, layout, below)
    }

    fn lay_out(
        storage: Arc<dyn Storage>,
        options: CreateOptions,
        layout: Result<Layout, Qcow2Error>,
        below: Option<&'a dyn BlockDevice>,
    ) -> Result<Self> {
        let layout =
            layout.map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let entries = usize::try_from(layout.geometry.l1_entries()).expect("within the limits");
        let state = State {
            space: Space::new(&layout, options.refcount_order),
            l1: vec![0; entries],
            l2: None,
            filled: 0,
        };
        storage.set_len(layout.first_free() * layout.geometry.cluster_size())?;
        Ok(Self {
            storage,
            data: None,
            options,
            layout,
            below,
            state: Mutex::new(state),
        })
    }

    /// Hands over the data file, which is empty, of an image whose options name one.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when the options name none,
    /// [`NoSpace`](ErrorKind::NoSpace), [`Io`](ErrorKind::Io).
    pub fn with_data_file(mut self, data: Arc<dyn Storage>) -> Result<Self> {
        if self.options.data_file.is_none() {
            let text = "the new image names no data file";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        data.set_len(self.options.size)?;
        self.data = Some(data);
        Ok(self)
    }

    /// The file that guest data goes to.
    fn guest_file(&self) -> Result<&dyn Storage> {
        match (&self.data, &self.options.data_file) {
            (Some(data), _) => Ok(&**data),
            (None, None) => Ok(&*self.storage),
            (None, Some(_)) => {
                let text = "the new image's data file was not handed over";
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
        }
    }

    /// The place of the cluster at guest byte `guest`: in a data file, the same.
    fn place_of(&self, state: &mut State, guest: u64) -> u64 {
        match self.options.data_file {
            Some(_) => guest,
            None => state.space.cluster(),
        }
    }

    fn cluster_bytes(&self) -> usize {
        usize::try_from(self.layout.geometry.cluster_size()).expect("at most 2 MiB")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the L2 table for the cluster at guest byte `guest` the one being filled.
    fn table_for(&self, state: &mut State, guest: u64) -> Result<()> {
        let l1_index = self.layout.geometry.l1_index(guest);
        if state.l2.as_ref().is_some_and(|l2| l2.l1_index == l1_index) {
            return Ok(());
        }
        self.write_l2(state)?;
        let place = state.space.cluster();
        let at = usize::try_from(l1_index).expect("within the limits");
        state.l1[at] = place | COPIED;
        state.l2 = Some(Table {
            l1_index,
            place,
            bytes: vec![0; self.cluster_bytes()],
        });
        Ok(())
    }

    /// Places `cluster`, which is at guest byte `guest`; the bytes to be written, with their place.
    fn place_cluster(
        &self,
        state: &mut State,
        guest: u64,
        cluster: &Cluster,
    ) -> Result<Option<(Bytes, u64)>> {
        let cluster_bits = self.layout.geometry.cluster_bits();
        self.preallocate(state, guest)?;
        state.filled = guest + self.layout.geometry.cluster_size();
        self.table_for(state, guest)?;
        let near = state.space.end() < L2Entry::packed_limit(cluster_bits);
        let (entry, bits, stored) = match &cluster.form {
            Form::Packed(range) if near => {
                let len = range.len() as u64;
                let place = state.space.packed(len);
                let entry = L2Entry::compressed(place, len, cluster_bits);
                let stored = Some((Bytes::Packed(range.clone()), place));
                (entry, SubclusterBits::default(), stored)
            }
            Form::Zero if self.layout.geometry.has_extended_l2() => {
                (L2Entry::default(), SubclusterBits::ZERO, None)
            }
            Form::Zero => (L2Entry::UNPLACED_ZERO, SubclusterBits::default(), None),
            Form::Plain | Form::Packed(_) => {
                let place = self.place_of(state, guest);
                let stored = Some((Bytes::Plain(cluster.plain.clone()), place));
                (L2Entry::standard(place), SubclusterBits::ALLOCATED, stored)
            }
        };
        self.set_entry(state, guest, entry, bits);
        self.write_full_blocks(state)?;
        Ok(stored)
    }

    /// Gives the clusters that are not stored, up to guest byte `guest`, their places, if that was
    /// asked for.
    fn preallocate(&self, state: &mut State, guest: u64) -> Result<()> {
        let raw_data = self.options.data_file.as_ref().is_some_and(|file| file.raw);
        if self.options.preallocation == Preallocation::Off && !raw_data {
            return Ok(());
        }
        let full = self.options.preallocation == Preallocation::Full;
        let zeros = vec![0; if full { self.cluster_bytes() } else { 0 }];
        while state.filled < guest {
            let at = state.filled;
            self.table_for(state, at)?;
            let place = self.place_of(state, at);
            self.set_entry(
                state,
                at,
                L2Entry::standard(place),
                SubclusterBits::ALLOCATED,
            );
            self.write_full_blocks(state)?;
            if full {
                // A data file ends with the disk.
                let there = match self.options.data_file {
                    Some(_) => (self.options.size - at).min(zeros.len() as u64),
                    None => zeros.len() as u64,
                };
                let there = usize::try_from(there).expect("at most a cluster");
                self.guest_file()?.write_at(&zeros[..there], place)?;
            }
            state.filled += self.layout.geometry.cluster_size();
        }
        Ok(())
    }

    /// Sets the entry of the cluster at guest byte `guest`, in the table being filled.
    fn set_entry(&self, state: &mut State, guest: u64, entry: L2Entry, bits: SubclusterBits) {
        let geometry = &self.layout.geometry;
        let at = geometry.l2_index(guest) * geometry.l2_entry_bytes();
        let at = usize::try_from(at).expect("inside a cluster");
        let table = state.l2.as_mut().expect("the table was made for it");
        table.bytes[at..at + 8].copy_from_slice(&entry.0.to_be_bytes());
        if geometry.has_extended_l2() {
            table.bytes[at + 8..at + 16].copy_from_slice(&bits.0.to_be_bytes());
        }
    }

    /// Writes the L2 table that is being filled, if there is one.
    fn write_l2(&self, state: &mut State) -> Result<()> {
        match state.l2.take() {
            Some(table) => self.storage.write_at(&table.bytes, table.place),
            None => Ok(()),
        }
    }

    /// Writes the refcount blocks in which nothing more will be counted.
    fn write_full_blocks(&self, state: &mut State) -> Result<()> {
        while let Some((place, bytes)) = state.space.full_block() {
            self.storage.write_at(&bytes, place)?;
        }
        Ok(())
    }

    /// Writes what is left and makes the image durable.
    ///
    /// # Errors
    /// [`NoSpace`](ErrorKind::NoSpace), [`Io`](ErrorKind::Io).
    pub fn finish(self) -> Result<()> {
        let guest_file = self.guest_file()?;
        let mut state = self.state();
        self.preallocate(&mut state, self.options.size)?;
        self.write_l2(&mut state)?;
        let l1 = state.l1.iter().flat_map(|entry| entry.to_be_bytes());
        let cluster = self.layout.geometry.cluster_size();
        self.storage
            .write_at(&l1.collect::<Vec<u8>>(), self.layout.l1_table() * cluster)?;
        let (blocks, table) = state.space.close();
        for (place, bytes) in blocks {
            self.storage.write_at(&bytes, place)?;
        }
        self.storage.write_at(&table, cluster)?;
        let end = match state.space.end() == self.layout.first_free() * cluster {
            // With the L1 table, as QEMU leaves an image that holds nothing.
            true if self.layout.l1_clusters > 0 => self.layout.l1_end(),
            // The last cluster may hold less than its space.
            _ => state.space.end(),
        };
        self.storage.set_len(end)?;
        if self.options.preallocation == Preallocation::Falloc {
            match self.options.data_file {
                Some(_) => guest_file.allocate(0, self.options.size)?,
                None => self.storage.allocate(0, state.space.end())?,
            }
        }
        if self.data.is_some() {
            guest_file.sync(SyncKind::Full)?;
        }
        self.storage
            .write_at(&self.layout.header(&self.options), 0)?;
        self.storage.sync(SyncKind::Full)
    }

    /// How the cluster `bytes` is stored.
    fn form(&self, bytes: &[u8], scratch: &mut Qcow2Scratch) -> Result<Form> {
        // Version 2 has no mark for zeros: they are stored, or packed.
        if self.options.version == 3 && is_zero(bytes) {
            return Ok(Form::Zero);
        }
        if !self.options.compressed {
            return Ok(Form::Plain);
        }
        let packer = &mut scratch.packer;
        let packer = packer.get_or_insert_with(|| Packer::new(self.options.compression_type));
        let start = scratch.packed.len();
        let shorter = if bytes.len() == self.cluster_bytes() {
            packer.pack(bytes, &mut scratch.packed)?
        } else {
            scratch.whole.clear();
            scratch.whole.extend_from_slice(bytes);
            scratch.whole.resize(self.cluster_bytes(), 0);
            packer.pack(&scratch.whole, &mut scratch.packed)?
        };
        Ok(if shorter {
            Form::Packed(start..scratch.packed.len())
        } else {
            Form::Plain
        })
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

impl BulkSink for Qcow2Writer<'_> {
    type Scratch = Qcow2Scratch;

    fn unit_bytes(&self) -> u64 {
        self.layout.geometry.cluster_size()
    }

    fn below(&self) -> Option<&dyn BlockDevice> {
        self.below
    }

    fn prepare(&self, offset: u64, bytes: &[u8], scratch: &mut Qcow2Scratch) -> Result<()> {
        scratch.clusters.clear();
        scratch.packed.clear();
        if let Some(below) = self.below {
            // Of a source that ends inside a sector the image holds all the sector, zeros at its end.
            let end = (offset + bytes.len() as u64).next_multiple_of(512);
            let len = usize::try_from(end - offset).expect("a piece and less than a sector");
            read_below(below, offset, len, &mut scratch.below)?;
        }
        for (n, cluster) in bytes.chunks(self.cluster_bytes()).enumerate() {
            let start = n * self.cluster_bytes();
            let plain = start..start + cluster.len();
            let same = match self.below {
                Some(_) => {
                    let until = scratch.below.len().min(start + self.cluster_bytes());
                    let (same, rest) = scratch.below[start..until].split_at(cluster.len());
                    same == cluster && is_zero(rest)
                }
                None => is_zero(cluster),
            };
            if !same {
                let form = self.form(cluster, scratch)?;
                scratch.clusters.push(Cluster { plain, form });
            }
        }
        Ok(())
    }

    fn place(&self, offset: u64, _: &[u8], scratch: &mut Qcow2Scratch) -> Result<()> {
        scratch.writes.clear();
        let mut state = self.state();
        for cluster in &scratch.clusters {
            let guest = offset + cluster.plain.start as u64;
            let Some((bytes, place)) = self.place_cluster(&mut state, guest, cluster)? else {
                continue;
            };
            // What follows in memory and in the file goes out in one write.
            let joined = scratch
                .writes
                .last_mut()
                .is_some_and(|(last, at)| *at + last.len() == place && last.join(&bytes));
            if !joined {
                scratch.writes.push((bytes, place));
            }
        }
        Ok(())
    }

    fn write(&self, _: u64, bytes: &[u8], scratch: &Qcow2Scratch) -> Result<()> {
        for (stored, place) in &scratch.writes {
            let bytes = match stored {
                Bytes::Plain(range) => &bytes[range.clone()],
                Bytes::Packed(range) => &scratch.packed[range.clone()],
            };
            self.guest_file()?.write_at(bytes, *place)?;
        }
        Ok(())
    }
}
