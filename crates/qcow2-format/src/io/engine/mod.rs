//! What a writable image has beyond a readable one.
//!
//! Guest bytes go to their place first. What they change in tables and refcounts is kept in memory
//! ([`Pages`](super::pages::Pages)) until a flush writes it, in this order:
//!
//! ```text
//!   1  guest bytes (long there), new tables, raised refcounts, lowered ones of earlier flushes
//!   ── barrier ──
//!   2  entries of L2 tables that are in use, entries of the L1 table
//!   ── barrier ──
//!      what 2 no longer refers to is free now: its refcounts are lowered in memory
//! ```
//!
//! So a crash finds tables that refer to nothing but stable clusters with refcounts, and at worst
//! refcounts that are too high: leaks. A new refcount block adds a barrier, between the block and its
//! entry in the refcount table, and so does a table that moved.
//!
//! Locks: `state` is held while a request is mapped, never while guest bytes are moved; shared by
//! requests that change nothing in it, which are those that write in place. Clusters that get a new
//! place are *busy* meanwhile, and whoever wants them waits.

pub(crate) mod allocate;
pub(crate) mod announce;
pub(crate) mod bitmaps;
pub(crate) mod flush;
pub(crate) mod refcounts;
pub(crate) mod reserve;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::PoisonError;

use blockdev_core::{Error, ErrorKind, Flushes, Pins, Result};

use crate::image::Qcow2Image;
use crate::meta::header::Header;
use crate::meta::reserved::Reserved;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use allocate::Space;
use refcounts::Refcounts;

/// The writing side of an image.
#[derive(Debug)]
pub(crate) struct Engine {
    state: RwLock<State>,
    settled: Settled,
    /// Guests' flushes, each for all who asked before it began.
    flushes: Flushes,
    /// One flush after the other.
    flushing: Mutex<()>,
    pub(crate) pins: Pins,
    /// Guest bytes were written since the last barrier was begun.
    pub(crate) unsynced: AtomicBool,
    poisoned: AtomicBool,
}

/// How often clusters have become idle, for those who wait for that.
#[derive(Debug, Default)]
struct Settled {
    told: Mutex<Told>,
    once_more: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    times: u64,
    /// Who waits; nobody is told where nobody does, as that is a call of the system.
    waiting: usize,
}

impl Settled {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times(&self) -> u64 {
        self.lock().times
    }

    fn tell(&self) {
        let mut told = self.lock();
        told.times = told.times.wrapping_add(1);
        if told.waiting > 0 {
            self.once_more.notify_all();
        }
    }

    /// Waits until it was told once more than `times`.
    fn wait(&self, times: u64) {
        let mut told = self.lock();
        told.waiting += 1;
        while told.times == times {
            let woken = self.once_more.wait(told);
            told = woken.unwrap_or_else(PoisonError::into_inner);
        }
        told.waiting -= 1;
    }
}

/// What mapping needs and changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) refcounts: Refcounts,
    pub(crate) space: Space,
    pub(crate) reserved: Reserved,
    /// Guest clusters that are being given a new place, by number.
    busy: Vec<Range<u64>>,
    /// L2 tables to which nothing in the file refers yet.
    pub(crate) new_tables: BTreeSet<u64>,
    /// Given up by changes of the open batch.
    freed: Vec<Freed>,
    /// Given up by changes of the batch that is being written.
    freed_closing: Vec<Freed>,
    /// Given up for good, and perhaps still read from.
    draining: Vec<Freed>,
    /// The L2 table that was made or found to be this disk's alone last, by its L1 index.
    pub(crate) own_table: Option<(u64, u64)>,
    /// How often the state was locked to be changed.
    turns: u64,
    /// Where the next compressed cluster goes, if behind the last one is room.
    pub(crate) packing: Option<u64>,
    /// The header says what a writer has to say.
    announced: bool,
    /// The dirty bit is set.
    dirty: bool,
}

/// Clusters to which there is one reference less.
#[derive(Debug, Clone, Copy)]
struct Freed {
    first: u64,
    count: u64,
    /// Their space goes back to the host.
    is_discarded: bool,
    /// When they were given up.
    epoch: u64,
}

