//! What tables said, remembered so that it is found again without a lock and without a count.
//!
//! For format crates, whose requests would otherwise look into a page of a table each time.
//!
//! ```text
//!   reader    pin ── find ─┬─ found ───────────────────────────────► go there
//!                          └─ epoch ── look into the tables ── keep ─► go there
//!   changer   change the tables ── forget ── date what was given up ([`Pins`](crate::Pins))
//! ```
//!
//! Nothing that is kept is ever older than the last [`forget`](Translations::forget):
//!
//! - What was looked up is kept under the epoch that was taken *before* the look. Who saw the tables as
//!   they were before a change took its epoch before that change was told, and so what it keeps is of an
//!   epoch that is past, whenever it comes to keep it.
//! - Epochs are 64 bits that only grow, by one for each change, and are compared whole, as keys are: none
//!   comes again, and none is taken for another.
//!
//! And with pins, a place that was given up is not used again under someone who found it here. Reader and
//! changer both write first and read then: the reader its pin and then the epoch, the changer the epoch
//! and then the pins. Were both to read what was before the other's write, the reader would go to a place
//! that nobody sees it at. All four are sequentially consistent, which rules that out, and nothing
//! weaker does: so either the reader finds nothing, or it is waited for.

use std::sync::OnceLock;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Slots that come into being together: 4 KiB.
const CHUNK: usize = 128;
/// Chunks: 512 KiB at most, beside the budget of pages, for 1 GiB in clusters of 64 KiB.
const CHUNKS: usize = 128;
/// Keys with the same remainder by this have their epoch together.
const EPOCHS: usize = 256;

/// A bounded memory of table entries: the words that tables had for numbers of clusters or blocks.
///
/// Readers and writers share it. Keys that share a slot push each other out.
///
/// # Example
///
/// ```
/// use blockdev_core::{Result, Translations};
///
/// let known = Translations::default();
/// let look = || -> Result<u64> { Ok(0x5_0000) };
/// assert_eq!(known.find(7), None);
/// assert_eq!(known.learn(7, look, |entry| Some(*entry))?, 0x5_0000);
/// assert_eq!(known.find(7), Some(0x5_0000));
/// // The table says something else now.
/// known.forget(7);
/// assert_eq!(known.find(7), None);
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub struct Translations {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    epochs: Box<[AtomicU64]>,
}

type Chunk = [Slot; CHUNK];

/// One entry. Whoever writes it makes `turn` odd before and even again after, and whoever reads it finds
/// the same even turn before and after: so the three words are of one writer.
struct Slot {
    turn: AtomicU64,
    key: AtomicU64,
    value: AtomicU64,
    epoch: AtomicU64,
}

impl Slot {
    const fn new() -> Self {
        Self {
            turn: AtomicU64::new(0),
            key: AtomicU64::new(0),
            value: AtomicU64::new(0),
            // Before the first.
            epoch: AtomicU64::new(0),
        }
    }

    /// The value, if the slot is that of `key` in `epoch`.
    fn read(&self, key: u64, epoch: u64) -> Option<u64> {
        let turn = self.turn.load(Ordering::Acquire);
        // Acquired, so that whoever wrote one of them has changed the turn for the last look at it.
        let found = self.key.load(Ordering::Acquire) == key;
        let value = self.value.load(Ordering::Acquire);
        let is_present = self.epoch.load(Ordering::Acquire) == epoch;
        let is_whole = turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn;
        (found && is_present && is_whole).then_some(value)
    }

    /// Writes all of it, unless somebody else does so just now.
    fn write(&self, key: u64, epoch: u64, value: u64) {
        let turn = self.turn.load(Ordering::Relaxed);
        let odd = turn | 1;
        let mine = turn != odd
            && self
                .turn
                .compare_exchange(turn, odd, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if mine {
            self.key.store(key, Ordering::Release);
            self.value.store(value, Ordering::Release);
            self.epoch.store(epoch, Ordering::Release);
            self.turn.store(odd.wrapping_add(1), Ordering::Release);
        }
    }
}

impl Default for Translations {
    fn default() -> Self {
        Self {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            epochs: (0..EPOCHS).map(|_| AtomicU64::new(1)).collect(),
        }
    }
}

impl std::fmt::Debug for Translations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let made = self.chunks.iter().filter(|chunk| chunk.get().is_some());
        f.debug_struct("Translations")
            .field("slots", &(made.count() * CHUNK))
            .finish_non_exhaustive()
    }
}

impl Translations {
    /// What is remembered of `key`. Whoever goes to a place by it was counted in by
    /// [`Pins::enter`](crate::Pins::enter) before, unless places are never given up.
    #[must_use]
    pub fn find(&self, key: u64) -> Option<u64> {
        let epoch = self.epoch(key);
        let (chunk, within) = place(key);
        self.chunks[chunk].get()?[within].read(key, epoch)
    }

