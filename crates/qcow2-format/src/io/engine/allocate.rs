//! Host clusters for new content.
//!
//! Space that was freed comes first, then what a search through the refcounts finds, going up from
//! the start of the file once, then the end of the file.

use blockdev_core::{Error, ErrorKind, FreeRuns, Result};

use super::State;
use super::refcounts::Refcounts;
use crate::image::Qcow2Image;
use crate::io::pages::Stage;
use crate::meta::header::MAX_REFCOUNT_TABLE_BYTES;
use crate::ondisk::header::REFCOUNT_TABLE;

/// Host offsets are below this: 56 bits.
const END_OF_SPACE: u64 = 1 << 56;

/// Free clusters that one search finds at least, if they follow one another.
const LOOK_AHEAD: u64 = 256;

/// What is known of free clusters.
#[derive(Debug)]
pub(crate) struct Space {
    /// Free clusters below `searched`.
    pub(crate) free: FreeRuns,
    /// Below this cluster nothing is free but what `free` says.
    pub(crate) searched: u64,
    /// From `searched` to before this cluster all are free.
    clear: u64,
    /// No cluster from this one on was ever used: they read as zeros.
    pub(crate) end: u64,
}

impl Space {
    pub(crate) fn new(file_len: u64, cluster_size: u64) -> Self {
        Self {
            free: FreeRuns::default(),
            searched: 1,
            clear: 1,
            end: file_len.div_ceil(cluster_size),
        }
    }

    /// Notes that `cluster`, whose refcount is 0, may be used again.
    pub(crate) fn release(&mut self, cluster: u64) {
        // What lies further on is found by the search.
        if cluster < self.searched {
            self.free.insert(cluster, 1);
        }
    }

    /// Notes that clusters are taken which the search has not come to.
    fn overtake(&mut self) {
        self.clear = self.searched;
    }

    /// Takes at most `most` of those that the search has found already.
    fn take_clear(&mut self, most: u64) -> Option<(u64, u64)> {
        let first = self.searched;
        let count = self.clear.saturating_sub(first).min(most);
        self.searched += count;
        (count > 0).then_some((first, count))
    }
}

/// Clusters that follow one another and are now referred to once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocated {
    /// Byte offset.
    pub(crate) offset: u64,
    /// Clusters.
    pub(crate) count: u64,
    /// They were never used, and read as zeros.
    pub(crate) is_fresh: bool,
}

impl Qcow2Image {
    /// Takes at most `most` clusters that follow one another.
    pub(crate) fn allocate(&self, state: &mut State, most: u64) -> Result<Allocated> {
        let space = &mut state.space;
        let found = space.free.take(most).or_else(|| space.take_clear(most));
        let (first, count) = match found {
            Some(run) => run,
            None => self.search(state, most)?,
        };
        self.take(state, first, count)
    }

    /// Takes exactly `count` clusters that follow one another, beyond everything in use unless space
    /// that was freed suffices.
    pub(crate) fn allocate_whole(&self, state: &mut State, count: u64) -> Result<Allocated> {
        if let Some(first) = state.space.free.take_whole(count) {
            return self.take(state, first, count);
        }
        state.space.overtake();
        loop {
            let first = state.space.end;
            let per_block = state.refcounts.per_block();
            // Blocks that are missing lie behind the run, and may need further blocks themselves.
            let mut missing: Vec<u64> = Vec::new();
            loop {
                let end = first + count + missing.len() as u64;
                let next = missing.last().map_or(first / per_block, |last| last + 1);
                let Some(index) = self.missing_block(state, next, end.div_ceil(per_block))? else {
                    break;
                };
                missing.push(index);
            }
            let behind = first + count;
            let end = behind + missing.len() as u64;
            check_space(end, state)?;
            if end > state.refcounts.covered() {
                self.grow_refcount_table(state)?;
                continue;
            }
            for (block, &index) in (behind..).zip(&missing) {
                self.add_block(state, index, block)?;
            }
            // They may count each other.
            for block in behind..end {
                state.refcounts.set(&self.pages, block, 1)?;
            }
            return self.take(state, first, count);
        }
    }

