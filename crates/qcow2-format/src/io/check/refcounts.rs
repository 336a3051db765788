//! The refcounts that the file keeps, and their comparison with the references that were counted.

use std::ops::Range;
use std::sync::Arc;

use blockdev_core::{ByteRange, CacheOwner, PAGE_BYTES, Result, Severity, Storage, StorageExt};

use super::Checker;
use crate::io::words::Words;
use crate::meta::counts::GROUP;
use crate::meta::header::Header;
use crate::ondisk::refcount::{BLOCK_OFFSET_MASK, refcount, set_refcount};

const PAGE: u64 = PAGE_BYTES as u64;

/// Single refcounts, looked up through the page cache.
pub(super) struct StoredRefcounts<'a> {
    storage: &'a dyn Storage,
    pages: CacheOwner,
    table: u64,
    entries: u64,
    file_len: u64,
    order: u32,
    cluster_bits: u32,
    last: Option<(u64, Arc<[u8; PAGE_BYTES]>)>,
    last_block: Option<(u64, Option<u64>)>,
    /// A page in which every refcount is 1.
    ones: Vec<u8>,
}

impl<'a> StoredRefcounts<'a> {
    pub(super) fn new(
        storage: &'a dyn Storage,
        header: &Header,
        pages: CacheOwner,
        file_len: u64,
    ) -> Self {
        let bytes = u64::from(header.refcount_table_clusters) * header.cluster_size();
        Self {
            storage,
            pages,
            table: header.refcount_table_offset,
            entries: bytes / 8,
            file_len,
            order: header.refcount_order,
            cluster_bits: header.cluster_bits,
            last: None,
            last_block: None,
            ones: ones(header.refcount_order),
        }
    }

    /// Clusters whose refcounts one block holds.
    fn per_block(&self) -> u64 {
        1 << (self.cluster_bits + 3 - self.order)
    }

    /// The block at the place that `entry` names, if one can be there.
    fn block(&self, entry: u64) -> Option<u64> {
        let offset = entry & BLOCK_OFFSET_MASK;
        let aligned = offset.trailing_zeros() >= self.cluster_bits;
        Some(offset).filter(|offset| *offset != 0 && aligned && *offset < self.file_len)
    }

    /// Where block number `number` lies, if there is one.
    fn block_at(&mut self, number: u64) -> Result<Option<u64>> {
        if let Some((last, block)) = self.last_block
            && last == number
        {
            return Ok(block);
        }
        let entry = if number < self.entries {
            let mut bytes = [0; 8];
            // Tables begin on a cluster, so an entry lies in one page.
            let place = self.table + number * 8;
            let at = usize::try_from(place % PAGE).expect("inside a page");
            bytes.copy_from_slice(&self.page(place / PAGE)?[at..at + 8]);
            u64::from_be_bytes(bytes)
        } else {
            0
        };
        let block = self.block(entry);
        self.last_block = Some((number, block));
        Ok(block)
    }

    /// True when the refcount of each of `count` clusters from `first` is 1.
    pub(super) fn is_one_each(&mut self, first: u64, count: u64) -> Result<bool> {
        // Blocks have whole pages, or are in one.
        let in_page = self.per_block().min((PAGE * 8) >> self.order);
        let in_byte = (8 >> self.order).max(1);
        let (mut next, end) = (first, first + count);
        while next < end {
            let mut stop = end.min((next / in_page + 1) * in_page);
            let is_one = if next % in_byte == 0 && stop % in_byte == 0 {
                self.is_one_each_in_page(next, stop - next)?
            } else {
                stop = next + 1;
                self.of(next)? == 1
            };
            if !is_one {
                return Ok(false);
            }
            next = stop;
        }
        Ok(true)
    }

    /// The same for clusters whose refcounts are whole bytes of one page.
    fn is_one_each_in_page(&mut self, first: u64, count: u64) -> Result<bool> {
        let Some(block) = self.block_at(first / self.per_block())? else {
            return Ok(false);
        };
        let place = block + ((first % self.per_block()) << self.order) / 8;
        let at = usize::try_from(place % PAGE).expect("inside a page");
        let len = usize::try_from((count << self.order) / 8).expect("inside a page");
        self.page(place / PAGE)?;
        let (_, page) = self.last.as_ref().expect("just loaded");
        Ok(page[at..at + len] == self.ones[..len])
    }

