//! The requests of one connection, and the threads that carry them out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::session::offer::MAX_REQUEST;
use crate::session::terms::Request;

/// Memory that the requests of one connection take at most, queued and under way, in bytes. The longest
/// request fits in.
const SHARE: u32 = MAX_REQUEST;

/// A request with the data that came with it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) payload: Vec<u8>,
}

/// Requests that wait, and how much memory all of them take.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    used: u32,
    idle: usize,
    ended: bool,
}

/// Memory of a request, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    queue: &'a Queue,
    bytes: u32,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.queue.lock().used -= self.bytes;
        self.queue.room.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under this lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` of memory may be taken: until others have been answered.
    pub(crate) fn reserve(&self, bytes: u32) {
        let mut state = self.lock();
        while state.used > 0 && state.used.saturating_add(bytes) > SHARE {
            let waited = self.room.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.used += bytes;
    }

    /// Queues `job`, whose memory was reserved. False when no thread waits for it.
    pub(crate) fn push(&self, job: Job) -> bool {
        let mut state = self.lock();
        state.jobs.push_back(job);
        self.work.notify_one();
        state.idle >= state.jobs.len()
    }

    /// The next job; none when there will be no more.
    pub(crate) fn pop(&self) -> Option<(Job, Held<'_>)> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(self.held(job));
            }
            if state.ended {
                return None;
            }
            state.idle += 1;
            let waited = self.work.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// The next job, if there is one now.
    pub(crate) fn try_pop(&self) -> Option<(Job, Held<'_>)> {
        let job = self.lock().jobs.pop_front()?;
        Some(self.held(job))
    }

    fn held(&self, job: Job) -> (Job, Held<'_>) {
        let bytes = job.request.memory();
        (job, Held { queue: self, bytes })
    }

    /// Lets the threads end when nothing is left to do.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.work.notify_all();
    }
}
