//! A longer BAT, in another place.
//!
//! ```text
//!   copy of the BAT ── barrier ── one log entry: both region tables
//! ```

use blockdev_core::{Error, ErrorKind, Result, StorageExt};

use super::inspect;
use super::tables::ENTRY_BYTES;
use crate::image::VhdxImage;
use crate::known::BAT_REGION;
use crate::meta::regions::repoint;
use crate::ondisk::MIB;
use crate::ondisk::region_table::{self, OFFSETS};

impl VhdxImage {
    /// Sees to it that the BAT has room for so many entries. Where that takes another place, the file
    /// refers to it with the next flush.
    pub(crate) fn move_bat_for(&mut self, entries: u64) -> Result<()> {
        let old = *self
            .structures
            .region_tables
            .current()?
            .require(BAT_REGION)?;
        let needed = (entries * ENTRY_BYTES).next_multiple_of(MIB);
        if needed <= u64::from(old.length) {
            return Ok(());
        }
        let length = u32::try_from(needed).map_err(|_| {
            let text = format!("a BAT of {needed} bytes");
            Error::new(ErrorKind::LimitExceeded, text)
        })?;
        let engine = self.engine()?;
        // The file's own BAT is what is copied.
        self.settle()?;
        let new = {
            let mut state = engine.lock();
            self.take_cleared(&mut state, needed)?
        };
        self.copy_stored(old.file_offset, new, u64::from(old.length))?;
        let mut table = vec![0; region_table::BYTES];
        let current = self.structures.region_tables.current()?.offset;
        self.storage.read_zero_padded(&mut table, current)?;
        repoint(&mut table, BAT_REGION, new, length);
        {
            let mut state = self.with_room(engine)?;
            for offset in OFFSETS {
                self.tables.pages().put(offset, &table)?;
            }
            state.free_metadata_later(old.file_offset, u64::from(old.length));
        }
        self.tables.set_bat_offset(new);
        // What the copies hold is known without the file, which has them a flush later.
        self.structures.region_tables = inspect::decode_region_tables([&table, &table]);
        Ok(())
    }

    /// Copies what the host stores of `len` bytes from byte `from` of the file to byte `to`, which
    /// reads as zeros.
    pub(crate) fn copy_stored(&self, from: u64, to: u64, len: u64) -> Result<()> {
        let mut buffer = vec![0; usize::try_from(MIB).expect("1 MiB")];
        let end = (from + len).min(self.storage.len()?);
        let mut at = from;
        while at < end {
            let host = self.storage.next_extent(at)?;
            let run = host.len.min(end - at);
            if !host.allocated {
                at += run;
                continue;
            }
            let piece = usize::try_from(run.min(MIB)).expect("at most 1 MiB");
            self.storage.read_at(&mut buffer[..piece], at)?;
            self.storage.write_at(&buffer[..piece], to + (at - from))?;
            at += piece as u64;
        }
        self.engine()?.wrote();
        Ok(())
    }
}
