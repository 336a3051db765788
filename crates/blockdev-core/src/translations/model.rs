//! Readers that remember where something is, while it is moved and its old place used for something else.

use shuttle::sync::Arc;
use shuttle::thread;

use super::*;
use crate::Pins;
use crate::model::{every_order, many_orders};

const KEY: u64 = 3;

/// Something that lies at one of some places, all of which know how often they were used for something
/// else.
struct Disk {
    known: Translations,
    pins: Pins,
    /// The table: the place.
    table: AtomicU64,
    used_again: [AtomicU64; 3],
    /// The last place that was acknowledged; places only grow.
    acknowledged: AtomicU64,
}

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            known: Translations::default(),
            pins: Pins::default(),
            table: AtomicU64::new(0),
            used_again: [const { AtomicU64::new(0) }; 3],
            acknowledged: AtomicU64::new(0),
        })
    }

    /// Goes where it is, as a request does.
    fn visit(&self) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let _pin = self.pins.enter();
        let look = || Ok::<_, ()>(self.table.load(Ordering::SeqCst));
        let place = match self.known.find(KEY) {
            Some(place) => place,
            None => self
                .known
                .learn(KEY, look, |place| Some(*place))
                .expect("it looks"),
        };
        assert!(place >= acknowledged, "{place} after {acknowledged}");
        let at = usize::try_from(place).expect("one of three");
        let used_again = self.used_again[at].load(Ordering::SeqCst);
        assert_eq!(used_again, 0, "used again under a reader");
    }

    /// Moves it to the next place; the one it had is used again as soon as that may be.
    fn move_on(&self) {
        let old = self.table.load(Ordering::SeqCst);
        self.table.store(old + 1, Ordering::SeqCst);
        self.known.forget(KEY);
        self.acknowledged.store(old + 1, Ordering::SeqCst);
        let epoch = self.pins.epoch();
        self.pins.pass();
        if self.pins.is_past(epoch) {
            let at = usize::try_from(old).expect("one of three");
            self.used_again[at].store(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_reader_that_remembers_goes_nowhere_that_was_given_up() {
    let life = |visits: usize, readers: usize, moves: usize| {
        let disk = Disk::new();
        disk.visit();
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let disk = Arc::clone(&disk);
                thread::spawn(move || (0..visits).for_each(|_| disk.visit()))
            })
            .collect();
        (0..moves).for_each(|_| disk.move_on());
        for reader in readers {
            reader.join().expect("it ends");
        }
        disk.visit();
    };
    many_orders("a reader that remembers and a move", move || life(1, 1, 1));
    many_orders("two that remember and two moves", move || life(2, 2, 2));
}

/// Words of entries, each of which tells whose it is.
#[test]
fn an_entry_is_never_half_anothers() {
    let life = |writers: u64| {
        let slot = Arc::new(Slot::new());
        slot.write(0, 1, 0);
        let writers: Vec<_> = (1..=writers)
            .map(|key| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || slot.write(key, 1, key))
            })
            .collect();
        let read = |key| {
            let value = slot.read(key, 1);
            assert!(value.is_none_or(|value| value == key), "{key}: {value:?}");
        };
        (0..3).for_each(read);
        for writer in writers {
            writer.join().expect("it ends");
        }
        (0..3).for_each(read);
    };
    every_order("a slot that is written and read", move || life(1));
    many_orders("a slot that two write and one reads", move || life(2));
}
