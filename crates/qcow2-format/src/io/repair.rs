//! Repair: refcounts made to say what the references say.
//!
//! ```text
//!   1  references counted                       nothing changed
//!   2  new refcount blocks and table, behind everything that is in use
//!   ── barrier ── header names them ── barrier ──
//!   3  COPIED flags set and cleared
//!   ── barrier ──
//!   4  the image is no longer dirty, no longer corrupt
//! ```
//!
//! A crash before the header's change leaves the image as it was; after it, one that is repaired
//! again.

use std::collections::BTreeSet;
use std::sync::Arc;

use blockdev_core::{
    CheckReport, Error, ErrorKind, OpenOptions, PageCache, Result, Storage, SyncKind,
};

use super::check::{Counted, check, references};
use super::engine::refcounts::Refcounts;
use super::open::load;
use super::pages::{Pages, Stage};
use super::words::Words;
use crate::Qcow2Error;
use crate::inspect::FirstCluster;
use crate::meta::counts::Counts;
use crate::meta::header::{Header, MAX_REFCOUNT_TABLE_BYTES};
use crate::ondisk::features;
use crate::ondisk::header::{FEATURES, HEADER_LENGTH, REFCOUNT_TABLE};
use crate::ondisk::l1_entry::{COPIED, L1Entry};
use crate::ondisk::l2_entry::L2Entry;
use crate::ondisk::refcount::{largest, set_refcount};

/// Changed pages kept before they are written.
const MOST_PENDING: usize = 1024;

/// What to repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Space that nothing refers to, in an image that has no other fault.
    Leaks,
    /// Everything that can be repaired without a guess: refcounts, their table and blocks, COPIED
    /// flags, the dirty and the corrupt bit.
    All,
}

/// What a repair found and left.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// The check before.
    pub before: CheckReport,
    /// The check after.
    pub after: CheckReport,
}

/// Repairs the qcow2 file in `storage`, which nobody else has open.
///
/// Entries that make no sense are left, and reported in [`Repaired::after`]: what the guest had there
/// cannot be told.
///
/// # Errors
/// As [`check`], [`LimitExceeded`](ErrorKind::LimitExceeded) when references outnumber what a
/// refcount's width can say or memory allows to count, and those of writing.
pub fn repair(storage: Arc<dyn Storage>, options: &OpenOptions, what: Repair) -> Result<Repaired> {
    let before = check(Arc::clone(&storage), options)?;
    let unchanged = |before: CheckReport| {
        let after = before.clone();
        Ok(Repaired { before, after })
    };
    let Ok(first) = load(&*storage, options) else {
        return unchanged(before);
    };
    let marked = first.header.is_dirty() || first.header.is_corrupt();
    match what {
        Repair::All if marked || before.corruptions > 0 => {
            rebuild(&storage, &first, options)?;
        }
        _ if before.leaks > 0 && before.corruptions == 0 => lower_leaks(&storage, &first, options)?,
        _ => return unchanged(before),
    }
    let after = check(Arc::clone(&storage), options)?;
    if what == Repair::All && marked && after.corruptions == 0 {
        clear_marks(&*storage, &first.header)?;
    }
    Ok(Repaired { before, after })
}

/// Brings an image that was not closed cleanly to where it can be written to.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt) when more than refcounts is wrong, and as [`repair`].
pub(crate) fn recover(
    storage: &Arc<dyn Storage>,
    first: &FirstCluster,
    options: &OpenOptions,
) -> Result<()> {
    let Counted { wrong, .. } = references(&**storage, options, first, true)?;
    if let Some(finding) = wrong {
        let text = format!("the image was not closed cleanly, and is damaged besides: {finding}");
        return Err(Error::new(ErrorKind::Corrupt, text));
    }
    rebuild(storage, first, options)?;
    clear_marks(&**storage, &first.header)
}

/// Writes new refcounts and has the header name them.
fn rebuild(storage: &Arc<dyn Storage>, first: &FirstCluster, options: &OpenOptions) -> Result<()> {
    count_anew(storage, first, first.header.refcount_order, options)
}

