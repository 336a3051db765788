//! Whoever counted itself in while something was still there finds it there until it goes.

use blockdev_core::Pins;
use shuttle::sync::Arc;
use shuttle::thread;

use super::{every_order, many_orders};
use crate::sync::atomic::{AtomicBool, Ordering};

/// A place that is given up, and used again when nobody is left who may look at it.
#[derive(Default)]
struct Place {
    pins: Pins,
    given_up: AtomicBool,
    used_again: AtomicBool,
}

impl Place {
    fn visit(&self) {
        let _pin = self.pins.enter();
        if !self.given_up.load(Ordering::SeqCst) {
            // What it looked up a step ago is still what it was.
            assert!(
                !self.used_again.load(Ordering::SeqCst),
                "used again under a reader"
            );
        }
    }

    /// As a flush does, so often.
    fn give_up(&self, flushes: usize) {
        self.given_up.store(true, Ordering::SeqCst);
        let epoch = self.pins.epoch();
        for _ in 0..flushes {
            self.pins.pass();
            if self.pins.is_past(epoch) {
                self.used_again.store(true, Ordering::SeqCst);
                return;
            }
        }
    }
}

#[test]
fn a_place_is_not_used_again_under_a_reader() {
    let life = |readers: usize, flushes: usize| {
        let place = Arc::new(Place::default());
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let place = Arc::clone(&place);
                thread::spawn(move || place.visit())
            })
            .collect();
        place.give_up(flushes);
        for reader in readers {
            reader.join().expect("it ends");
        }
    };
    every_order("a reader and a flush", move || life(1, 1));
    many_orders("a reader and three flushes", move || life(1, 3));
    many_orders("three readers and three flushes", move || life(3, 3));
}

/// Epochs passed before, for something else.
#[test]
fn a_reader_of_an_epoch_long_past_is_not_overlooked() {
    many_orders("a reader, and flushes for two places", || {
        let place = Arc::new(Place::default());
        let reader = {
            let place = Arc::clone(&place);
            thread::spawn(move || place.visit())
        };
        place.pins.pass();
        place.give_up(2);
        reader.join().expect("it ends");
    });
}

#[test]
fn when_all_are_gone_two_epochs_pass_at_once() {
    every_order("a reader that goes", || {
        let place = Arc::new(Place::default());
        let reader = {
            let place = Arc::clone(&place);
            thread::spawn(move || place.visit())
        };
        let epoch = place.pins.epoch();
        reader.join().expect("it ends");
        place.pins.pass();
        assert!(place.pins.is_past(epoch), "nobody is left");
    });
}
