//! Who may still be reading: space that was given up is not used again before they are done.
//!
//! For format crates, whose requests look a place up and then go there without a lock.
//!
//! Requests count themselves in under the present epoch. An epoch passes only when nobody of the one
//! before it is left, so what was given up in epoch *n* is nobody's any more in epoch *n* + 2.

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The requests under way, by the parity of their epoch.
#[derive(Debug, Default)]
pub struct Pins {
    epoch: AtomicU64,
    active: [AtomicUsize; 2],
}

/// One request under way.
#[derive(Debug)]
pub struct Pin<'a>(&'a AtomicUsize);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn parity(epoch: u64) -> usize {
    usize::from(epoch % 2 == 1)
}

impl Pins {
    /// Counts a request in, for as long as the pin lives. Call it before the place is looked up.
    pub fn enter(&self) -> Pin<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let pin = Pin(&self.active[parity(epoch)]);
            pin.0.fetch_add(1, Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return pin;
            }
            // The epoch passed before the count was seen: count again.
        }
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Lets as many epochs pass as can, two at most. One thread at a time.
    pub fn pass(&self) {
        for _ in 0..2 {
            let epoch = self.epoch();
            if self.active[parity(epoch + 1)].load(Ordering::SeqCst) > 0 {
                return;
            }
            self.epoch.store(epoch + 1, Ordering::SeqCst);
        }
    }

    /// True when nobody of `epoch` is left.
    #[must_use]
    pub fn is_past(&self, epoch: u64) -> bool {
        self.epoch() >= epoch + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_waits_for_who_was_there() {
        let pins = Pins::default();
        let reader = pins.enter();
        let given_up = pins.epoch();
        pins.pass();
        pins.pass();
        assert!(!pins.is_past(given_up));
        // Later requests do not hold it up.
        let _later = pins.enter();
        drop(reader);
        pins.pass();
        assert!(pins.is_past(given_up));
    }
}
