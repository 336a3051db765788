//! Changing what L2 tables say.

use blockdev_core::Result;

use super::engine::State;
use super::pages::Stage;
use crate::image::Qcow2Image;
use crate::meta::cluster::Source;
use crate::meta::write_plan::Slot;
use crate::ondisk::l1_entry::L1Entry;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

impl Qcow2Image {
    /// The entry for guest byte `guest`.
    pub(crate) fn slot(&self, guest: u64) -> Result<Slot> {
        let geometry = &self.rules.geometry;
        let Some(table) = self.tables.l2_table(geometry.l1_index(guest), geometry)? else {
            return Ok(Slot {
                entry: L2Entry(0),
                bits: SubclusterBits(0),
                place: 0,
            });
        };
        let index = geometry.l2_index(guest);
        let page = self.tables.l2_page(table, index, geometry)?;
        let (entry, bits, place) = page.entry(index).expect("the page was asked for");
        Ok(Slot { entry, bits, place })
    }

    /// The L2 table for guest byte `guest`, as one that may be changed: made where there is none,
    /// copied where a snapshot has it too.
    pub(crate) fn own_l2_table(&self, state: &mut State, guest: u64) -> Result<u64> {
        let geometry = &self.rules.geometry;
        let cluster = geometry.cluster_size();
        let index = geometry.l1_index(guest);
        if let Some((last, table)) = state.own_table
            && last == index
        {
            return Ok(table);
        }
        let entry = self.tables.l1_entry(index)?;
        let old = self.tables.l2_table(index, geometry)?;
        if let Some(table) = old
            && entry.is_copied()
        {
            state.own_table = Some((index, table));
            return Ok(table);
        }
        let new = self.allocate(state, 1)?.offset;
        match old {
            None => self.pages.clear(new, cluster)?,
            Some(old) => self.copy_table(old, new)?,
        }
        state.new_tables.insert(new);
        self.reserve(state, new, cluster, "an L2 table");
        let place = self.tables.l1_place(index);
        self.pages
            .write_word(place, L1Entry::owned(new).0, Stage::Late)?;
        if let Some(old) = old {
            // It stays what it is for the snapshot.
            state.free_later(old, 1);
        }
        state.own_table = Some((index, new));
        Ok(new)
    }

    /// Forgets what is known of tables, because flags in them changed, or others are in use now.
    pub(crate) fn forget_tables(&self) {
        if let Some(engine) = &self.engine {
            engine.lock().own_table = None;
        }
        self.tables.known.forget_all();
    }

    fn copy_table(&self, from: u64, to: u64) -> Result<()> {
        let mut at = 0;
        while at < self.cluster_size() {
            let word = self.pages.word(from + at)?;
            self.pages.write_word(to + at, word, Stage::Early)?;
            at += 8;
        }
        Ok(())
    }

    /// Sets the entry for guest byte `guest` in `table`.
    pub(crate) fn set_slot(
        &self,
        state: &State,
        table: u64,
        guest: u64,
        (entry, bits): (L2Entry, SubclusterBits),
    ) -> Result<()> {
        let geometry = &self.rules.geometry;
        let place = table + geometry.l2_index(guest) * geometry.l2_entry_bytes();
        // A table to which nothing refers yet may be written as it grows.
        let stage = if state.new_tables.contains(&table) {
            Stage::Early
        } else {
            Stage::Late
        };
        let outcome = if geometry.has_extended_l2() {
            let words = [entry.0, bits.0].map(u64::to_be_bytes);
            self.pages.write(place, &words.concat(), stage)
        } else {
            self.pages.write_word(place, entry.0, stage)
        };
        self.tables.known.forget(guest >> geometry.cluster_bits());
        outcome
    }

    /// Gives up what `slot` refers to, once it is stable that it no longer does.
    pub(crate) fn free_slot(&self, state: &mut State, slot: &Slot, discard: bool) -> Result<()> {
        if self.rules.has_data_file {
            return Ok(());
        }
        let cluster = self.cluster_size();
        if let Source::Compressed { offset, len } = self
            .rules
            .part(slot.entry, slot.bits, 0, slot.place)?
            .source
        {
            let first = offset / cluster * cluster;
            state.free_later(first, (offset + len).div_ceil(cluster) - first / cluster);
            return Ok(());
        }
        match self.rules.place_of(slot) {
            Some(host) if discard => state.discard_later(host, 1),
            Some(host) => state.free_later(host, 1),
            None => {}
        }
        Ok(())
    }
}