/// Writes new refcounts of `1 << order` bits and has the header name them.
pub(crate) fn count_anew(
    storage: &Arc<dyn Storage>,
    first: &FirstCluster,
    order: u32,
    options: &OpenOptions,
) -> Result<()> {
    let header = &first.header;
    let mut counts = references(&**storage, options, first, false)?.counts;
    complete(&counts)?;
    let cluster = header.cluster_size();
    let per_block = (cluster * 8) >> order;
    let mut blocks: BTreeSet<u64> = BTreeSet::new();
    let mut end = storage.len()?.div_ceil(cluster);
    for (counted, times) in counts.counted(0, u64::MAX) {
        if u64::from(times) > largest(order) {
            return Err(Qcow2Error::Limit {
                structure: "refcounts",
                offset: counted * cluster,
                field: "references",
                found: times.into(),
                limit: largest(order),
            }
            .into());
        }
        blocks.insert(counted / per_block);
        end = end.max(counted + 1);
    }
    // The blocks and the table lie behind everything, and are counted themselves.
    let mut table_clusters;
    loop {
        let entries = blocks.last().map_or(1, |last| last + 1);
        table_clusters = (entries * 8).div_ceil(cluster);
        let behind = end + blocks.len() as u64 + table_clusters;
        let before = blocks.len();
        blocks.extend(end / per_block..behind.div_ceil(per_block));
        if blocks.len() == before {
            break;
        }
    }
    if table_clusters * cluster > MAX_REFCOUNT_TABLE_BYTES.max(cluster) {
        let text = "the refcount table would be longer than it may be";
        return Err(Error::new(ErrorKind::LimitExceeded, text));
    }
    let behind = end + blocks.len() as u64 + table_clusters;
    let bytes = |clusters: u64| usize::try_from(clusters * cluster).expect("at most 8 MiB");
    let mut table = vec![0; bytes(table_clusters)];
    for (place, index) in (end..).zip(&blocks) {
        let mut block = vec![0; bytes(1)];
        let covers = index * per_block..(index + 1) * per_block;
        let mut set = |counted: u64, value| {
            let at = usize::try_from(counted - covers.start).expect("inside a block");
            set_refcount(&mut block, at, order, value);
        };
        for (counted, times) in counts.counted(covers.start, covers.end) {
            set(counted, times.into());
        }
        for own in covers.start.max(end)..covers.end.min(behind) {
            set(own, 1);
        }
        storage.write_at(&block, place * cluster)?;
        let at = usize::try_from(index * 8).expect("inside the table");
        table[at..at + 8].copy_from_slice(&(place * cluster).to_be_bytes());
    }
    let table_at = (end + blocks.len() as u64) * cluster;
    storage.write_at(&table, table_at)?;
    storage.sync(SyncKind::Data)?;
    name_refcounts(&**storage, header, (table_at, table_clusters), order)?;
    set_copied(storage, header, &mut counts)
}

/// Has the header name another refcount table, with another width of refcounts, in one sector.
fn name_refcounts(
    storage: &dyn Storage,
    header: &Header,
    (table, clusters): (u64, u64),
    order: u32,
) -> Result<()> {
    let clusters = u32::try_from(clusters).expect("at most 8 MiB");
    let mut fields = [table.to_be_bytes().as_slice(), &clusters.to_be_bytes()].concat();
    if order != header.refcount_order {
        let start = usize::try_from(REFCOUNT_TABLE).expect("inside the header");
        let mut sector = vec![0; HEADER_LENGTH];
        storage.read_at(&mut sector, 0)?;
        sector.drain(..start);
        sector[..fields.len()].copy_from_slice(&fields);
        let at = sector.len() - 4;
        sector[at..].copy_from_slice(&order.to_be_bytes());
        fields = sector;
    }
    storage.write_at(&fields, REFCOUNT_TABLE)?;
    storage.sync(SyncKind::Data)
}