    /// The first block from number `from` to before `end` that is not there.
    fn missing_block(&self, state: &State, from: u64, end: u64) -> Result<Option<u64>> {
        for index in from..end {
            if state.refcounts.block(&self.pages, index)?.is_none() {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn take(&self, state: &mut State, first: u64, count: u64) -> Result<Allocated> {
        let cluster = state.refcounts.cluster_size();
        let offset = first * cluster;
        if let Some(name) = state.reserved.find(offset, count * cluster) {
            // Their refcounts say that they are free: nothing that they say can be believed.
            return Err(self.condemn(offset, &format!("the refcount of {name} is 0")));
        }
        state.refcounts.set_run(&self.pages, first, count, 1)?;
        let is_fresh = first >= state.space.end;
        state.space.end = state.space.end.max(first + count);
        self.tables.raise_end(state.space.end * cluster);
        Ok(Allocated {
            offset,
            count,
            is_fresh,
        })
    }

    /// Looks for free clusters from where the last search ended.
    fn search(&self, state: &mut State, most: u64) -> Result<(u64, u64)> {
        loop {
            let per_block = state.refcounts.per_block();
            let from = state.space.searched;
            if from >= state.refcounts.covered() {
                self.grow_refcount_table(state)?;
                continue;
            }
            let index = from / per_block;
            if state.refcounts.block(&self.pages, index)?.is_none() {
                // The first of the clusters that it counts: none of them is in use.
                check_space(index * per_block, state)?;
                self.add_block(state, index, index * per_block)?;
                state.refcounts.set(&self.pages, index * per_block, 1)?;
            }
            let end = (index + 1) * per_block;
            let wanted = most.max(LOOK_AHEAD);
            match state.refcounts.free_run(&self.pages, from, end, wanted)? {
                Some((first, count)) => {
                    check_space(first + count.min(most), state)?;
                    state.space.searched = first;
                    state.space.clear = first + count;
                    let found = state.space.take_clear(most);
                    return Ok(found.expect("it was found just now"));
                }
                None => state.space.searched = end,
            }
        }
    }

    /// Makes block number `index`, which the table can name, in the cluster `block`, which is still
    /// to be counted.
    fn add_block(&self, state: &mut State, index: u64, block: u64) -> Result<()> {
        state.space.overtake();
        let cluster = state.refcounts.cluster_size();
        let offset = block * cluster;
        if let Some(name) = state.reserved.find(offset, cluster) {
            return Err(self.condemn(offset, &format!("no refcount block counts {name}")));
        }
        self.pages.clear(offset, cluster)?;
        state.refcounts.set_block(&self.pages, index, offset)?;
        self.reserve(state, offset, cluster, "a refcount block");
        state.space.end = state.space.end.max(block + 1);
        self.tables.raise_end(state.space.end * cluster);
        Ok(())
    }

    /// Moves the refcount table to where it has room to grow, beyond everything it counts now.
    ///
    /// ```text
    ///   everything counted so far │ new blocks │ new table │
    ///                             ▲ first cluster that the old table cannot count
    /// ```
    ///
    /// The new blocks count themselves and the table. The header names the table in one sector, when
    /// all of it is stable.
    fn grow_refcount_table(&self, state: &mut State) -> Result<()> {
        state.space.overtake();
        let old = state.refcounts;
        let cluster = old.cluster_size();
        let first = old.covered();
        let most = MAX_REFCOUNT_TABLE_BYTES / cluster;
        let clusters = (old.table_clusters + (old.table_clusters / 2).max(1)).min(most);
        if clusters <= old.table_clusters {
            let text = "the refcount table is as long as it may be";
            return Err(Error::new(ErrorKind::NoSpace, text));
        }
        let mut blocks = 1;
        while blocks * old.per_block() < blocks + clusters {
            blocks += 1;
        }
        check_space(first + blocks + clusters, state)?;
        let table = (first + blocks) * cluster;
        let new = Refcounts {
            table,
            table_clusters: clusters,
            ..old
        };
        self.pages.clear(table, clusters * cluster)?;
        for index in 0..old.entries() {
            let name = self.pages.word(old.table + index * 8)?;
            self.pages
                .write_word(table + index * 8, name, Stage::Early)?;
        }
        for block in 0..blocks {
            self.pages.clear((first + block) * cluster, cluster)?;
            let name = (first + block) * cluster;
            let place = table + (old.entries() + block) * 8;
            self.pages.write_word(place, name, Stage::Early)?;
            self.reserve(state, name, cluster, "a refcount block");
        }
        for counted in first..first + blocks + clusters {
            new.set(&self.pages, counted, 1)?;
        }
        let mut fields = [0; 12];
        fields[..8].copy_from_slice(&table.to_be_bytes());
        let small = u32::try_from(clusters).expect("at most 8 MiB");
        fields[8..].copy_from_slice(&small.to_be_bytes());
        self.pages.write(REFCOUNT_TABLE, &fields, Stage::Middle)?;
        self.reserve(state, table, clusters * cluster, "the refcount table");
        state.space.end = state.space.end.max(first + blocks + clusters);
        self.tables.raise_end(state.space.end * cluster);
        state.refcounts = new;
        state.reserved.remove(old.table);
        state.free_later(old.table, old.table_clusters);
        Ok(())
    }

    /// Gives back clusters that nothing came to refer to.
    pub(crate) fn give_back(&self, state: &mut State, offset: u64, count: u64) -> Result<()> {
        let first = offset / state.refcounts.cluster_size();
        for cluster in first..first + count {
            if state.refcounts.lower(&self.pages, cluster)? == 0 {
                state.vacate(cluster);
            }
        }
        Ok(())
    }
}

fn check_space(end: u64, state: &State) -> Result<()> {
    if end.saturating_mul(state.refcounts.cluster_size()) > END_OF_SPACE {
        let text = "the image has no host offsets left";
        return Err(Error::new(ErrorKind::NoSpace, text));
    }
    Ok(())
}
