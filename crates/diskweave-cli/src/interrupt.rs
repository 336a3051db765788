//! Ctrl-C and requests to end: long operations stop at the next piece and clear up after themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diskweave::Progress;

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
