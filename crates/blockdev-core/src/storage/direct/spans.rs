//! Which parts of a file somebody is changing.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Ranges that are held, and those that are waited for, in the order they were asked for. Whoever asks
/// waits for what came before and overlaps: so nobody waits for ever.
#[derive(Debug, Default)]
pub(super) struct Spans {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    spans: Vec<(u64, Range<u64>)>,
    next_id: u64,
}

impl Spans {
    /// Returns when nobody else holds any of `range`.
    pub(super) fn hold(&self, range: Range<u64>) -> Held<'_> {
        let mut asked = self.lock();
        let id = asked.next_id;
        asked.next_id += 1;
        asked.spans.push((id, range.clone()));
        while asked.is_before(id, &range) {
            asked = self
                .changed
                .wait(asked)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Held { spans: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// Whether some of `range` was asked for before `id` was.
    fn is_before(&self, id: u64, range: &Range<u64>) -> bool {
        let before = self.spans.iter().take_while(|(other, _)| *other != id);
        before
            .map(|(_, other)| other)
            .any(|other| other.start < range.end && range.start < other.end)
    }
}

/// A range that nobody else changes.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    spans: &'a Spans,
    id: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut asked = self.spans.lock();
        asked.spans.retain(|(id, _)| *id != self.id);
        if !asked.spans.is_empty() {
            self.spans.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn what_overlaps_waits_and_what_does_not_goes_on() {
        let spans = Spans::default();
        let held = spans.hold(10..20);
        drop((spans.hold(0..10), spans.hold(20..30)));
        let is_free = AtomicBool::new(false);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let _held = spans.hold(19..21);
                assert!(is_free.load(Ordering::SeqCst));
            });
            while spans.lock().spans.len() < 2 {
                thread::yield_now();
            }
            is_free.store(true, Ordering::SeqCst);
            drop(held);
            waiting.join().unwrap();
        });
        assert!(spans.lock().spans.is_empty());
    }
}
