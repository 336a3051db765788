//! Another size of the disk.
//!
//! ```text
//!   grow     longer L1 table ── header ── what lies beyond the old end made zeros ── header: size
//!   shrink   header: size ── what lies beyond the new end given up
//!
//!   an external data file grows before, and is cut after; one that is a raw image of the disk gives
//!   what is new its places before the size is told
//! ```

use std::ops::Range;

use blockdev_core::{Below, Error, ErrorKind, Result, SyncKind, ZeroFlags};

use crate::image::Qcow2Image;
use crate::meta::geometry::Geometry;
use crate::meta::header::MAX_L1_BYTES;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

impl Qcow2Image {
    /// Makes the disk `size` bytes long. New bytes read as zeros, also where the backing file, of
    /// `below_size` bytes, goes on; bytes beyond a new end are lost. `below` is what the image lies
    /// over.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a size that is no multiple of 512,
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) for an L1 table longer than 32 MiB,
    /// [`Unsupported`](ErrorKind::Unsupported) when a snapshot does not tell its size, and those of
    /// writing; after the latter the image must be reopened.
    pub fn resize(&mut self, size: u64, below: &dyn Below, below_size: u64) -> Result<()> {
        self.engine()?;
        if !size.is_multiple_of(512) || i64::try_from(size).is_err() {
            let text = format!("a disk of {size} bytes is not whole sectors");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let header = &self.first.header;
        let geometry = Geometry::new(size, header.cluster_bits, header.has_extended_l2());
        let entries = geometry.l1_entries();
        if entries * 8 > MAX_L1_BYTES {
            let text = format!("the L1 table would have {entries} entries");
            return Err(Error::new(ErrorKind::LimitExceeded, text));
        }
        if self
            .snapshots()?
            .iter()
            .any(|snapshot| snapshot.disk_size.is_none())
        {
            // It would change its size with the disk.
            let text = "a snapshot does not tell the size of its disk";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let entries = u32::try_from(entries).expect("at most 32 MiB");
        if size < self.info.size {
            self.as_a_whole(|image| image.shrink(size))?;
            return self.fit_data_file(size, size);
        }
        self.fit_data_file(self.info.size, size)?;
        self.as_a_whole(|image| image.grow(size, entries, below, below_size))
    }

    /// Makes an external data file `size` bytes long, zeros from byte `keep` on: whoever takes it for
    /// a raw image sees the same disk.
    fn fit_data_file(&self, keep: u64, size: u64) -> Result<()> {
        if !self.rules.has_data_file {
            return Ok(());
        }
        let file = self.data()?;
        let outcome = (|| {
            if file.len()? > keep {
                file.set_len(keep)?;
            }
            if size > keep {
                file.set_len(size)?;
            }
            file.sync(SyncKind::Full)
        })();
        if outcome.is_err() {
            self.engine()?.poison();
        }
        outcome
    }

    fn shrink(&mut self, size: u64) -> Result<()> {
        let old = self.info.size;
        let l1 = (self.first.header.l1_table_offset, self.first.header.l1_size);
        self.name_l1_table(l1, size)?;
        let cluster = self.cluster_size();
        let beyond = size.next_multiple_of(cluster)..old.next_multiple_of(cluster);
        self.change_entries(beyond, true, |slot, _| self.rules.unmapped(slot))?;
        Ok(())
    }

    fn grow(&mut self, size: u64, entries: u32, below: &dyn Below, below_size: u64) -> Result<()> {
        let old = self.info.size;
        let l1 = (self.first.header.l1_table_offset, self.first.header.l1_size);
        if entries > l1.1 {
            let offset = self.copy_l1_table(l1, entries)?;
            self.settle_all()?;
            self.name_l1_table((offset, entries), old)?;
            self.free_table(l1.0, u64::from(l1.1) * 8);
        }
        // What an earlier, longer life left beyond the end, and what the backing file has there.
        let cluster = self.cluster_size();
        let whole = old.next_multiple_of(cluster);
        if old < whole {
            self.zero_tail(old..whole.min(size), below)?;
        }
        let end = size.next_multiple_of(cluster);
        let hidden = below_size
            .next_multiple_of(cluster)
            .clamp(whole.min(end), end);
        let backing = self.has_backing_file() && below_size > old;
        if backing && whole < hidden {
            let flags = ZeroFlags {
                may_unmap: true,
                no_fallback: false,
            };
            let mut at = whole;
            while at < hidden {
                let mut run = below.next_run(at, hidden - at)?;
                let clusters = run.len / cluster * cluster;
                run.is_zero &= at + run.len == hidden || clusters > 0;
                let end = match (at + run.len == hidden, run.is_zero) {
                    (true, _) => hidden,
                    (_, true) => at + clusters,
                    (_, false) => (at + run.len).next_multiple_of(cluster).min(hidden),
                };
                if run.is_zero {
                    // Nothing is hidden there by saying so.
                    self.change_entries(at..end, true, |slot, _| self.rules.unmapped(slot))?;
                } else {
                    let by_bytes = self.change_entries(at..end, true, |slot, range| {
                        self.rules.zeroed(slot, range, true, true)
                    })?;
                    for range in by_bytes {
                        self.zero_bytes(range, flags, below)?;
                    }
                }
                at = end;
            }
        }
        let rest = if backing { hidden } else { whole };
        if rest < end && !self.rules.has_data_file {
            self.change_entries(rest..end, true, |slot, _| self.rules.unmapped(slot))?;
        }
        if self.first.header.is_data_file_raw() {
            self.give_places(whole..end)?;
        }
        self.settle_all()?;
        let l1 = (self.first.header.l1_table_offset, self.first.header.l1_size);
        self.name_l1_table(l1, size)
    }

    /// Gives every cluster of `range` the place in the data file that is its own. A write would do it
    /// as well, but after the bytes: a crash between them would show these to whoever takes the data
    /// file for a raw image, and zeros to everybody else.
    fn give_places(&self, range: Range<u64>) -> Result<()> {
        let engine = self.engine()?;
        let geometry = &self.rules.geometry;
        let mut guest = range.start;
        while guest < range.end {
            let end = range
                .end
                .min((guest / geometry.l2_coverage() + 1) * geometry.l2_coverage());
            let mut state = engine.lock();
            let table = self.own_l2_table(&mut state, guest)?;
            while guest < end {
                let there = (L2Entry::standard(guest), SubclusterBits::ALLOCATED);
                self.set_slot(&state, table, guest, there)?;
                guest += geometry.cluster_size();
            }
            drop(state);
            self.flush_if_much()?;
        }
        Ok(())
    }

    /// Makes the part of the last cluster that was beyond the disk zeros.
    fn zero_tail(&self, tail: Range<u64>, below: &dyn Below) -> Result<()> {
        let flags = ZeroFlags::default();
        self.zero_bytes(tail, flags, below)
    }
}