/// Makes the COPIED flags of the active disk say whether a cluster is referred to once.
fn set_copied(storage: &Arc<dyn Storage>, header: &Header, counts: &mut Counts) -> Result<()> {
    let cluster = header.cluster_size();
    let file_len = storage.len()?;
    let pages = Pages::new(Arc::clone(storage), &PageCache::new(1 << 20));
    let mut once = |offset: u64| counts.of(offset / cluster) == 1;
    let mut l1 = Words::new(
        header.l1_table_offset,
        u64::from(header.l1_size) * 8,
        file_len,
    );
    while let Some(first) = l1.next(&**storage)? {
        for (index, entry) in (first..).zip(l1.entries()) {
            let table = L1Entry(entry).l2_offset();
            if table == 0 || !table.is_multiple_of(cluster) || table >= file_len {
                continue;
            }
            let right = L1Entry(entry).with_copied(once(table));
            if right.0 != entry {
                pages.write_word(header.l1_table_offset + index * 8, right.0, Stage::Early)?;
            }
            if !header.has_data_file() {
                set_copied_in(&pages, &**storage, header, table, &mut once)?;
            }
            if pages.pending() > MOST_PENDING {
                write_all(&pages)?;
            }
        }
    }
    write_all(&pages)?;
    storage.sync(SyncKind::Data)
}

fn set_copied_in(
    pages: &Pages,
    storage: &dyn Storage,
    header: &Header,
    table: u64,
    once: &mut impl FnMut(u64) -> bool,
) -> Result<()> {
    let cluster = header.cluster_size();
    let width = if header.has_extended_l2() { 2 } else { 1 };
    let mut words = Words::new(table, cluster, storage.len()?);
    while let Some(first) = words.next(storage)? {
        for (index, entry) in (first..).zip(words.entries()).step_by(width) {
            let slot = L2Entry(entry);
            let host = slot.host_offset();
            let right = if slot.is_compressed() || host == 0 || !host.is_multiple_of(cluster) {
                L2Entry(entry & !COPIED)
            } else {
                slot.with_copied(once(host))
            };
            if right != slot {
                pages.write_word(table + index * 8, right.0, Stage::Early)?;
            }
        }
    }
    Ok(())
}

/// Lowers refcounts that are higher than the references.
fn lower_leaks(
    storage: &Arc<dyn Storage>,
    first: &FirstCluster,
    options: &OpenOptions,
) -> Result<()> {
    let mut counts = references(&**storage, options, first, true)?.counts;
    complete(&counts)?;
    let refcounts = Refcounts::new(&first.header);
    let pages = Pages::new(Arc::clone(storage), &PageCache::new(1 << 20));
    let end = storage.len()?.div_ceil(first.header.cluster_size());
    let per_block = refcounts.per_block();
    for index in 0..end.div_ceil(per_block) {
        if refcounts.block(&pages, index)?.is_none() {
            continue;
        }
        for cluster in index * per_block..((index + 1) * per_block).min(end) {
            let counted = counts.of(cluster).into();
            if refcounts.of(&pages, cluster)? > counted {
                refcounts.set(&pages, cluster, counted)?;
            }
        }
        if pages.pending() > MOST_PENDING {
            write_all(&pages)?;
        }
    }
    write_all(&pages)?;
    storage.sync(SyncKind::Data)
}

fn write_all(pages: &Pages) -> Result<()> {
    pages.close_batch();
    pages.write_out(Stage::Early)?;
    pages.settle();
    Ok(())
}

fn clear_marks(storage: &dyn Storage, header: &Header) -> Result<()> {
    let incompatible = header.incompatible_features & !(features::DIRTY | features::CORRUPT);
    storage.write_at(&incompatible.to_be_bytes(), FEATURES)?;
    storage.sync(SyncKind::Data)
}

fn complete(counts: &Counts) -> Result<()> {
    if counts.is_incomplete() {
        let text = "references are spread wider than memory allows to account for";
        return Err(Error::new(ErrorKind::LimitExceeded, text));
    }
    Ok(())
}