    /// The refcount of `cluster`; 0 where none is kept.
    pub(super) fn of(&mut self, cluster: u64) -> Result<u64> {
        let number = cluster / self.per_block();
        let Some(block) = self.block_at(number)? else {
            return Ok(0);
        };
        let bit = (cluster % self.per_block()) << self.order;
        let place = block + bit / 8;
        let order = self.order;
        // Numbers of less than a byte are found in their byte, larger ones begin on one.
        let (at, index) = (place % PAGE, (bit % 8) >> order);
        let page = self.page(place / PAGE)?;
        let bytes = &page[usize::try_from(at).expect("inside a page")..];
        Ok(refcount(
            bytes,
            usize::try_from(index).expect("inside a byte"),
            order,
        ))
    }

    fn page(&mut self, number: u64) -> Result<&[u8; PAGE_BYTES]> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            let load =
                |bytes: &mut [u8; PAGE_BYTES]| self.storage.read_zero_padded(bytes, number * PAGE);
            self.last = Some((number, self.pages.page(number, load)?));
        }
        let (_, page) = self.last.as_ref().expect("just loaded");
        Ok(page)
    }
}

/// As many bytes as a page has, of refcounts that are all 1.
fn ones(order: u32) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    for index in 0..(PAGE_BYTES * 8) >> order {
        set_refcount(&mut page, index, order, 1);
    }
    page
}

