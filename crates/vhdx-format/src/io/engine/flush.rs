//! Making everything that was acknowledged stable.

use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use blockdev_core::{Result, SyncKind};
use uuid::Uuid;

use super::log::LogWriter;
use super::{Engine, Freed, State};
use crate::image::VhdxImage;
use crate::io::headers::HeaderChange;
use crate::meta::log_encode::PageUpdate;

/// Pages that one change of the mapping touches at most: the BAT entries of a block and of its bitmap
/// block, and the bits of a block of 256 MiB.
const MOST_PAGES_OF_A_CHANGE: usize = 20;

impl VhdxImage {
    /// Returns when everything acknowledged is stable: one barrier when no table changed, else two.
    /// Threads that wait for another's flush share the next.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let Some(engine) = &self.engine else {
            return Ok(());
        };
        engine.flushes.share(|| {
            let mut log = engine.turn()?;
            self.flush_batch(engine, &mut log)
        })
    }

    /// The state, with room in the open batch for one more change: everything that it touches must be
    /// in one log entry.
    pub(crate) fn with_room<'a>(&self, engine: &'a Engine) -> Result<MutexGuard<'a, State>> {
        loop {
            let state = engine.lock();
            if self.tables.pages().open() + MOST_PAGES_OF_A_CHANGE <= engine.most_pages {
                return Ok(state);
            }
            drop(state);
            self.flush_all()?;
        }
    }

    /// The state, with room for one more change, while nothing of `guest` is becoming present.
    pub(crate) fn ready<'a>(
        &self,
        engine: &'a Engine,
        guest: &Range<u64>,
    ) -> Result<MutexGuard<'a, State>> {
        loop {
            let state = self.with_room(engine)?;
            if !state.is_busy(guest) {
                return Ok(state);
            }
            drop(engine.idle(state, guest));
        }
    }

    /// Flushes, and writes every page in its place: the file holds what it is to hold, if not yet for
    /// certain.
    pub(crate) fn settle(&self) -> Result<()> {
        let engine = self.engine()?;
        let mut log = engine.turn()?;
        self.flush_batch(engine, &mut log)?;
        if self.tables.pages().apply()? {
            engine.wrote();
        }
        Ok(())
    }

    /// Flushes, writes every page in its place, and says in the header that the log is empty.
    pub(crate) fn finish(&self) -> Result<()> {
        let Some(engine) = &self.engine else {
            return Ok(());
        };
        let mut log = engine.turn()?;
        self.flush_batch(engine, &mut log)?;
        self.retire_log(engine, &mut log)?;
        // What was given up and could not be dealt with before.
        self.drain(engine, &log)
    }

    /// Writes every page in its place and says in the header that the log is empty.
    pub(crate) fn retire_log(&self, engine: &Engine, log: &mut LogWriter) -> Result<()> {
        if !log.is_named() {
            return Ok(());
        }
        self.tables.pages().apply()?;
        self.barrier(engine, log)?;
        let change = HeaderChange {
            log_guid: Some(Uuid::nil()),
            ..HeaderChange::default()
        };
        engine.poisoned_by(self.change_headers(change))?;
        log.retired();
        Ok(())
    }

    fn flush_batch(&self, engine: &Engine, log: &mut LogWriter) -> Result<()> {
        let batch = {
            let mut state = engine.lock();
            let freed = std::mem::take(&mut state.freed);
            state.freed_closing.extend(freed);
            self.tables.pages().close_batch()
        };
        if batch.is_empty() {
            if engine.unsynced.load(Ordering::Acquire) {
                self.barrier(engine, log)?;
            }
        } else if let Err(error) = self.log_batch(engine, log, &batch) {
            // For want of space perhaps: it is logged with what comes next.
            self.tables.pages().reopen(&batch);
            return Err(error);
        } else {
            self.tables.pages().logged(batch);
        }
        {
            let mut state = engine.lock();
            let epoch = engine.pins.epoch();
            let closing = std::mem::take(&mut state.freed_closing);
            let dated = closing.into_iter().map(|freed| Freed { epoch, ..freed });
            state.draining.extend(dated);
        }
        self.drain(engine, log)
    }

    /// Steps 1 to 4 of §2.3, the third of them for earlier entries only.
    fn log_batch(&self, engine: &Engine, log: &mut LogWriter, batch: &[PageUpdate]) -> Result<()> {
        let pages = self.tables.pages();
        let placement = log.place(batch, pages.changed());
        if placement.begins_anew() && pages.apply()? {
            engine.wrote();
        }
        if engine.unsynced.load(Ordering::Acquire) || log.stable_len < self.file_len() {
            self.barrier(engine, log)?;
        }
        log.write(&*self.storage, &placement, batch, self.file_len())?;
        engine.poisoned_by(self.storage.sync(SyncKind::Data))?;
        // §2.2.2 has the header name a log before its space is written to. Between the two there would
        // be a header that names a log without a valid entry, which makes the file one that does not
        // open; while it names none, nobody looks at what is in the log.
        if let Some(guid) = log.unnamed() {
            let change = HeaderChange {
                log_guid: Some(guid),
                ..HeaderChange::default()
            };
            engine.poisoned_by(self.change_headers(change))?;
            log.named();
        }
        log.commit(&placement);
        Ok(())
    }

    /// Waits until what was written so far is stable, and the file's length with it.
    fn barrier(&self, engine: &Engine, log: &mut LogWriter) -> Result<()> {
        // What is written from here on is for the next one.
        engine.unsynced.store(false, Ordering::Release);
        let file_len = self.file_len();
        let kind = if log.stable_len == file_len {
            SyncKind::Data
        } else {
            SyncKind::Full
        };
        engine.poisoned_by(self.storage.sync(kind))?;
        log.stable_len = file_len;
        Ok(())
    }

    /// Gives the space of what nobody reads any more back to the host, and lets it be used again.
    fn drain(&self, engine: &Engine, log: &LogWriter) -> Result<()> {
        let past = {
            let mut state = engine.lock();
            engine.pins.pass();
            let (past, left): (Vec<_>, Vec<_>) = std::mem::take(&mut state.draining)
                .into_iter()
                .partition(|freed| {
                    engine.pins.is_past(freed.epoch) && !(freed.was_logged && log.is_named())
                });
            state.draining = left;
            past
        };
        if past.is_empty() {
            return Ok(());
        }
        for freed in &past {
            // A host that cannot loses nothing but space.
            let _ = self.storage.punch_hole(freed.place, freed.len);
        }
        let mut state = engine.lock();
        let space = self.look_for_space(&mut state)?;
        for freed in past {
            space.give_back(freed.place, freed.len);
        }
        Ok(())
    }
}
