//! Repair: refcounts made to say what the references say.
//!
//! ```text
//!   1  references counted                       nothing changed
//!   2  where every cluster in use is counted at all, refcounts in their places
//!      else new refcount blocks and table, behind everything that is in use
//!      ── barrier ── header names them
//!   ── barrier ──
//!   3  COPIED flags set and cleared
//!   ── barrier ──
//!   4  the image is no longer dirty, no longer corrupt
//! ```
//!
//! A crash leaves the image as it was or one that is repaired again: each refcount is the old one or the right
//! one, and new blocks and table are none before the header names them.

use std::collections::BTreeSet;
use std::sync::Arc;

use blockdev_core::{
    CheckReport, Error, ErrorKind, Finding, OpenOptions, PageCache, Result, Severity, Storage,
    SyncKind,
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
    /// Space that nothing refers to, in an image whose references are all told and counted.
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
    /// What was made right, in the order in which it was. Where refcounts were written anew, what held them
    /// before is noted as well (`refcounts-moved`).
    pub mended: CheckReport,
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
    let mut mended = CheckReport::default();
    let unchanged = |before: CheckReport| {
        Ok(Repaired {
            after: before.clone(),
            before,
            mended: CheckReport::default(),
        })
    };
    let Ok(first) = load(&*storage, options) else {
        return unchanged(before);
    };
    let marked = first.header.is_dirty() || first.header.is_corrupt();
    let mut counted = references(&*storage, options, &first, true)?;
    let in_place =
        !counted.structure_wrong && counts_everything(&storage, &first, &counted.counts)?;
    let limit = options.limits.check_findings;
    let mut noted = Mended {
        report: &mut mended,
        limit,
    };
    match what {
        Repair::All if !(marked || before.corruptions > 0 || before.leaks > 0) => {
            return unchanged(before);
        }
        Repair::All if in_place => {
            settle(
                &storage,
                &first,
                &mut counted.counts,
                Settle::All,
                &mut noted,
            )?;
            set_copied(&storage, &first.header, &mut counted.counts, &mut noted)?;
        }
        Repair::All => rebuild(&storage, &first, options, &mut noted)?,
        Repair::Leaks if before.leaks > 0 && counted.wrong.is_none() && in_place => {
            settle(
                &storage,
                &first,
                &mut counted.counts,
                Settle::Leaks,
                &mut noted,
            )?;
        }
        Repair::Leaks => return unchanged(before),
    }
    let after = check(Arc::clone(&storage), options)?;
    if what == Repair::All && marked && after.corruptions == 0 {
        clear_marks(&*storage, &first.header)?;
    }
    Ok(Repaired {
        before,
        after,
        mended,
    })
}

/// What is made right, noted down.
struct Mended<'a> {
    report: &'a mut CheckReport,
    limit: usize,
}

