//! L1 and L2 tables of the active disk and of every snapshot.

use blockdev_core::{Result, Severity};

use super::Checker;
use crate::io::words::Words;
use crate::meta::header::Header;
use crate::meta::references::{Reference, l2_entry, l2_table};
use crate::ondisk::l1_entry::{COPIED, L1Entry, OFFSET_MASK};
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};

/// L2 tables accounted for: about as many as the largest L1 table has, twice.
const MAX_TABLES: usize = 8 << 20;

/// How often an L2 table is referred to: by all L1 tables, and by the active one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TableUse {
    pub(super) all: u32,
    active: u32,
    /// The first entry of the active L1 table that refers to it.
    l1_index: u64,
}

/// The first entry, and what is behind it.
fn split_word(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (word, behind) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*word), behind))
}

/// How many of the first entries are of standard clusters that lie in a row and say that they are
/// referred to once; with the place of the first, and what is behind them.
fn split_run(bytes: &[u8], cluster: u64) -> (u64, u64, &[u8]) {
    let (words, _) = bytes.as_chunks();
    let first = words.first().map_or(0, |word| u64::from_be_bytes(*word));
    let offset = first & OFFSET_MASK;
    if first & !OFFSET_MASK != COPIED || offset == 0 || !offset.is_multiple_of(cluster) {
        return (0, 0, bytes);
    }
    let mut expected = first;
    let count = words
        .iter()
        .take_while(|word| {
            let is_next = u64::from_be_bytes(**word) == expected;
            expected = expected.wrapping_add(cluster);
            is_next
        })
        .count();
    (offset, count as u64, &bytes[count * 8..])
}

