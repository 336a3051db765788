//! One flush for all who ask for one at the same time.
//!
//! ```text
//!   A  asks ─► flushes ──────────────┐
//!   B      asks ─► waits             ├─► flushes for itself and C ─┐
//!   C           asks ─► waits        ┘                   C: as B ◄─┘
//! ```
//!
//! A flush that is under way when somebody asks may have begun before what that one wrote: it waits
//! for the next, which is everybody's who waits by then.

use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::{Error, Result};

/// Flushes of one image, one after the other, each for all who asked before it began.
///
/// For format crates and others that have threads which flush the same file.
#[derive(Debug, Default)]
pub struct Flushes {
    course: Mutex<Course>,
    ended: Condvar,
}

/// Flushes by number, from 1.
#[derive(Debug, Default)]
struct Course {
    /// The last one that was begun.
    begun: u64,
    /// The last one that came to its end; what was begun and is neither this nor under way panicked.
    ended: u64,
    is_running: bool,
    waiting: usize,
    /// The last one that failed, and how.
    failed: Option<(u64, Error)>,
}

impl Course {
    /// What comes of a flush that whoever asked for number `wanted` can rely on, if one has ended.
    fn outcome(&self, wanted: u64) -> Option<Result<()>> {
        if self.ended < wanted {
            return None;
        }
        // Also where a later one succeeded: what the host dropped, it does not report again.
        let failed = self.failed.as_ref().filter(|(number, _)| *number >= wanted);
        Some(failed.map_or(Ok(()), |(_, error)| Err(error.again())))
    }
}

/// A flush under way; without an end it counts as never made.
struct Running<'a> {
    flushes: &'a Flushes,
    number: u64,
    outcome: Option<Result<(), Error>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut course = self.flushes.course();
        course.is_running = false;
        if let Some(outcome) = self.outcome.take() {
            course.ended = self.number;
            if let Err(error) = outcome {
                course.failed = Some((self.number, error));
            }
        }
        let is_awaited = course.waiting > 0;
        drop(course);
        if is_awaited {
            self.flushes.ended.notify_all();
        }
    }
}

impl Flushes {
    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a flush that began after this call did has ended: by `flush`, or by what another
    /// thread passed here. `flush` itself does not come here again.
    ///
    /// # Errors
    /// That of the flush. All who shared it get it, with its kind, its message and its place; its
    /// cause is told to the one that made it.
    pub fn share(&self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut course = self.course();
        // One that is under way may have begun before the caller's last write.
        let wanted = course.begun + 1;
        while course.is_running {
            course.waiting += 1;
            course = self
                .ended
                .wait(course)
                .unwrap_or_else(PoisonError::into_inner);
            course.waiting -= 1;
            if let Some(outcome) = course.outcome(wanted) {
                return outcome;
            }
        }
        course.begun += 1;
        course.is_running = true;
        let mut running = Running {
            flushes: self,
            number: course.begun,
            outcome: None,
        };
        drop(course);
        let outcome = flush();
        running.outcome = Some(
            outcome
                .as_ref()
                .map_or_else(|e| Err(e.again()), |()| Ok(())),
        );
        outcome
    }
}

#[cfg(all(test, shuttle))]
mod model;

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::ErrorKind;

    /// Waits until `count` threads wait for the flush under way.
    fn until_waiting(flushes: &Flushes, count: usize) {
        while flushes.course().waiting < count {
            thread::yield_now();
        }
    }

    #[test]
    fn those_who_wait_share_the_next_flush_and_not_the_one_under_way() {
        let (flushes, made) = (Flushes::default(), AtomicUsize::new(0));
        let flush = || {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        thread::scope(|scope| {
            let (go, gate) = mpsc::channel();
            let flushes = &flushes;
            let first = scope.spawn(move || {
                flushes.share(|| {
                    gate.recv().expect("the other side sends");
                    Ok(())
                })
            });
            while !flushes.course().is_running {
                thread::yield_now();
            }
            let others = [(); 7].map(|()| scope.spawn(|| flushes.share(flush)));
            until_waiting(flushes, 7);
            assert_eq!(made.load(Ordering::SeqCst), 0);
            go.send(()).expect("the other side receives");
            for thread in others.into_iter().chain([first]) {
                thread.join().expect("it ends").expect("it flushes");
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
        flushes.share(flush).expect("it flushes");
        assert_eq!(made.load(Ordering::SeqCst), 2, "alone it is one each");
    }

    /// Eight threads ask while a flush is under way; gives what `flush` brings each of them.
    fn eight_behind(
        first: impl FnOnce() -> Result<()> + Send,
        flush: impl Fn() -> Result<()> + Sync,
    ) -> Vec<Result<()>> {
        let flushes = Flushes::default();
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let led = || {
                    until_waiting(&flushes, 8);
                    first()
                };
                catch_unwind(AssertUnwindSafe(|| flushes.share(led)))
            });
            while !flushes.course().is_running {
                thread::yield_now();
            }
            let others = [(); 8].map(|()| scope.spawn(|| flushes.share(&flush)));
            let outcomes = others.map(|thread| thread.join().expect("it ends"));
            drop(leader.join());
            outcomes.into()
        })
    }

    #[test]
    fn a_failure_is_told_to_everyone_who_shared_it() {
        let failure = || Err(Error::corrupt("L2 table", 512, "lost"));
        let outcomes = eight_behind(|| Ok(()), failure);
        for outcome in outcomes {
            let error = outcome.expect_err("it failed");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(error.to_string(), "L2 table at 0x200: lost");
        }
    }

    #[test]
    fn the_failure_of_an_earlier_flush_is_not_theirs() {
        let outcomes = eight_behind(|| Err(ErrorKind::NoSpace.into()), || Ok(()));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }

    #[test]
    fn nobody_waits_for_one_that_panicked() {
        let made = AtomicUsize::new(0);
        let flush = || {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let outcomes = eight_behind(|| panic!("as the test wants it"), flush);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
