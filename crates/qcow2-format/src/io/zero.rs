//! Making guest bytes zeros: by entries where whole clusters or subclusters allow it.

use std::ops::Range;

use blockdev_core::{Below, Result, ZeroFlags, align_down, align_up};

use super::write::only_by_bytes;
use crate::Qcow2Error;
use crate::image::Qcow2Image;
use crate::meta::write_plan::Slot;
use crate::meta::zero_plan::Change;

/// Zeros written at a time where no entry says it.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Qcow2Image {
    /// Makes `len` bytes from `offset` zeros; the range lies inside the disk.
    pub(crate) fn zero_guest(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.engine()?;
        let end = offset + len;
        let whole = self.whole_units(offset, end, self.rules.geometry.subcluster_size());
        if whole.is_empty() {
            return self.zero_bytes(offset..end, flags, below);
        }
        self.zero_bytes(offset..whole.start, flags, below)?;
        self.zero_bytes(whole.end.min(end)..end, flags, below)?;
        let backing = self.has_backing_file();
        let by_bytes = self.change_entries(whole, flags.may_unmap, |slot, range| {
            self.rules.zeroed(slot, range, flags.may_unmap, backing)
        })?;
        for range in by_bytes {
            self.zero_bytes(range.start..range.end.min(end), flags, below)?;
        }
        self.flush_if_much()
    }

    /// The whole units of `unit` bytes between `offset` and `end`; the last one of the disk counts
    /// as whole.
    pub(crate) fn whole_units(&self, offset: u64, end: u64, unit: u64) -> Range<u64> {
        let start = align_up(offset, unit).unwrap_or(u64::MAX);
        let last = if end == self.info.size {
            align_up(end, unit).unwrap_or(u64::MAX)
        } else {
            align_down(end, unit)
        };
        start..last.max(start)
    }

    /// Changes the entries of all clusters in `range`, whole subclusters, to what `decide` says of
    /// each and its part in the range. Gives the ranges for which entries have no words.
    pub(crate) fn change_entries(
        &self,
        range: Range<u64>,
        discard: bool,
        decide: impl Fn(&Slot, &Range<u64>) -> Result<Change, Qcow2Error>,
    ) -> Result<Vec<Range<u64>>> {
        let engine = self.engine()?;
        let cluster = self.cluster_size();
        let coverage = self.rules.geometry.l2_coverage();
        let mut by_bytes: Vec<Range<u64>> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / coverage + 1) * coverage);
            let first = at / cluster;
            let count = end.div_ceil(cluster) - first;
            let (mut state, idle) = engine.idle(engine.lock(), first, count);
            let end = end.min((first + idle) * cluster);
            self.announce(&mut state)?;
            let mut table = None;
            // Where there is no table, every entry is the same.
            let absent = self.slot(at)?.place == 0;
            if absent && decide(&self.slot(at)?, &(0..cluster))? == Change::Nothing {
                at = end;
                continue;
            }
            for number in first..end.div_ceil(cluster) {
                let guest = number * cluster;
                let part = at.max(guest) - guest..end.min(guest + cluster) - guest;
                let slot = self.slot(guest)?;
                match decide(&slot, &part)? {
                    Change::Nothing => {}
                    Change::To {
                        entry,
                        bits,
                        gives_up,
                    } => {
                        let table = match table {
                            Some(table) => table,
                            None => *table.insert(self.own_l2_table(&mut state, guest)?),
                        };
                        self.set_slot(&state, table, guest, (entry, bits))?;
                        if gives_up {
                            self.free_slot(&mut state, &slot, discard)?;
                        }
                    }
                    Change::ByBytes => match by_bytes.last_mut() {
                        Some(last) if last.end == guest + part.start => last.end = guest + part.end,
                        _ => by_bytes.push(guest + part.start..guest + part.end),
                    },
                }
            }
            at = end;
            drop(state);
            self.flush_if_much()?;
        }
        Ok(by_bytes)
    }

    /// Writes zeros to what does not read so already.
    pub(crate) fn zero_bytes(
        &self,
        range: Range<u64>,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        let engine = self.engine()?;
        let mut at = range.start;
        while at < range.end {
            let run = {
                let _pin = engine.pins.enter();
                self.next_run(at, range.end - at)?
            };
            let end = at + run.len;
            if self.reads_zero(run.source) {
                at = end;
                continue;
            }
            if flags.no_fallback {
                return Err(only_by_bytes());
            }
            while at < end {
                let piece = (end - at).min(ZEROS.len() as u64);
                let bytes = &ZEROS[..usize::try_from(piece).expect("no more than there are")];
                self.write_guest(bytes, at, below)?;
                at += piece;
            }
        }
        Ok(())
    }
}
