//! Ctrl-C and requests to end: long operations stop at the next piece and clear up after themselves.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};

use diskweave::Progress;
use diskweave::core::{Error, ErrorKind};

use crate::args::Watch;
use crate::failure::Failure;
use crate::output::progress::{self, Throttled};

/// What a shell reports of a command that Ctrl-C has ended.
pub(crate) const INTERRUPTED: u8 = 128 + 2;

/// Progress that is cancelled once somebody asks the process to end.
pub(crate) struct Interruptible {
    watcher: Box<dyn Progress>,
    asked: Arc<AtomicBool>,
}

impl Interruptible {
    pub(crate) fn new(watcher: Box<dyn Progress>) -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&asked);
        // Without a handler the signal ends the process, as ever.
        let _ = ctrlc::set_handler(move || told.store(true, Ordering::Relaxed));
        Self { watcher, asked }
    }
}

/// Does `work` on what is called `name`, shown as `watch` says, until it ends or somebody asks the process
/// to; with `rate` no more than so many bytes a second of it.
pub(crate) fn watched<T>(
    watch: &Watch,
    rate: Option<u64>,
    name: impl Display,
    work: impl FnOnce(&dyn Progress) -> Result<T, Error>,
) -> Result<T, Failure> {
    let watcher = progress::choose(watch.progress_style, watch.progress, watch.quiet);
    let watcher = match rate {
        Some(rate) => Box::new(Throttled::new(watcher, rate)),
        None => watcher,
    };
    let (outcome, interrupted) = until_asked(watcher, work);
    outcome.map_err(|error| match error.kind() {
        ErrorKind::InvalidInput if interrupted => {
            Failure::about(name, error).with_code(INTERRUPTED)
        }
        _ => Failure::about(name, error),
    })
}

/// Does `work` until it ends or somebody asks the process to, of which is told beside what came of it.
pub(crate) fn until_asked<T>(
    watcher: Box<dyn Progress>,
    work: impl FnOnce(&dyn Progress) -> Result<T, Error>,
) -> (Result<T, Error>, bool) {
    let watcher = Interruptible::new(watcher);
    let outcome = work(&watcher);
    let interrupted = watcher.is_cancelled();
    (outcome, interrupted)
}

/// Receives once somebody asks the process to end.
pub(crate) fn asked_to_end() -> Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    // Without a handler the signal ends the process, as ever; without a receiver it is ending already.
    let _ = ctrlc::set_handler(move || {
        let _ = sender.send(());
    });
    receiver
}

impl Progress for Interruptible {
    fn start(&self, total: u64) {
        self.watcher.start(total);
    }

    fn advance(&self, bytes: u64) {
        self.watcher.advance(bytes);
    }

    fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.watcher.is_cancelled()
    }
}
