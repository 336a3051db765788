//! What a writer keeps its hands off: the places of all structures, gathered once at opening.

use blockdev_core::{Error, Result, Storage};

use super::State;
use crate::Qcow2Error;
use crate::image::Qcow2Image;
use crate::inspect::FirstCluster;
use crate::io::inspect::snapshot_table;
use crate::io::words::Words;
use crate::meta::header::MAX_L1_BYTES;
use crate::meta::reserved::Reserved;
use crate::ondisk::l1_entry::L1Entry;
use crate::ondisk::refcount::BLOCK_OFFSET_MASK;

/// An L2 table that one L1 entry calls its own.
const OWN: &str = "an L2 table";
/// One that is copied before it changes.
const SHARED: &str = "a shared L2 table";

/// The structures of an image in a file of `file_len` bytes.
///
/// # Errors
/// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) for an image without a refcount table, where
/// structures lie past the end of the file, and where they share a place: refcounts that are counted
/// twice have no end.
pub(crate) fn reserved_areas(
    storage: &dyn Storage,
    first: &FirstCluster,
    file_len: u64,
) -> Result<Reserved> {
    let header = &first.header;
    let cluster = header.cluster_size();
    let mut reserved = Reserved::default();
    reserved.insert(0, cluster, "the header");
    let l1 = (header.l1_table_offset, u64::from(header.l1_size) * 8);
    claim(&mut reserved, l1, "the L1 table")?;
    let table = header.refcount_table_offset;
    let length = u64::from(header.refcount_table_clusters) * cluster;
    if table == 0 || length == 0 || table.saturating_add(length) > file_len {
        return Err(Qcow2Error::Field {
            structure: "header",
            offset: 0,
            field: "refcount_table_offset",
            found: format!("{table:#x}, for {length} bytes"),
            expected: "a table in the file".into(),
        }
        .into());
    }
    claim(&mut reserved, (table, length), "the refcount table")?;
    let mut outcome = Ok(());
    each_word(storage, (table, length), file_len, |entry| {
        let block = entry & BLOCK_OFFSET_MASK;
        if outcome.is_ok() {
            outcome = claim(&mut reserved, (block, cluster), "a refcount block");
        }
    })?;
    each_word(storage, l1, file_len, |entry| {
        let entry = L1Entry(entry);
        let table = entry.l2_offset();
        let name = if entry.is_copied() { OWN } else { SHARED };
        // Two entries may name one table if neither calls it its own: it is then copied before it changes.
        let again = name == SHARED && reserved.find(table, cluster) == Some(SHARED);
        if table > 0 && outcome.is_ok() && !again {
            outcome = claim(&mut reserved, (table, cluster), name);
        }
    })?;
    outcome?;
    if header.nb_snapshots > 0 {
        let (snapshots, length) = snapshot_table(storage, header)?;
        let place = (header.snapshots_offset, length);
        claim(&mut reserved, place, "the snapshot table")?;
        for snapshot in snapshots {
            let length = (u64::from(snapshot.l1_size) * 8).min(MAX_L1_BYTES);
            let place = (snapshot.l1_table_offset, length);
            claim(&mut reserved, place, "the L1 table of a snapshot")?;
        }
    }
    if let Some(bitmaps) = first.extensions.bitmaps {
        let place = (bitmaps.directory_offset, bitmaps.directory_size);
        claim(&mut reserved, place, "the bitmap directory")?;
    }
    Ok(reserved)
}

impl Qcow2Image {
    /// Notes a structure of the image's own, called `name`, in `len` bytes at `offset`.
    pub(crate) fn reserve(&self, state: &mut State, offset: u64, len: u64, name: &'static str) {
        state.reserved.insert(offset, len, name);
        // Guests that were found to write elsewhere are asked again.
        self.tables.known.forget_all();
    }
}

/// Notes a structure that shares its place with nothing.
fn claim(reserved: &mut Reserved, (offset, len): (u64, u64), name: &'static str) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    if let Some(other) = reserved.find(offset, len) {
        let text = format!("it lies where {other} is; repair the image before it is written to");
        return Err(Error::corrupt(name, offset, text));
    }
    reserved.insert(offset, len, name);
    Ok(())
}

/// Hands every entry other than 0 of a table to `each`.
fn each_word(
    storage: &dyn Storage,
    (offset, length): (u64, u64),
    file_len: u64,
    mut each: impl FnMut(u64),
) -> Result<()> {
    let mut words = Words::new(offset, length, file_len);
    while words.next(storage)?.is_some() {
        words
            .entries()
            .filter(|entry| *entry != 0)
            .for_each(&mut each);
    }
    Ok(())
}