impl State {
    /// Notes one reference less to `count` clusters at byte `offset`, once the open batch is stable.
    pub(crate) fn free_later(&mut self, offset: u64, count: u64) {
        self.freed_run(offset, count, false);
    }

    /// The same, and the space is to go back to the host.
    pub(crate) fn discard_later(&mut self, offset: u64, count: u64) {
        self.freed_run(offset, count, true);
    }

    fn freed_run(&mut self, offset: u64, count: u64, is_discarded: bool) {
        let first = offset / self.refcounts.cluster_size();
        if let Some(last) = self.freed.last_mut()
            && last.first + last.count == first
            && last.is_discarded == is_discarded
        {
            last.count += count;
            return;
        }
        self.freed.push(Freed {
            first,
            count,
            is_discarded,
            epoch: 0,
        });
    }

    /// Notes that the refcount of `cluster` is 0: what was there is gone, and it may be used again.
    pub(crate) fn vacate(&mut self, cluster: u64) {
        let size = self.refcounts.cluster_size();
        self.reserved.remove(cluster * size);
        // Compressed data is not packed behind what is gone.
        if self.packing.is_some_and(|at| at / size == cluster) {
            self.packing = None;
        }
        self.space.release(cluster);
    }

    /// True when a write in place changes nothing here.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced
    }

    /// How often it was locked to be changed: who finds one more than at a look, and has locked it, is
    /// the first since, and finds everything as it was.
    pub(crate) fn turns(&self) -> u64 {
        self.turns
    }

    /// How many of `count` guest clusters from number `first` nobody else gives a new place.
    pub(crate) fn idle(&self, first: u64, count: u64) -> u64 {
        let mut idle = count;
        for busy in &self.busy {
            if busy.contains(&first) {
                return 0;
            }
            if busy.start > first {
                idle = idle.min(busy.start - first);
            }
        }
        idle
    }
}

impl Engine {
    pub(crate) fn new(header: &Header, file_len: u64, reserved: Reserved) -> Self {
        Self {
            state: RwLock::new(State {
                refcounts: Refcounts::new(header),
                space: Space::new(file_len, header.cluster_size()),
                reserved,
                busy: Vec::new(),
                new_tables: BTreeSet::new(),
                freed: Vec::new(),
                freed_closing: Vec::new(),
                draining: Vec::new(),
                own_table: None,
                turns: 0,
                packing: None,
                announced: false,
                dirty: false,
            }),
            settled: Settled::default(),
            flushes: Flushes::default(),
            flushing: Mutex::new(()),
            pins: Pins::default(),
            unsynced: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
        }
    }

    pub(crate) fn lock(&self) -> RwLockWriteGuard<'_, State> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.turns = state.turns.wrapping_add(1);
        state
    }

    /// For a look, together with others that only look.
    pub(crate) fn look(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody gives guest cluster `first` a new place; then tells how many of `count`
    /// clusters from there are idle.
    pub(crate) fn idle<'a>(
        &'a self,
        mut state: RwLockWriteGuard<'a, State>,
        first: u64,
        count: u64,
    ) -> (RwLockWriteGuard<'a, State>, u64) {
        loop {
            let idle = state.idle(first, count);
            if idle > 0 {
                return (state, idle);
            }
            // Whoever lets go of them needs the state for it, and so comes after this.
            let times = self.settled.times();
            drop(state);
            self.settled.wait(times);
            state = self.lock();
        }
    }

    /// Keeps others from guest clusters until [`release`](Self::release).
    pub(crate) fn hold(&self, state: &mut State, clusters: Range<u64>) {
        state.busy.push(clusters);
    }

    pub(crate) fn release(&self, state: &mut State, clusters: &Range<u64>) {
        if let Some(at) = state.busy.iter().position(|busy| busy == clusters) {
            state.busy.swap_remove(at);
        }
        self.settled.tell();
    }

    /// Waits until no other flush is under way.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    fn turn(&self) -> Result<MutexGuard<'_, ()>> {
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

    /// Refuses every later change.
    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}

impl Qcow2Image {
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