impl Checker<'_> {
    /// Counts the refcount table and its blocks, after everything else: a block shares its cluster
    /// with nothing.
    pub(super) fn refcount_table(&mut self, header: &Header) -> Result<()> {
        let (offset, length) = (self.stored.table, self.stored.entries * 8);
        if length == 0 || offset == 0 {
            let message = "there is no refcount table";
            self.corrupt("header", "refcount-table", message, 48);
        }
        if !self.own("the refcount table", "header", offset, length, 48) {
            return Ok(());
        }
        let mut words = Words::new(offset, length, self.file_len);
        while let Some(first) = words.next(self.storage)? {
            for (index, entry) in (first..).zip(words.entries()) {
                let from = offset + index * 8;
                let block = entry & BLOCK_OFFSET_MASK;
                if entry != block {
                    let message = format!("reserved bits are set: {:#x}", entry - block);
                    self.corrupt("refcounts", "table-reserved", message, from);
                    continue;
                }
                if block == 0 {
                    continue;
                }
                if !block.is_multiple_of(header.cluster_size()) {
                    let message = format!("refcount block {block:#x} is not cluster-aligned");
                    self.corrupt("refcounts", "block-unaligned", message, from);
                } else if block >= self.file_len {
                    let message = format!("refcount block {block:#x} is past the end of the file");
                    self.corrupt("refcounts", "block-outside", message, from);
                } else {
                    self.refer("refcounts", (block, self.cluster), 1, from);
                    let references = self.counts.of(block / self.cluster);
                    if references > 1 {
                        let message = format!(
                            "the cluster of refcount block {block:#x} has {references} uses"
                        );
                        self.corrupt("refcounts", "block-shared", message, from);
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares the refcount of each cluster with the references to it.
    pub(super) fn compare(&mut self, header: &Header) -> Result<()> {
        if self.counts.is_incomplete() {
            let message = "clusters are spread wider than this check accounts for; leaks and \
                           overlaps are not all found";
            let breach = ("too-wide", message.into());
            self.push(Severity::Warning, "refcounts", breach, None);
        }
        self.areas.sort_by_key(|(range, _)| *range);
        let clusters = self.file_len.div_ceil(self.cluster);
        let per_block = self.stored.per_block();
        let mut words = Words::new(self.stored.table, self.stored.entries * 8, self.file_len);
        let mut buffer = vec![0; usize::try_from(self.cluster).expect("at most 2 MiB")];
        let mut next = 0;
        'table: while let Some(first) = words.next(self.storage)? {
            for (index, entry) in (first..).zip(words.entries()) {
                let start = index.saturating_mul(per_block);
                if start >= clusters {
                    break 'table;
                }
                let Some(block) = self.stored.block(entry) else {
                    continue;
                };
                let run = self.storage.next_extent(block)?;
                if !run.allocated && run.len >= self.cluster {
                    continue;
                }
                self.storage.read_zero_padded(&mut buffer, block)?;
                if buffer.iter().all(|byte| *byte == 0) {
                    continue;
                }
                self.uncounted(next, start);
                next = start.saturating_add(per_block).min(clusters);
                self.compare_block(&buffer, start..next, header.refcount_order);
            }
        }
        self.uncounted(next, u64::MAX);
        Ok(())
    }

    /// Compares the refcounts in `block`, which are those of `clusters`, in groups where all is well.
    fn compare_block(&mut self, block: &[u8], clusters: Range<u64>, order: u32) {
        let group_bytes = (GROUP << order) / 8;
        let mut first = clusters.start;
        for group in block.chunks_exact(group_bytes) {
            let end = clusters.end.min(first + GROUP as u64);
            if end - first == GROUP as u64
                && *group == self.stored.ones[..group_bytes]
                && self.counts.is_one_each(first)
            {
                let end = end.saturating_mul(self.cluster);
                self.report.image_end_offset = self.report.image_end_offset.max(end);
            } else {
                for (index, cluster) in (first..end).enumerate() {
                    let stored = refcount(group, index, order);
                    let counted = self.counts.of(cluster);
                    if stored != 0 || counted != 0 {
                        self.compare_one(cluster, stored, counted);
                    }
                }
            }
            first = end;
        }
    }

    /// Clusters for which no refcount is kept.
    fn uncounted(&mut self, mut first: u64, end: u64) {
        // Some at a time, for there may be as many as the file has clusters.
        const SOME: usize = 4096;
        let end = end.min(self.counts.end());
        while first < end {
            let found: Vec<_> = self.counts.counted(first, end).take(SOME).collect();
            for (cluster, counted) in &found {
                self.compare_one(*cluster, 0, *counted);
            }
            match found.last() {
                Some((last, _)) => first = last + 1,
                None => return,
            }
        }
    }

    fn compare_one(&mut self, cluster: u64, stored: u64, counted: u32) {
        let offset = cluster.saturating_mul(self.cluster);
        let end = offset.saturating_add(self.cluster);
        self.report.image_end_offset = self.report.image_end_offset.max(end);
        let counted = u64::from(counted);
        let numbers = [
            ("cluster", cluster),
            ("refcount", stored),
            ("references", counted),
        ];
        let of = self.structure(offset, counted);
        if stored < counted {
            let what = of.map_or_else(String::new, |name| format!("; it is {name}'s"));
            let message = format!("the refcount is {stored}, references are {counted}{what}");
            self.corrupt("refcounts", "refcount-low", message, offset);
            self.numbers(&numbers);
            return;
        }
        if let Some(name) = of {
            let message = format!("{name} shares a cluster with something else");
            self.corrupt("refcounts", "overlap", message, offset);
        }
        if stored > counted && !self.counts.is_incomplete() {
            let message = format!("the refcount is {stored}, references are {counted}");
            let breach = ("refcount-high", message.into());
            self.push(Severity::Leak, "refcounts", breach, offset);
            self.numbers(&numbers);
        }
    }

    /// The structure whose cluster lies at `offset`, if something else refers to it as well.
    fn structure(&self, offset: u64, counted: u64) -> Option<&'static str> {
        if counted < 2 {
            return None;
        }
        if let Some(used) = self.tables.get(&offset) {
            return (counted > used.all.into()).then_some("an L2 table");
        }
        let cluster = ByteRange::new(offset, self.cluster)?;
        let near = self
            .areas
            .partition_point(|(range, _)| range.start() <= offset);
        let (range, name) = self.areas.get(near.checked_sub(1)?)?;
        range.overlaps(cluster).then_some(*name)
    }
}
