//! Buffers that the host takes for direct requests.

use std::sync::{Mutex, PoisonError};

/// How long each is.
pub(super) const BOUNCE_BYTES: usize = 256 << 10;

/// How many are kept for later.
const MOST_SPARE: usize = 8;

/// What buffers are aligned to at least.
const LEAST_ALIGNMENT: usize = 4096;

/// Buffers of a file, as many as are in use at once.
#[derive(Debug)]
pub(super) struct Bounces {
    alignment: usize,
    spare: Mutex<Vec<Bounce>>,
}

impl Bounces {
    /// At addresses that are multiples of `alignment`.
    pub(super) fn new(alignment: usize) -> Self {
        Self {
            alignment: alignment.max(LEAST_ALIGNMENT),
            spare: Mutex::default(),
        }
    }

    /// One of them. What it holds is left from before.
    pub(super) fn take(&self) -> Taken<'_> {
        let spare = self.lock().pop();
        Taken {
            pool: self,
            bounce: Some(spare.unwrap_or_else(|| Bounce::new(self.alignment))),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Bounce>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A longer piece of memory with an aligned one inside.
#[derive(Debug)]
struct Bounce {
    memory: Vec<u8>,
    start: usize,
}

impl Bounce {
    fn new(alignment: usize) -> Self {
        let memory = vec![0; BOUNCE_BYTES + alignment];
        let start = memory.as_ptr().addr().next_multiple_of(alignment) - memory.as_ptr().addr();
        Self { memory, start }
    }
}

/// A buffer in use.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pool: &'a Bounces,
    bounce: Option<Bounce>,
}

impl Taken<'_> {
    /// All of it, at an aligned address.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let bounce = self.bounce.as_mut().expect("given back when dropped");
        &mut bounce.memory[bounce.start..][..BOUNCE_BYTES]
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut spare = self.pool.lock();
        if spare.len() < MOST_SPARE {
            spare.extend(self.bounce.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let pool = Bounces::new(64 << 10);
        let mut taken: Vec<_> = (0..2 * MOST_SPARE).map(|_| pool.take()).collect();
        for bounce in &mut taken {
            assert_eq!(bounce.bytes().as_ptr().addr() % (64 << 10), 0);
            assert_eq!(bounce.bytes().len(), BOUNCE_BYTES);
        }
        drop(taken);
        assert_eq!(pool.lock().len(), MOST_SPARE);
        pool.take().bytes()[0] = 7;
        assert_eq!(pool.take().bytes()[0], 7);
    }
}