impl Checker<'_> {
    /// Notes the L2 tables of an L1 table: its place and its length in bytes.
    pub(super) fn l1_table(&mut self, (offset, length): (u64, u64), active: bool) -> Result<()> {
        if !self.may_read("l1", offset, length) {
            return Ok(());
        }
        let mut words = Words::new(offset, length, self.file_len);
        while let Some(first) = words.next(self.storage)? {
            for (index, entry) in (first..).zip(words.entries()) {
                let entry = L1Entry(entry);
                let from = offset + index * 8;
                let (table, breach) = l2_table(entry, self.cluster);
                if let Some((code, message)) = breach {
                    self.corrupt("l1", code, message, from);
                    self.numbers(&[("place", entry.l2_offset())]);
                }
                let Some(table) = table else { continue };
                if active {
                    self.copied("l1", (table, entry.is_copied()), (entry.0, index), from)?;
                }
                if !self.refer("l1", (table, self.cluster), 1, from) {
                    continue;
                }
                if self.tables.len() >= MAX_TABLES && !self.tables.contains_key(&table) {
                    let message = "there are more L2 tables than this check accounts for";
                    self.corrupt("l1", "too-many-tables", message, from);
                    return Ok(());
                }
                let table = self.tables.entry(table).or_default();
                table.all = table.all.saturating_add(1);
                if active && table.active == 0 {
                    table.l1_index = index;
                }
                table.active = table.active.saturating_add(active.into());
            }
        }
        Ok(())
    }

    /// Every L2 table once, in the order of the file.
    pub(super) fn mapping(&mut self, header: &Header) -> Result<()> {
        let tables = std::mem::take(&mut self.tables);
        for (&table, &used) in &tables {
            self.l2_table(table, used)?;
        }
        self.tables = tables;
        // Without an L1 table there is nothing to be in fragments.
        debug_assert!(header.l1_size > 0 || self.report.fragmented_blocks == 0);
        Ok(())
    }

    fn l2_table(&mut self, table: u64, used: TableUse) -> Result<()> {
        let mut words = Words::new(table, self.cluster, self.file_len);
        let mut behind_last = None;
        while let Some(first) = words.next(self.storage)? {
            let entries = (table + first * 8, words.bytes());
            self.l2_entries(entries, (table, used), &mut behind_last)?;
        }
        Ok(())
    }

    /// The entries of a table that lie at `from`, in runs where nothing but their place is to be said.
    fn l2_entries(
        &mut self,
        (mut from, mut rest): (u64, &[u8]),
        (table, used): (u64, TableUse),
        behind_last: &mut Option<u64>,
    ) -> Result<()> {
        let geometry = self.rules.geometry;
        let extended = geometry.has_extended_l2();
        let has_runs = used.all == 1 && used.active == 1 && !extended && !self.rules.has_data_file;
        // Entries before this are looked at one by one.
        let mut singly = from;
        while let Some((entry, mut behind)) = split_word(rest) {
            let at = from;
            if has_runs && at >= singly {
                let (offset, count, behind) = split_run(rest, self.cluster);
                if count > 1 {
                    singly = at + count * 8;
                    if self.run(offset, count, behind_last)? {
                        (from, rest) = (singly, behind);
                        continue;
                    }
                }
            }
            from += 8;
            let mut bits = SubclusterBits(0);
            if extended {
                // Pieces end on whole entries but where the file ends.
                let (word, tail) = split_word(behind).unwrap_or((0, &[]));
                (bits, behind) = (SubclusterBits(word), tail);
                from += 8;
            }
            rest = behind;
            if entry != 0 || bits.0 != 0 {
                let (entry, number) = (L2Entry(entry), (at - table) / geometry.l2_entry_bytes());
                self.l2_entry((entry, bits), at, used, behind_last)?;
                if self.raw_data_file && used.active > 0 {
                    let cluster = used.l1_index * geometry.l2_entries() + number;
                    self.raw_data((entry, bits), at, cluster * self.cluster);
                }
            }
        }
        Ok(())
    }

    /// Accounts for `count` clusters from `offset`, whose entries say that each is referred to once;
    /// false, with nothing done, where one of them needs a closer look.
    fn run(&mut self, offset: u64, count: u64, behind_last: &mut Option<u64>) -> Result<bool> {
        let len = count.checked_mul(self.cluster);
        let end = len.and_then(|len| offset.checked_add(len));
        let Some(end) = end.filter(|end| *end <= self.file_len.min(OFFSET_MASK)) else {
            return Ok(false);
        };
        let first = offset / self.cluster;
        if !self.stored.is_one_each(first, count)? {
            return Ok(false);
        }
        self.counts.add_run(first, count);
        self.report.allocated_blocks += count;
        if behind_last.is_some_and(|behind| behind != offset) {
            self.report.fragmented_blocks += 1;
        }
        *behind_last = Some(end);
        Ok(true)
    }

    fn l2_entry(
        &mut self,
        (entry, bits): (L2Entry, SubclusterBits),
        from: u64,
        used: TableUse,
        behind_last: &mut Option<u64>,
    ) -> Result<()> {
        let (reference, breaches) = l2_entry(&self.rules, entry, bits);
        for (code, message) in breaches {
            self.corrupt("l2", code, message, from);
            self.numbers(&[("place", entry.host_offset())]);
        }
        let active = u64::from(used.active);
        match reference {
            Reference::None => {}
            Reference::Compressed { offset, len } => {
                if self.rules.has_data_file {
                    return Ok(());
                }
                self.refer("l2", (offset, len), used.all, from);
                self.report.allocated_blocks += active;
                self.report.compressed_blocks += active;
                self.report.fragmented_blocks += active;
            }
            Reference::Standard { offset } => {
                self.report.allocated_blocks += active;
                if behind_last.is_some_and(|behind| behind != offset) {
                    self.report.fragmented_blocks += active;
                }
                *behind_last = offset.checked_add(self.cluster);
                if self.rules.has_data_file {
                    return Ok(());
                }
                self.refer("l2", (offset, self.cluster), used.all, from);
                if used.active > 0 {
                    let number = (from & (self.cluster - 1)) / self.rules.geometry.l2_entry_bytes();
                    self.copied("l2", (offset, entry.is_copied()), (entry.0, number), from)?;
                }
            }
        }
        Ok(())
    }

    /// In a data file that is a raw image the cluster for guest byte `guest` lies at that very byte.
    /// `qemu-img check` 10.0.2 does not look, so that it is not counted as damage; read through the
    /// image the disk is whole.
    fn raw_data(&mut self, (entry, bits): (L2Entry, SubclusterBits), from: u64, guest: u64) {
        let (reference, _) = l2_entry(&self.rules, entry, bits);
        if let Reference::Standard { offset } = reference
            && offset != guest
        {
            let message = format!(
                "the data file is said to be a raw image, but guest offset {guest:#x} is at {offset:#x}"
            );
            let breach = ("raw-data-misplaced", message.into());
            self.push(Severity::Warning, "l2", breach, from);
        }
    }

    /// The COPIED flag of an entry, the `index`th of its table, at `from`, says whether the refcount of the
    /// cluster at `offset` is exactly one.
    fn copied(
        &mut self,
        section: &'static str,
        (offset, copied): (u64, bool),
        (entry, index): (u64, u64),
        from: u64,
    ) -> Result<()> {
        let stored = self.stored.of(offset / self.cluster)?;
        if (stored == 1) != copied {
            let says = if copied { "set" } else { "clear" };
            let message =
                format!("the COPIED flag is {says}, but the refcount of {offset:#x} is {stored}");
            self.corrupt(section, "copied-flag", message, from);
            self.numbers(&[("entry", entry), ("index", index), ("refcount", stored)]);
        }
        Ok(())
    }
}
