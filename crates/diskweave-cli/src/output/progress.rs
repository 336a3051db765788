//! Progress, on a terminal or for programs.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};

use diskweave::{NoProgress, Progress};
use indicatif::{ProgressBar, ProgressStyle as BarStyle};

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
struct JsonLines {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress for JsonLines {
    fn start(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        eprintln!(r#"{{"done":0,"total":{total}}}"#);
    }

    fn advance(&self, bytes: u64) {
        let total = self.total.load(Ordering::Relaxed);
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let after = before + bytes;
        let step = (total / 100).max(1);
        if before / step != after / step || after == total {
            eprintln!(r#"{{"done":{after},"total":{total}}}"#);
        }
    }
}
