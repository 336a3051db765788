//! `bench`: requests of one size, many at once, to see how long they take.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use diskweave::core::{BlockDevice, Error, Result};

use super::shown;
use crate::args::Bench;
use crate::failure::Failure;
use crate::output::plain::print;

/// More threads than this are not started, however many requests may be under way at once.
const MOST_THREADS: u64 = 64;

/// What no host asks more of the place of a buffer than.
const ALIGNMENT: usize = 4096;

/// What is asked of a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests {
    pub(crate) count: u64,
    /// How many are under way at once.
    pub(crate) depth: u64,
    /// Bytes of each.
    pub(crate) bytes: usize,
    /// Where the first one starts.
    pub(crate) offset: u64,
    /// How much further each next one does, around the end of the disk.
    pub(crate) step: u64,
    /// What is written; nothing if they read.
    pub(crate) written: Option<Written>,
}

/// What requests that write do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) pattern: u8,
    /// A flush after each so many requests; 0 for none.
    pub(crate) flush_interval: u64,
    /// Nothing else is under way during a flush.
    pub(crate) drained: bool,
}

impl Requests {
    /// Where request `index` starts on a disk of `size` bytes.
    fn place(&self, index: u64, size: u64) -> u64 {
        if index == 0 || size == 0 {
            return self.offset;
        }
        let place = u128::from(self.offset) + u128::from(self.step) * u128::from(index);
        u64::try_from(place % u128::from(size)).expect("less than the size")
    }
}

pub(crate) fn run(args: &Bench) -> Result<u8, Failure> {
    let path = &args.image.file;
    let about = |error| Failure::about(shown(path), error);
    if args.flush_interval > 0 && !args.write {
        let text = "only what writes is flushed: --flush-interval belongs to -w";
        return Err(Failure::new(text));
    }
    let chain = args.disk().open(path).map_err(about)?;
    let requests = Requests {
        count: args.count.get(),
        depth: args.depth.get(),
        bytes: usize::try_from(args.buffer_size)
            .map_err(|_| Failure::new("the requests are too long"))?,
        offset: args.offset,
        step: args.step_size.unwrap_or(args.buffer_size),
        written: args.write.then_some(Written {
            pattern: args.pattern,
            flush_interval: args.flush_interval,
            drained: !args.no_drain,
        }),
    };
    let started = Instant::now();
    send(&chain, &requests).map_err(about)?;
    let seconds = started.elapsed().as_secs_f64();
    chain.close().map_err(about)?;
    if !args.quiet {
        let verb = if args.write { "write" } else { "read" };
        #[allow(clippy::cast_precision_loss)]
        let rate = requests.count as f64 / seconds.max(f64::MIN_POSITIVE);
        let (count, bytes) = (requests.count, requests.bytes);
        print(&format!(
            "{count} {verb} requests of {bytes} bytes in {seconds:.3} seconds: {rate:.0} a second\n"
        ))?;
    }
    Ok(0)
}

/// Sends all `requests` to `disk`.
///
/// # Errors
/// The first one's that failed.
pub(crate) fn send(disk: &dyn BlockDevice, requests: &Requests) -> Result<()> {
    let batch = match requests.written {
        Some(Written {
            flush_interval,
            drained: true,
            ..
        }) if flush_interval > 0 => flush_interval,
        _ => requests.count,
    };
    let mut first = 0;
    while first < requests.count {
        let end = requests.count.min(first.saturating_add(batch));
        run_batch(disk, requests, first, end)?;
        if end - first == batch && batch < requests.count {
            disk.flush()?;
        }
        first = end;
    }
    Ok(())
}

/// Sends those from `first` to `end`.
fn run_batch(disk: &dyn BlockDevice, requests: &Requests, first: u64, end: u64) -> Result<()> {
    let next = AtomicU64::new(first);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::default();
    let work = || {
        let pattern = requests.written.map_or(0, |written| written.pattern);
        // Where the host takes it as it is, also past the page cache.
        let mut buffer = vec![pattern; requests.bytes.saturating_add(ALIGNMENT)];
        let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let buffer = &mut buffer[start..start + requests.bytes];
        while !stop.load(Ordering::Acquire) {
            let index = next.fetch_add(1, Ordering::AcqRel);
            if index >= end {
                break;
            }
            let place = requests.place(index, disk.size());
            let sent = match requests.written {
                None => disk.read_at(buffer, place),
                Some(_) => disk.write_at(buffer, place),
            };
            let finished = done.fetch_add(1, Ordering::AcqRel) + 1;
            let sent = sent.and_then(|()| match requests.written {
                Some(written)
                    if !written.drained
                        && written.flush_interval > 0
                        && finished.is_multiple_of(written.flush_interval) =>
                {
                    disk.flush()
                }
                _ => Ok(()),
            });
            if let Err(error) = sent {
                stop.store(true, Ordering::Release);
                let mut failure = failure
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                failure.get_or_insert(error);
            }
        }
    };
    let threads = requests.depth.min(end - first).min(MOST_THREADS);
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let failure = failure
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    failure.map_or(Ok(()), Err)
}
