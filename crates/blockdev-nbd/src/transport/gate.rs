//! How many connections there are, and whether the server still runs.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Stream;

/// What the threads of a server share besides its exports.
#[derive(Debug)]
pub(crate) struct Gate {
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Connections, so that they can be told of the end.
    open: HashMap<u64, Stream>,
    /// Those of them that have an export.
    served: usize,
    /// There was one.
    ever: bool,
    closing: bool,
}

/// A place in the server, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    gate: &'a Gate,
    number: u64,
    served: bool,
}

impl Gate {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under this lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a place, waited for for `patience` at most; none for a server that stops. It is for
    /// [`take`](Self::take), in the thread that has it then.
    pub(crate) fn enter(&self, stream: Stream, patience: Duration) -> Option<u64> {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        while state.open.len() >= self.most && !state.closing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.closing {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.open.insert(number, stream);
        Some(number)
    }

    /// The place of that number.
    pub(crate) fn take(&self, number: u64) -> Place<'_> {
        Place {
            gate: self,
            number,
            served: false,
        }
    }

    /// True once the server is to stop.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Lets nobody in, and lets those inside send no more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        for stream in state.open.values() {
            stream.shutdown(Shutdown::Read);
        }
        self.changed.notify_all();
    }

    /// Returns when everybody has gone; who has not gone after `patience` is cut off.
    pub(crate) fn clear(&self, patience: Duration) {
        let state = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(state, patience, |state| !state.open.is_empty());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        for stream in state.open.values() {
            stream.shutdown(Shutdown::Both);
        }
    }

    /// Returns when the server is to stop, or, with `last`, when the last client has gone.
    pub(crate) fn wait(&self, last: bool) {
        let mut state = self.lock();
        while !(state.closing || last && state.ever && state.served == 0) {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Place<'_> {
    /// The client has an export: it counts as one.
    pub(crate) fn serve(&mut self) {
        self.served = true;
        let mut state = self.gate.lock();
        state.served += 1;
        state.ever = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.open.remove(&self.number);
        state.served -= usize::from(self.served);
        self.gate.changed.notify_all();
    }
}