impl Mended<'_> {
    fn note(
        &mut self,
        (severity, section, code): (Severity, &'static str, &'static str),
        message: String,
        offset: u64,
        numbers: &[(&'static str, u64)],
    ) {
        let finding = Finding {
            severity,
            section,
            code,
            message: message.into(),
            reference: "qcow2: Host cluster management",
            offset: Some(offset),
            numbers: numbers.to_vec(),
        };
        self.report.push(finding, self.limit);
    }

    /// A COPIED flag of an entry at `place`, the `index`th of its table, whose cluster is referred to so often.
    fn note_flag(
        &mut self,
        section: &'static str,
        (entry, index): (u64, u64),
        referred: u32,
        place: u64,
    ) {
        let message = format!("the COPIED flag was wrong: references are {referred}");
        let numbers = [
            ("entry", entry),
            ("index", index),
            ("refcount", referred.into()),
        ];
        let what = (Severity::Corruption, section, "copied-flag");
        self.note(what, message, place, &numbers);
    }
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
    count_anew(storage, first, first.header.refcount_order, options)?;
    clear_marks(&**storage, &first.header)
}

/// Writes new refcounts and has the header name them.
fn rebuild(
    storage: &Arc<dyn Storage>,
    first: &FirstCluster,
    options: &OpenOptions,
    mended: &mut Mended<'_>,
) -> Result<()> {
    let header = &first.header;
    let cluster = header.cluster_size();
    let file_len = storage.len()?;
    let all = references(&**storage, options, first, true)?.counts;
    let refcounts = Refcounts::new(header);
    let pages = Pages::new(Arc::clone(storage), &PageCache::new(1 << 20));
    let stored = |index: u64| refcounts.of(&pages, index).unwrap_or(0);
    for (counted, times) in all.counted(0, u64::MAX) {
        let (stored, times) = (stored(counted), u64::from(times));
        if stored < times {
            let message = format!("the refcount was {stored}, references are {times}");
            let what = (Severity::Corruption, "refcounts", "refcount-low");
            let numbers = [
                ("cluster", counted),
                ("refcount", stored),
                ("references", times),
            ];
            mended.note(what, message, counted.saturating_mul(cluster), &numbers);
        }
    }
    drop(all);
    // Where they were kept is free then.
    let mut counts = references(&**storage, options, first, false)?.counts;
    let table = header.refcount_table_offset / cluster;
    let mut old: BTreeSet<u64> =
        (table..table + u64::from(header.refcount_table_clusters)).collect();
    for index in 0..file_len.div_ceil(cluster).div_ceil(refcounts.per_block()) {
        if let Ok(Some(block)) = refcounts.block(&pages, index)
            && block < file_len
        {
            old.insert(block / cluster);
        }
    }
    for place in old {
        if counts.of(place) == 0 {
            let stored = stored(place).max(1);
            let message = format!("cluster {place} held refcounts, which are elsewhere now");
            let what = (Severity::Note, "refcounts", "refcounts-moved");
            let numbers = [("cluster", place), ("refcount", stored), ("references", 0)];
            mended.note(what, message, place.saturating_mul(cluster), &numbers);
        }
    }
    count_anew(storage, first, header.refcount_order, options)
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
    let mut unnoted = CheckReport::default();
    let mut unnoted = Mended {
        report: &mut unnoted,
        limit: 0,
    };
    set_copied(storage, header, &mut counts, &mut unnoted)
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
fn set_copied(
    storage: &Arc<dyn Storage>,
    header: &Header,
    counts: &mut Counts,
    mended: &mut Mended<'_>,
) -> Result<()> {
    let cluster = header.cluster_size();
    let file_len = storage.len()?;
    let pages = Pages::new(Arc::clone(storage), &PageCache::new(1 << 20));
    let mut times = |offset: u64| counts.of(offset / cluster);
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
            let referred = times(table);
            let right = L1Entry(entry).with_copied(referred == 1);
            if right.0 != entry {
                let place = header.l1_table_offset + index * 8;
                pages.write_word(place, right.0, Stage::Early)?;
                mended.note_flag("l1", (entry, index), referred, place);
            }
            if !header.has_data_file() {
                set_copied_in((&pages, &**storage), header, table, &mut times, mended)?;
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
    (pages, storage): (&Pages, &dyn Storage),
    header: &Header,
    table: u64,
    times: &mut impl FnMut(u64) -> u32,
    mended: &mut Mended<'_>,
) -> Result<()> {
    let cluster = header.cluster_size();
    let width = if header.has_extended_l2() { 2 } else { 1 };
    let mut words = Words::new(table, cluster, storage.len()?);
    while let Some(first) = words.next(storage)? {
        for (index, entry) in (first..).zip(words.entries()).step_by(width) {
            let slot = L2Entry(entry);
            let host = slot.host_offset();
            let (right, referred) = if slot.is_compressed() || host == 0 {
                (L2Entry(entry & !COPIED), 0)
            } else {
                let referred = times(host);
                (slot.with_copied(referred == 1), referred)
            };
            if right != slot {
                let place = table + index * 8;
                pages.write_word(place, right.0, Stage::Early)?;
                mended.note_flag("l2", (entry, index / width as u64), referred, place);
            }
        }
    }
    Ok(())
}

/// Whether a refcount above 0 is kept for every cluster that is referred to, and has room for the references.
fn counts_everything(
    storage: &Arc<dyn Storage>,
    first: &FirstCluster,
    counts: &Counts,
) -> Result<bool> {
    if counts.is_incomplete() {
        return Ok(false);
    }
    let refcounts = Refcounts::new(&first.header);
    let pages = Pages::new(Arc::clone(storage), &PageCache::new(1 << 20));
    for (cluster, times) in counts.counted(0, u64::MAX) {
        if u64::from(times) > largest(first.header.refcount_order)
            || refcounts.of(&pages, cluster)? == 0
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which refcounts are made right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settle {
    /// Those that are higher than the references.
    Leaks,
    All,
}

/// Makes refcounts say what the references say, in their places.
fn settle(
    storage: &Arc<dyn Storage>,
    first: &FirstCluster,
    counts: &mut Counts,
    what: Settle,
    mended: &mut Mended<'_>,
) -> Result<()> {
    complete(counts)?;
    let refcounts = Refcounts::new(&first.header);
    let pages = Pages::new(Arc::clone(storage), &PageCache::new(1 << 20));
    let cluster_size = first.header.cluster_size();
    let end = storage.len()?.div_ceil(cluster_size);
    let per_block = refcounts.per_block();
    for index in 0..end.div_ceil(per_block) {
        if refcounts.block(&pages, index)?.is_none() {
            continue;
        }
        for cluster in index * per_block..((index + 1) * per_block).min(end) {
            let counted = u64::from(counts.of(cluster));
            let stored = refcounts.of(&pages, cluster)?;
            if stored == counted || (stored < counted && what == Settle::Leaks) {
                continue;
            }
            refcounts.set(&pages, cluster, counted)?;
            let kind = match stored < counted {
                true => (Severity::Corruption, "refcounts", "refcount-low"),
                false => (Severity::Leak, "refcounts", "refcount-high"),
            };
            let message = format!("the refcount was {stored}, references are {counted}");
            let numbers = [
                ("cluster", cluster),
                ("refcount", stored),
                ("references", counted),
            ];
            mended.note(kind, message, cluster * cluster_size, &numbers);
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