    /// Asks `look` what the tables say of `key`, and keeps what `worth` takes of the answer, if anything.
    ///
    /// # Errors
    /// Those of `look`; nothing is kept then.
    pub fn learn<T, E>(
        &self,
        key: u64,
        look: impl FnOnce() -> Result<T, E>,
        worth: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, E> {
        let epoch = self.epoch(key);
        let answer = look()?;
        if let Some(value) = worth(&answer) {
            let (chunk, within) = place(key);
            let chunk = self.chunks[chunk].get_or_init(|| Box::new([const { Slot::new() }; CHUNK]));
            chunk[within].write(key, epoch, value);
        }
        Ok(answer)
    }

    /// Forgets what is remembered of `key`, also what is being looked up. Call it when the change of the
    /// tables can be seen by all, and before what was given up by it is dated.
    pub fn forget(&self, key: u64) {
        self.epochs[of_epoch(key)].fetch_add(1, Ordering::SeqCst);
    }

    /// Forgets everything, under the same rule.
    pub fn forget_all(&self) {
        for epoch in &self.epochs {
            epoch.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn epoch(&self, key: u64) -> u64 {
        self.epochs[of_epoch(key)].load(Ordering::SeqCst)
    }
}

fn of_epoch(key: u64) -> usize {
    usize::try_from(key % EPOCHS as u64).expect("less than there are")
}

/// The chunk and the place in it for `key`; neighbours lie side by side.
fn place(key: u64) -> (usize, usize) {
    let at = usize::try_from(key % (CHUNKS * CHUNK) as u64).expect("less than there are");
    (at / CHUNK, at % CHUNK)
}

#[cfg(all(test, shuttle))]
mod model;

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use super::*;

    const SLOTS: u64 = (CHUNKS * CHUNK) as u64;

    fn keep(known: &Translations, key: u64, value: u64) {
        let look = || Ok::<_, ()>(value);
        known.learn(key, look, |value| Some(*value)).unwrap();
    }

    #[test]
    fn what_was_looked_up_is_found_until_it_is_forgotten() {
        let known = Translations::default();
        for key in [0, 1, 255, SLOTS - 1, SLOTS, u64::MAX] {
            assert_eq!(known.find(key), None);
            keep(&known, key, key ^ 0x55);
            assert_eq!(known.find(key), Some(key ^ 0x55));
            known.forget(key);
            assert_eq!(known.find(key), None);
            keep(&known, key, 3);
            assert_eq!(known.find(key), Some(3));
        }
        known.forget_all();
        assert_eq!(known.find(u64::MAX), None);
        assert_eq!(known.find(255), None);
    }

    /// A reader was slow: the table changed between its look and its note.
    #[test]
    fn what_changed_during_the_look_is_not_kept() {
        let known = Translations::default();
        let changed_meanwhile = || {
            known.forget(9);
            Ok::<_, ()>(1)
        };
        let old = known.learn(9, changed_meanwhile, |old| Some(*old));
        assert_eq!(old, Ok(1), "it was so when it was asked for");
        assert_eq!(known.find(9), None);
        let all_changed = || {
            known.forget_all();
            Ok::<_, ()>(1)
        };
        let _ = known.learn(9, all_changed, |old| Some(*old));
        assert_eq!(known.find(9), None);
    }

    #[test]
    fn keys_that_share_a_slot_or_an_epoch_are_not_taken_for_each_other() {
        let known = Translations::default();
        keep(&known, 5, 50);
        assert_eq!(known.find(5 + SLOTS), None);
        keep(&known, 5 + SLOTS, 51);
        assert_eq!(known.find(5), None, "pushed out");
        assert_eq!(known.find(5 + SLOTS), Some(51));
        keep(&known, 6, 60);
        known.forget(5);
        assert_eq!(known.find(6), Some(60), "another epoch");
    }

    #[test]
    fn neither_errors_nor_what_is_not_worth_it_are_kept() {
        let known = Translations::default();
        let failed = known.learn(1, || Err::<u64, _>("broken"), |value| Some(*value));
        assert_eq!(failed, Err("broken"));
        known.learn(1, || Ok::<_, ()>(7), |_| None).unwrap();
        assert_eq!(known.find(1), None);
        assert!(known.chunks.iter().all(|chunk| chunk.get().is_none()));
    }

    #[test]
    fn a_slot_that_is_being_written_is_neither_read_nor_written_by_others() {
        let slot = Slot::new();
        slot.write(1, 1, 10);
        assert_eq!(slot.read(1, 1), Some(10));
        slot.turn.fetch_add(1, Ordering::SeqCst);
        slot.write(2, 1, 20);
        assert_eq!((slot.read(1, 1), slot.read(2, 1)), (None, None));
        slot.turn.fetch_add(1, Ordering::SeqCst);
        assert_eq!(slot.read(1, 1), Some(10));
    }

    #[test]
    fn the_memory_stays_as_small_as_it_is_said_to() {
        assert!(size_of::<Chunk>() * CHUNKS <= 512 << 10);
        let known = Translations::default();
        for key in 0..3 * SLOTS {
            keep(&known, key, key);
        }
        assert_eq!(known.find(3 * SLOTS - 1), Some(3 * SLOTS - 1));
        assert_eq!(known.find(0), None);
    }
}
