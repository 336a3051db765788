//! Internal snapshots: taken, returned to, deleted (qcow2 specification, "Snapshots").
//!
//! ```text
//!   create   COPIED cleared, refcounts raised ── L1 table copied, new snapshot table ── header
//!   apply    refcounts of the snapshot raised ── its L1 table copied ── header ── old disk lowered
//!   delete   new snapshot table ── header ── refcounts lowered ── COPIED set where it is true again
//! ```
//!
//! The header changes in one sector: the image has the snapshot, or has it not.

use std::time::{SystemTime, UNIX_EPOCH};

use blockdev_core::{Error, ErrorKind, Result, StorageExt};

use super::control::Shift;
use super::engine::reserve::reserved_areas;
use super::inspect::snapshot_table;
use super::open::check_snapshot;
use super::pages::Stage;
use crate::Qcow2Error;
use crate::image::Qcow2Image;
use crate::meta::geometry::Geometry;
use crate::meta::header::{MAX_L1_BYTES, MAX_SNAPSHOTS};
use crate::meta::snapshots::{Snapshot, encode};
use crate::ondisk::header::{SIZE, SIZE_TO_L1_TABLE, SNAPSHOTS};

/// A snapshot to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewSnapshot {
    /// Name, which no other snapshot of the image has; at most 65,535 bytes.
    pub name: String,
    /// When it is taken: seconds since 1970.
    pub date_sec: u32,
    /// And nanoseconds.
    pub date_nsec: u32,
    /// How long the guest has run, in nanoseconds.
    pub vm_clock_nsec: u64,
}

impl NewSnapshot {
    /// One called `name`, taken now.
    #[must_use]
    pub fn now(name: impl Into<String>) -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            name: name.into(),
            date_sec: u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
            date_nsec: since.subsec_nanos(),
            vm_clock_nsec: 0,
        }
    }
}

