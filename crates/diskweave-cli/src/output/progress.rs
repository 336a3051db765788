//! Progress, on a terminal or for programs.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use diskweave::{NoProgress, Progress};
use indicatif::{ProgressBar, ProgressStyle as BarStyle};

use super::plain::complain;
use crate::args::ProgressStyle;

/// The way of showing progress that was asked for, or that fits.
pub(crate) fn choose(style: Option<ProgressStyle>, asked: bool, quiet: bool) -> Box<dyn Progress> {
    let fitting = if quiet || !(asked || stderr().is_terminal()) {
        ProgressStyle::None
    } else {
        ProgressStyle::Bar
    };
    match style.unwrap_or(fitting) {
        ProgressStyle::Bar => Box::new(Bar(ProgressBar::new(0))),
        ProgressStyle::Json => Box::<JsonLines>::default(),
        ProgressStyle::None => Box::new(NoProgress),
    }
}

/// Holds up whoever gets ahead of a rate.
pub(crate) struct Throttled {
    watcher: Box<dyn Progress>,
    bytes_per_second: u64,
    start: Instant,
    done: AtomicU64,
}

impl Throttled {
    pub(crate) fn new(watcher: Box<dyn Progress>, bytes_per_second: u64) -> Self {
        Self {
            watcher,
            bytes_per_second: bytes_per_second.max(1),
            start: Instant::now(),
            done: AtomicU64::new(0),
        }
    }
}

impl Progress for Throttled {
    fn start(&self, total: u64) {
        self.watcher.start(total);
    }

    fn advance(&self, bytes: u64) {
        self.watcher.advance(bytes);
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let due = Duration::from_secs_f64(done as f64 / self.bytes_per_second as f64);
        // In short steps, lest nobody can end it.
        let ahead = due.saturating_sub(self.start.elapsed());
        thread::sleep(ahead.min(Duration::from_secs(1)));
    }

    fn is_cancelled(&self) -> bool {
        self.watcher.is_cancelled()
    }
}

/// A bar with rate and time left.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn start(&self, total: u64) {
        let template = "{bar:40} {percent:>3}% {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        let style = BarStyle::with_template(template).expect("a template that does not change");
        self.0.set_style(style);
        self.0.set_length(total);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// One object a line: `{"done":N,"total":N}`, at each hundredth and at the end.
#[derive(Default)]
struct JsonLines(Mutex<Count>);

#[derive(Default)]
struct Count {
    total: u64,
    done: u64,
}

impl JsonLines {
    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// Called under the lock, so that lines come in order.
    fn show(&self) {
        let Self { total, done } = self;
        complain(&format!(r#"{{"done":{done},"total":{total}}}"#));
    }
}

impl Progress for JsonLines {
    fn start(&self, total: u64) {
        let mut count = self.count();
        *count = Count { total, done: 0 };
        count.show();
    }

    fn advance(&self, bytes: u64) {
        let mut count = self.count();
        let step = (count.total / 100).max(1);
        let before = count.done;
        count.done += bytes;
        if before / step != count.done / step || count.done == count.total {
            count.show();
        }
    }
}
