//! What changes the image as a whole, with nobody else at it.
//!
//! Between the first and the last write of such a change refcounts and COPIED flags may contradict
//! each other. Version 3 says so by the dirty bit, and whoever opens the image after a crash counts
//! anew. Version 2 has no such bit: there the order of writes alone sees to it that refcounts are
//! never too low, and at worst a flag is missing, which costs a copy.

use blockdev_core::{Error, ErrorKind, Result};

use super::pages::Stage;
use crate::image::Qcow2Image;
use crate::meta::cluster::Source;
use crate::meta::write_plan::Slot;
use crate::ondisk::l1_entry::L1Entry;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

/// Something that tables refer to, and the entry that does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Referred {
    /// An L2 table, by the L1 entry at this place.
    Table { place: u64, entry: L1Entry },
    /// A cluster or packed bytes, by an L2 entry.
    Slot(Slot),
}

/// How refcounts change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift {
    /// There is one reference more to everything.
    Up,
    /// There is one reference less.
    Down,
}

impl Qcow2Image {
    /// Carries out a change of the whole image. When it fails half way the image must be reopened.
    pub(crate) fn as_a_whole<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.settle_all()?;
        {
            let engine = self.engine()?;
            let mut state = engine.lock();
            self.announce(&mut state)?;
            state.packing = None;
            self.mark_dirty(&mut state)?;
        }
        let outcome = change(self).and_then(|value| self.settle_all().map(|()| value));
        let engine = self.engine()?;
        match outcome {
            Ok(value) => {
                if !self.first.header.has_lazy_refcounts() {
                    self.withdraw(&mut engine.lock())?;
                }
                Ok(value)
            }
            Err(error) => {
                engine.poison();
                Err(error)
            }
        }
    }

    /// Flushes until nothing is left to write.
    pub(crate) fn settle_all(&self) -> Result<()> {
        self.flush_all()?;
        while self.pages.pending() > 0 {
            self.flush_all()?;
        }
        Ok(())
    }

    /// Refuses what images with an external data file do not have.
    pub(crate) fn refuse_data_file(&self, what: &str) -> Result<()> {
        if self.rules.has_data_file {
            let text = format!("an image with an external data file has no {what}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(())
    }

    /// Hands everything that the L1 table of `entries` entries at `l1` refers to to `visit`: each
    /// L2 table before what it refers to.
    pub(crate) fn walk(
        &self,
        (l1, entries): (u64, u32),
        visit: &mut dyn FnMut(Referred) -> Result<()>,
    ) -> Result<()> {
        let geometry = self.rules.geometry;
        let width = geometry.l2_entry_bytes();
        for place in (l1..).step_by(8).take(entries as usize) {
            let entry = L1Entry(self.pages.word(place)?);
            let table = entry.l2_offset();
            if table == 0 {
                continue;
            }
            if !table.is_multiple_of(geometry.cluster_size()) {
                return Err(Error::corrupt(
                    "L1 entry",
                    place,
                    "it is not cluster-aligned",
                ));
            }
            visit(Referred::Table { place, entry })?;
            for place in (table..table + geometry.cluster_size())
                .step_by(usize::try_from(width).expect("8 or 16"))
            {
                let entry = L2Entry(self.pages.word(place)?);
                let bits = match width {
                    16 => SubclusterBits(self.pages.word(place + 8)?),
                    _ => SubclusterBits(0),
                };
                if entry.0 != 0 || bits.0 != 0 {
                    visit(Referred::Slot(Slot { entry, bits, place }))?;
                }
            }
            self.flush_if_much()?;
        }
        Ok(())
    }

    /// The host clusters that `referred` is: the first, and how many.
    fn clusters_of(&self, referred: Referred) -> Result<(u64, u64)> {
        let cluster = self.cluster_size();
        let slot = match referred {
            Referred::Table { entry, .. } => return Ok((entry.l2_offset() / cluster, 1)),
            Referred::Slot(slot) => slot,
        };
        let part = self.rules.part(slot.entry, slot.bits, 0, slot.place)?;
        if let Source::Compressed { offset, len } = part.source {
            let first = offset / cluster;
            return Ok((first, (offset + len).div_ceil(cluster) - first));
        }
        Ok(match self.rules.place_of(&slot) {
            Some(host) => (host / cluster, 1),
            None => (0, 0),
        })
    }

    /// Fails when something that the L1 table refers to cannot be referred to once more.
    pub(crate) fn check_room(&self, l1: (u64, u32)) -> Result<()> {
        let engine = self.engine()?;
        let refcounts = engine.lock().refcounts;
        self.walk(l1, &mut |referred| {
            let (first, count) = self.clusters_of(referred)?;
            for cluster in first..first + count {
                if refcounts.of(&self.pages, cluster)? >= refcounts.largest() {
                    let text = "refcounts of this width do not count one reference more";
                    return Err(Error::new(ErrorKind::LimitExceeded, text));
                }
            }
            Ok(())
        })
    }

    /// Counts one reference more or less to everything that the L1 table refers to.
    pub(crate) fn shift(&self, l1: (u64, u32), shift: Shift) -> Result<()> {
        let engine = self.engine()?;
        self.walk(l1, &mut |referred| {
            let (first, count) = self.clusters_of(referred)?;
            let mut state = engine.lock();
            for cluster in first..first + count {
                match shift {
                    Shift::Up => state.refcounts.raise(&self.pages, cluster, 1)?,
                    Shift::Down => {
                        if state.refcounts.lower(&self.pages, cluster)? == 0 {
                            state.vacate(cluster);
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Clears the COPIED flags of all that the L1 table refers to, before it is shared.
    pub(crate) fn share(&self, l1: (u64, u32)) -> Result<()> {
        let outcome = self.walk(l1, &mut |referred| self.set_copied(referred, false));
        self.forget_tables();
        outcome?;
        // A flag that is set where refcounts are higher leads writers into what is shared.
        self.settle_all()
    }

    /// Sets the COPIED flags of all that the active disk alone refers to.
    pub(crate) fn claim_what_is_owned(&self) -> Result<()> {
        let engine = self.engine()?;
        let refcounts = engine.lock().refcounts;
        let header = &self.first.header;
        let l1 = (header.l1_table_offset, header.l1_size);
        let outcome = self.walk(l1, &mut |referred| {
            let packed = matches!(referred, Referred::Slot(slot) if slot.entry.is_compressed());
            let (first, count) = self.clusters_of(referred)?;
            if count == 1 && !packed && refcounts.of(&self.pages, first)? == 1 {
                self.set_copied(referred, true)?;
            }
            Ok(())
        });
        self.forget_tables();
        outcome
    }

    fn set_copied(&self, referred: Referred, copied: bool) -> Result<()> {
        let (place, old, new) = match referred {
            Referred::Table { place, entry } => (place, entry.0, entry.with_copied(copied).0),
            Referred::Slot(Slot { place, entry, .. }) => {
                (place, entry.0, entry.with_copied(copied).0)
            }
        };
        if old == new {
            return Ok(());
        }
        self.pages.write_word(place, new, Stage::Late)
    }

    /// Writes fields of the header that lie in one sector, so that they change together.
    pub(crate) fn write_header(&self, offset: u64, fields: &[u8]) -> Result<()> {
        self.pages.write_through(offset, fields)?;
        self.sync_image()
    }
}
