//! Refcounts as they are to be (qcow2 specification, "Host cluster management").
//!
//! A number in memory is at all times one that may go to the file at once: it is raised before
//! anything refers to the cluster, and lowered when it is certain that the file no longer does.

use blockdev_core::{Error, ErrorKind, PAGE_BYTES, Result};

use crate::Qcow2Error;
use crate::io::pages::{Pages, Stage};
use crate::meta::header::Header;
use crate::ondisk::refcount::{BLOCK_OFFSET_MASK, largest, refcount, set_refcount};

const PAGE: u64 = PAGE_BYTES as u64;

/// Where the refcounts of one image are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refcounts {
    /// Where the refcount table lies.
    pub(crate) table: u64,
    pub(crate) table_clusters: u64,
    pub(super) order: u32,
    pub(super) cluster_bits: u32,
    /// The block that was asked for last to be changed, by number, and where it lies: no block moves.
    pub(super) at_hand: Option<(u64, u64)>,
}

impl Refcounts {
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            table: header.refcount_table_offset,
            table_clusters: header.refcount_table_clusters.into(),
            order: header.refcount_order,
            cluster_bits: header.cluster_bits,
            at_hand: None,
        }
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Clusters whose refcounts one block holds.
    pub(crate) fn per_block(&self) -> u64 {
        1 << (self.cluster_bits + 3 - self.order)
    }

    /// Blocks that the table can name.
    pub(crate) fn entries(&self) -> u64 {
        self.table_clusters << (self.cluster_bits - 3)
    }

    /// Clusters that the table can count.
    pub(crate) fn covered(&self) -> u64 {
        self.entries().saturating_mul(self.per_block())
    }

    /// The largest refcount.
    pub(crate) fn largest(&self) -> u64 {
        largest(self.order)
    }

    /// Where block number `index` lies, if there is one.
    pub(crate) fn block(&self, pages: &Pages, index: u64) -> Result<Option<u64>> {
        if let Some((last, block)) = self.at_hand
            && last == index
        {
            return Ok(Some(block));
        }
        if index >= self.entries() {
            return Ok(None);
        }
        let place = self.table + index * 8;
        let block = pages.word(place)? & BLOCK_OFFSET_MASK;
        if !block.is_multiple_of(self.cluster_size()) || i64::try_from(block).is_err() {
            return Err(Qcow2Error::Entry {
                structure: "refcount table entry",
                offset: place,
                problem: format!("block offset {block:#x} is not cluster-aligned").into(),
            }
            .into());
        }
        Ok(Some(block).filter(|block| *block != 0))
    }

    /// Names the block at `block` as number `index`.
    pub(crate) fn set_block(&self, pages: &Pages, index: u64, block: u64) -> Result<()> {
        pages.write_word(self.table + index * 8, block, Stage::Middle)
    }

    /// The refcount of `cluster`; 0 where none is kept.
    pub(crate) fn of(&self, pages: &Pages, cluster: u64) -> Result<u64> {
        let Some(block) = self.block(pages, cluster / self.per_block())? else {
            return Ok(0);
        };
        let (byte, index) = self.place(block, cluster);
        let page = pages.page(byte / PAGE)?;
        let at = usize::try_from(byte % PAGE).expect("inside a page");
        Ok(refcount(&page[at..], index, self.order))
    }

    /// Byte that holds the refcount of `cluster` in the block at `block`, and its index from there.
    fn place(&self, block: u64, cluster: u64) -> (u64, usize) {
        let bit = (cluster % self.per_block()) << self.order;
        let index = usize::try_from((bit % 8) >> self.order).expect("inside a byte");
        (block + bit / 8, index)
    }

    /// Sets the refcount of `cluster`, which a block counts.
    pub(crate) fn set(&self, pages: &Pages, cluster: u64, value: u64) -> Result<()> {
        let block = self.block_of(pages, cluster)?;
        self.set_in(pages, block, cluster, value)
    }

    /// Sets the refcounts of `count` clusters from `first`, which blocks count.
    pub(crate) fn set_run(
        &mut self,
        pages: &Pages,
        first: u64,
        count: u64,
        value: u64,
    ) -> Result<()> {
        for cluster in first..first + count {
            let block = self.block_of(pages, cluster)?;
            self.at_hand = Some((cluster / self.per_block(), block));
            self.set_in(pages, block, cluster, value)?;
        }
        Ok(())
    }

    /// Where the block lies that counts `cluster`.
    fn block_of(&self, pages: &Pages, cluster: u64) -> Result<u64> {
        let index = cluster / self.per_block();
        self.block(pages, index)?.ok_or_else(|| {
            Error::corrupt(
                "refcount table",
                self.table + index * 8,
                format!("no refcount block counts cluster {cluster}"),
            )
        })
    }

    fn set_in(&self, pages: &Pages, block: u64, cluster: u64, value: u64) -> Result<()> {
        let (byte, index) = self.place(block, cluster);
        let width = 1 << self.order.saturating_sub(3);
        pages.alter(byte, width, Stage::Early, |bytes| {
            set_refcount(bytes, index, self.order, value);
        })
    }

    /// Raises the refcount of `cluster` by `by`.
    ///
    /// # Errors
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) when the refcount's width does not allow it.
    pub(crate) fn raise(&self, pages: &Pages, cluster: u64, by: u64) -> Result<()> {
        let value = self.of(pages, cluster)?;
        let raised = value.checked_add(by).filter(|n| *n <= self.largest());
        let raised = raised.ok_or_else(|| {
            let text = format!(
                "cluster {cluster} is referred to {value} times, and refcounts of {} bits count no \
                 further",
                1 << self.order
            );
            Error::new(ErrorKind::LimitExceeded, text)
        })?;
        self.set(pages, cluster, raised)
    }

    /// Lowers the refcount of `cluster` by 1 and gives what is left.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) when it is 0 already.
    pub(crate) fn lower(&self, pages: &Pages, cluster: u64) -> Result<u64> {
        let value = self.of(pages, cluster)?;
        let lowered = value.checked_sub(1).ok_or_else(|| {
            let text = "a cluster that is in use has refcount 0";
            Error::corrupt("refcounts", cluster << self.cluster_bits, text)
        })?;
        self.set(pages, cluster, lowered)?;
        Ok(lowered)
    }

    /// The first of the clusters from `from` to before `end` whose refcount is 0, and how many such
    /// follow one another from there, at most `most`; `None` when there is none, or none is counted
    /// by a block that is there.
    pub(crate) fn free_run(
        &self,
        pages: &Pages,
        from: u64,
        end: u64,
        most: u64,
    ) -> Result<Option<(u64, u64)>> {
        let mut found: Option<(u64, u64)> = None;
        let mut at = from;
        while at < end {
            let next_block = (at / self.per_block() + 1) * self.per_block();
            let Some(block) = self.block(pages, at / self.per_block())? else {
                if found.is_some() {
                    break;
                }
                at = next_block;
                continue;
            };
            // One page of the block.
            let (byte, _) = self.place(block, at);
            let page = pages.page(byte / PAGE)?;
            let per_page = (PAGE * 8) >> self.order;
            let stop = (at + per_page - self.index_in_page(block, at))
                .min(next_block)
                .min(end);
            while at < stop {
                let (byte, index) = self.place(block, at);
                let within = usize::try_from(byte % PAGE).expect("inside a page");
                if refcount(&page[within..], index, self.order) == 0 {
                    let run = found.get_or_insert((at, 0));
                    run.1 += 1;
                    if run.1 == most {
                        return Ok(found);
                    }
                } else if found.is_some() {
                    return Ok(found);
                }
                at += 1;
            }
        }
        Ok(found)
    }

    /// How many refcounts lie before that of `cluster` in the same page.
    fn index_in_page(&self, block: u64, cluster: u64) -> u64 {
        let bit = (cluster % self.per_block()) << self.order;
        (((block % PAGE) * 8 + bit) % (PAGE * 8)) >> self.order
    }
}