impl Qcow2Image {
    /// Keeps the disk as it is now; what is written from now on leaves it untouched.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a name that is taken or too long,
    /// [`Unsupported`](ErrorKind::Unsupported) with an external data file,
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) when refcounts are too narrow or snapshots too
    /// many, and those of writing; after the latter the image must be reopened.
    pub fn create_snapshot(&mut self, new: &NewSnapshot) -> Result<Snapshot> {
        self.refuse_data_file("internal snapshots")?;
        let header = &self.first.header;
        if header.nb_snapshots >= MAX_SNAPSHOTS {
            let text = format!("there are {MAX_SNAPSHOTS} snapshots already");
            return Err(Error::new(ErrorKind::LimitExceeded, text));
        }
        let (snapshots, _) = snapshot_table(&*self.storage, header)?;
        let taken = snapshots.iter().any(|snapshot| snapshot.name == new.name);
        if taken || u16::try_from(new.name.len()).is_err() || new.name.is_empty() {
            let text = format!("{:?} cannot be the name of a new snapshot", new.name);
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let ids = snapshots
            .iter()
            .filter_map(|snapshot| snapshot.id.parse::<u64>().ok());
        let id = ids.max().unwrap_or(0).saturating_add(1).to_string();
        let l1 = (header.l1_table_offset, header.l1_size);
        self.settle_all()?;
        self.check_room(l1)?;
        self.as_a_whole(|image| {
            image.share(l1)?;
            image.shift(l1, Shift::Up)?;
            let offset = image.copy_l1_table(l1, l1.1)?;
            let snapshot = Snapshot {
                offset: 0,
                id,
                name: new.name.clone(),
                l1_table_offset: offset,
                l1_size: l1.1,
                date_sec: new.date_sec,
                date_nsec: new.date_nsec,
                vm_clock_nsec: new.vm_clock_nsec,
                vm_state_size: 0,
                disk_size: Some(image.first.header.size),
                icount: None,
            };
            let entry = encode(&snapshot);
            image.replace_snapshot_table(|table| table.extend_from_slice(&entry), 1)?;
            Ok(snapshot)
        })
    }

    /// Makes the disk what it was when the snapshot was taken whose id or name is `wanted`, its size
    /// included. The snapshot stays.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when there is none, and as
    /// [`create_snapshot`](Self::create_snapshot).
    pub fn apply_snapshot(&mut self, wanted: &str) -> Result<()> {
        let snapshot = self.find_snapshot(wanted)?;
        let header = &self.first.header;
        let size = snapshot.disk_size.unwrap_or(header.size);
        let geometry = Geometry::new(size, header.cluster_bits, header.has_extended_l2());
        check_snapshot(&snapshot, &geometry)?;
        let source = (snapshot.l1_table_offset, snapshot.l1_size);
        let old = (header.l1_table_offset, header.l1_size);
        self.settle_all()?;
        self.check_room(source)?;
        self.as_a_whole(|image| {
            image.share(source)?;
            image.shift(source, Shift::Up)?;
            let offset = image.copy_l1_table(source, source.1)?;
            image.settle_all()?;
            image.name_l1_table((offset, source.1), size)?;
            image.shift(old, Shift::Down)?;
            image.free_table(old.0, u64::from(old.1) * 8);
            image.settle_all()?;
            image.gather_reserved()
        })
    }

    /// Deletes the snapshot whose id or name is `wanted`.
    ///
    /// # Errors
    /// As [`apply_snapshot`](Self::apply_snapshot).
    pub fn delete_snapshot(&mut self, wanted: &str) -> Result<()> {
        let snapshot = self.find_snapshot(wanted)?;
        if u64::from(snapshot.l1_size) * 8 > MAX_L1_BYTES
            || snapshot.l1_table_offset % self.cluster_size() != 0
        {
            let text = "its L1 table cannot be followed";
            return Err(Error::corrupt(
                "snapshot table entry",
                snapshot.offset,
                text,
            ));
        }
        let l1 = (snapshot.l1_table_offset, snapshot.l1_size);
        let start = self.first.header.snapshots_offset;
        let place = |offset: u64| usize::try_from(offset - start).expect("inside the table");
        let behind = self.snapshots()?.into_iter().map(|other| other.offset);
        let next = behind.filter(|offset| *offset > snapshot.offset).min();
        let entry = place(snapshot.offset)..next.map_or(usize::MAX, place);
        self.as_a_whole(|image| {
            let cut =
                |table: &mut Vec<u8>| drop(table.drain(entry.start..entry.end.min(table.len())));
            image.replace_snapshot_table(cut, -1)?;
            image.shift(l1, Shift::Down)?;
            image.free_table(l1.0, u64::from(l1.1) * 8);
            image.settle_all()?;
            image.claim_what_is_owned()
        })
    }

    fn find_snapshot(&self, wanted: &str) -> Result<Snapshot> {
        self.engine()?;
        let mut snapshots = self.snapshots()?;
        let by_id = snapshots.iter().position(|snapshot| snapshot.id == wanted);
        let by_name = || {
            snapshots
                .iter()
                .position(|snapshot| snapshot.name == wanted)
        };
        match by_id.or_else(by_name) {
            Some(at) => Ok(snapshots.swap_remove(at)),
            None => Err(Qcow2Error::NoSnapshot {
                name: wanted.into(),
            }
            .into()),
        }
    }

    /// Copies an L1 table to a place of its own, `entries` long.
    pub(crate) fn copy_l1_table(&self, (from, count): (u64, u32), entries: u32) -> Result<u64> {
        let bytes = u64::from(entries) * 8;
        if bytes == 0 {
            return Ok(0);
        }
        let mut table = Vec::new();
        for place in (from..).step_by(8).take(count.min(entries) as usize) {
            table.extend_from_slice(&self.pages.word(place)?.to_be_bytes());
        }
        self.new_table(&table, bytes, "an L1 table")
    }

    /// Puts `content`, and zeros up to `bytes`, into clusters of its own.
    fn new_table(&self, content: &[u8], bytes: u64, name: &'static str) -> Result<u64> {
        let cluster = self.cluster_size();
        let clusters = bytes.div_ceil(cluster);
        let engine = self.engine()?;
        let mut state = engine.lock();
        let offset = self.allocate_whole(&mut state, clusters)?.offset;
        self.pages.clear(offset, clusters * cluster)?;
        self.pages.write(offset, content, Stage::Early)?;
        self.reserve(&mut state, offset, bytes, name);
        Ok(offset)
    }

    /// Gives up a table of `bytes` at `offset`.
    pub(crate) fn free_table(&self, offset: u64, bytes: u64) {
        if let Some(engine) = &self.engine
            && bytes > 0
        {
            let mut state = engine.lock();
            state.reserved.remove(offset);
            state.free_later(offset, bytes.div_ceil(self.cluster_size()));
        }
    }

    /// Writes the snapshot table anew as `edit` has it, and has the header name it with `more`
    /// snapshots.
    fn replace_snapshot_table(&mut self, edit: impl FnOnce(&mut Vec<u8>), more: i32) -> Result<()> {
        let old = self.first.header.snapshots_offset;
        let (_, old_bytes) = snapshot_table(&*self.storage, &self.first.header)?;
        let mut table = vec![0; usize::try_from(old_bytes).expect("at most 64 MiB")];
        self.storage.read_zero_padded(&mut table, old)?;
        edit(&mut table);
        let offset = if table.is_empty() {
            0
        } else {
            self.new_table(&table, table.len() as u64, "the snapshot table")?
        };
        self.settle_all()?;
        let count = self.first.header.nb_snapshots.saturating_add_signed(more);
        let fields = [&count.to_be_bytes()[..], &offset.to_be_bytes()].concat();
        self.write_header(SNAPSHOTS, &fields)?;
        self.first.header.nb_snapshots = count;
        self.first.header.snapshots_offset = offset;
        self.free_table(old, old_bytes);
        Ok(())
    }

    /// Has the header name another L1 table, for a disk of `size` bytes.
    pub(crate) fn name_l1_table(&mut self, (offset, entries): (u64, u32), size: u64) -> Result<()> {
        let mut fields = [0; SIZE_TO_L1_TABLE];
        fields[..8].copy_from_slice(&size.to_be_bytes());
        fields[8..12].copy_from_slice(&self.first.header.crypt_method.to_be_bytes());
        fields[12..16].copy_from_slice(&entries.to_be_bytes());
        fields[16..].copy_from_slice(&offset.to_be_bytes());
        self.write_header(SIZE, &fields)?;
        let header = &mut self.first.header;
        (header.l1_table_offset, header.l1_size, header.size) = (offset, entries, size);
        self.rules.geometry = header.geometry();
        self.tables.l1_offset = offset;
        self.forget_tables();
        self.info.size = size;
        Ok(())
    }

    /// Gathers the places of all structures anew.
    pub(crate) fn gather_reserved(&self) -> Result<()> {
        let file_len = self.storage.len()?;
        let mut header = self.first.clone();
        let engine = self.engine()?;
        let mut state = engine.lock();
        header.header.refcount_table_offset = state.refcounts.table;
        header.header.refcount_table_clusters =
            u32::try_from(state.refcounts.table_clusters).expect("at most 8 MiB");
        state.reserved = reserved_areas(&*self.storage, &header, file_len)?;
        self.tables.known.forget_all();
        Ok(())
    }
}
