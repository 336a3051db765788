//! Linux: several reads by one call, through `io_uring`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode, types};

use crate::ReadPart;

/// How many reads are under way at once at most.
pub(crate) const MOST_READS: usize = 64;

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The host was not asked.
    NotAsked,
    /// So many bytes are there; fewer than were wanted at the end of a file, and elsewhere if the host
    /// likes.
    Read(usize),
    /// It failed with this number.
    Failed(i32),
}

/// A pair of queues with the kernel. Between calls nothing is under way.
pub(crate) struct Ring {
    queues: IoUring,
    is_sound: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("is_sound", &self.is_sound)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// # Errors
    /// Where the kernel has none, or does not let this process have one.
    pub(crate) fn new() -> io::Result<Self> {
        let entries = u32::try_from(MOST_READS).expect("it is 64");
        let queues = IoUring::new(entries)?;
        let mut probe = Probe::new();
        queues.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            queues,
            is_sound: true,
        })
    }

    /// False when it is of no use any more.
    pub(crate) fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Has the host read those of `parts`, [`MOST_READS`] at most, that it is `asked` for, all at once, and
    /// returns when none of these reads is under way any more.
    pub(crate) fn read(
        &mut self,
        file: &File,
        parts: &mut [ReadPart<'_>],
        asked: &[bool; MOST_READS],
    ) -> [Outcome; MOST_READS] {
        let mut outcomes = [Outcome::NotAsked; MOST_READS];
        let mut under_way = UnderWay {
            ring: self,
            outcomes: &mut outcomes,
            left: 0,
        };
        let fd = types::Fd(file.as_raw_fd());
        let asked = parts.iter_mut().zip(asked).enumerate();
        for (index, (part, _)) in asked.filter(|(_, (_, asked))| **asked) {
            let Ok(len) = u32::try_from(part.buf.len()) else {
                continue;
            };
            let read = opcode::Read::new(fd, part.buf.as_mut_ptr(), len).offset(part.offset);
            let entry = read.build().user_data(index as u64);
            // SAFETY: the kernel may write to the buffer, through the descriptor, from when the entry is
            // submitted until its completion is there, and both outlive that: `parts` and `file` are borrowed
            // until this function ends, however it ends, and it does not end before `under_way` is dropped,
            // which returns only when every entry that was submitted has been completed, and takes care that
            // no other is ever submitted. The buffers are borrowed mutably, so that nobody else looks at
            // them; two parts never share bytes, for each is a mutable borrow of its own.
            let pushed = unsafe { under_way.ring.queues.submission().push(&entry) };
            // There is room for as many as there are outcomes.
            if pushed.is_err() {
                break;
            }
            under_way.left += 1;
        }
        drop(under_way);
        outcomes
    }
}

/// Reads whose buffers the kernel may be writing to.
struct UnderWay<'a> {
    ring: &'a mut Ring,
    outcomes: &'a mut [Outcome; MOST_READS],
    /// Pushed, and not yet completed.
    left: usize,
}

impl UnderWay<'_> {
    /// Takes in what is completed.
    fn reap(&mut self) {
        for completion in self.ring.queues.completion() {
            self.left = self.left.saturating_sub(1);
            let outcome = match usize::try_from(completion.result()) {
                Ok(read) => Outcome::Read(read),
                Err(_) => Outcome::Failed(completion.result().saturating_neg()),
            };
            let index = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            if let Some(of) = self.outcomes.get_mut(index) {
                *of = outcome;
            }
        }
    }
}

/// Submits what was pushed and waits for all of it: the only way out, also for a panic. Nothing in here
/// panics.
impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        while self.left > 0 {
            let waited = self.ring.queues.submit_and_wait(self.left);
            self.reap();
            let passing = |error: &io::Error| {
                matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                )
            };
            match waited {
                Err(error) if !passing(&error) => {
                    // Those still in the queue were not submitted, and never are: the ring is closed.
                    self.ring.is_sound = false;
                    let waiting = self.ring.queues.submission().len();
                    if self.left <= waiting {
                        return;
                    }
                    // The others end by themselves, and are seen when they have.
                    std::thread::yield_now();
                }
                _ => {}
            }
        }
    }
}
