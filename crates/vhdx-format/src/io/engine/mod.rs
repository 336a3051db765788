//! What a writable image has beyond a readable one.
//!
//! Guest bytes go to their place at once. What they change in BAT and sector bitmaps is kept in memory
//! ([`Pages`](super::pages::Pages)) until a flush logs it ([MS-VHDX] §2.3):
//!
//! ```text
//!   1  guest bytes and file length (long there), pages that an earlier entry has, in their place
//!   ── barrier ──
//!   2  one log entry with every page that changed
//!   ── barrier ──
//!      what 2 no longer refers to is free now
//! ```
//!
//! So the file never refers to bytes that are not stable, and one entry holds whole changes: a
//! partially present block, its bits and its bitmap block come together or not at all. Pages are
//! written in place when the log needs room, and at the end.
//!
//! Locks, in the order in which they may be taken: `flushing`, `state`, the image's headers. `state`
//! is held while a request is mapped, never while guest bytes are moved; bytes that are already
//! present are overwritten without it. Sectors and blocks that become present are *busy* meanwhile,
//! and whoever wants them waits.

pub(crate) mod announce;
pub(crate) mod flush;
pub(crate) mod log;
pub(crate) mod map;
pub(crate) mod space;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use blockdev_core::{Error, ErrorKind, Flushes, Pins, Result};
use uuid::Uuid;

use crate::image::VhdxImage;
use crate::meta::free_space::FreeSpace;
use log::LogWriter;

/// The writing side of an image.
#[derive(Debug)]
pub(crate) struct Engine {
    state: Mutex<State>,
    /// Told when something is no longer busy.
    settled: Condvar,
    /// Guests' flushes, each for all who asked before it began.
    flushes: Flushes,
    /// The log, and the right to flush: one after the other.
    flushing: Mutex<LogWriter>,
    pub(crate) pins: Pins,
    /// The header has the identities of a file whose content changes.
    announced: AtomicBool,
    /// Bytes were written since the last barrier was begun.
    unsynced: AtomicBool,
    poisoned: AtomicBool,
    /// Pages that one log entry can change.
    most_pages: usize,
}

/// What mapping needs and changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Found out before the first change.
    space: Option<FreeSpace>,
    /// The header has a FileWriteGuid of this open.
    is_opened_for_change: bool,
    /// The identity that the content gets with its first change; a new one if not said.
    next_data_write_guid: Option<Uuid>,
    /// Guest bytes that become present; each is [`Held`] by somebody.
    busy: Vec<Range<u64>>,
    /// Given up by changes of the open batch.
    freed: Vec<Freed>,
    /// Given up by changes of the batch that is being logged.
    freed_closing: Vec<Freed>,
    /// Given up for good, and perhaps still read from.
    draining: Vec<Freed>,
}

/// Space that nothing refers to any more.
#[derive(Debug, Clone, Copy)]
struct Freed {
    place: u64,
    len: u64,
    /// Entries of the log may write here when they are replayed, whatever is here by then.
    was_logged: bool,
    /// When it was given up.
    epoch: u64,
}

/// Guest bytes from which others are kept. Dropped without the state being held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    engine: &'a Engine,
    guest: Range<u64>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.engine.lock();
        if let Some(at) = state.busy.iter().position(|busy| *busy == self.guest) {
            state.busy.swap_remove(at);
        }
        drop(state);
        self.engine.settled.notify_all();
    }
}

impl State {
    /// Takes `space` for what is free.
    pub(crate) fn set_space(&mut self, space: FreeSpace) {
        self.space = Some(space);
    }

    /// True when something of `guest` is becoming present.
    pub(crate) fn is_busy(&self, guest: &Range<u64>) -> bool {
        let mut busy = self.busy.iter();
        busy.any(|busy| busy.start < guest.end && guest.start < busy.end)
    }

    /// Gives up `len` bytes at `place` as soon as the open batch is stable.
    pub(crate) fn free_later(&mut self, place: u64, len: u64) {
        self.freed_run(place, len, false);
    }

    /// The same for metadata, which nothing may take the place of before the log is another one.
    pub(crate) fn free_metadata_later(&mut self, place: u64, len: u64) {
        self.freed_run(place, len, true);
    }

    fn freed_run(&mut self, place: u64, len: u64, was_logged: bool) {
        if let Some(last) = self.freed.last_mut()
            && last.place + last.len == place
            && last.was_logged == was_logged
        {
            last.len += len;
            return;
        }
        self.freed.push(Freed {
            place,
            len,
            was_logged,
            epoch: 0,
        });
    }
}

impl Engine {
    pub(crate) fn new(log: LogWriter) -> Self {
        Self {
            state: Mutex::default(),
            settled: Condvar::new(),
            most_pages: log.most_pages(),
            flushes: Flushes::default(),
            flushing: Mutex::new(log),
            pins: Pins::default(),
            announced: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Pages that one log entry can change.
    pub(crate) fn most_pages(&self) -> usize {
        self.most_pages
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing of `guest` is becoming present.
    pub(crate) fn idle<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        guest: &Range<u64>,
    ) -> MutexGuard<'a, State> {
        while state.is_busy(guest) {
            state = self
                .settled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Keeps others from these guest bytes for as long as what this gives lives.
    pub(crate) fn hold(&self, state: &mut State, guest: Range<u64>) -> Held<'_> {
        state.busy.push(guest.clone());
        Held {
            engine: self,
            guest,
        }
    }

    /// Notes that bytes were written which the next barrier is for.
    pub(crate) fn wrote(&self) {
        self.unsynced.store(true, Ordering::Release);
    }

    /// Waits until no other flush is under way.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn turn(&self) -> Result<MutexGuard<'_, LogWriter>> {
        let turn = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        Ok(turn)
    }

    /// Refuses to go on after a failure that left it open what the file holds.
    pub(crate) fn check(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            let text = "an earlier failure left it open what is on disk; reopen the image";
            return Err(Error::new(ErrorKind::Poisoned, text));
        }
        Ok(())
    }

    /// Refuses every later change when `outcome` is a failure.
    pub(crate) fn poisoned_by<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        outcome
    }
}

impl VhdxImage {
    /// The writing side.
    ///
    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly), [`Poisoned`](ErrorKind::Poisoned).
    pub(crate) fn engine(&self) -> Result<&Engine> {
        let engine = self
            .engine
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::ReadOnly, "the image is opened read-only"))?;
        engine.check()?;
        Ok(engine)
    }
}
