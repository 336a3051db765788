//! Watching and stopping long operations.

/// Told how a long operation goes on. Calls come from several threads.
pub trait Progress: Sync {
    /// `total` bytes of the disk are to be dealt with.
    fn start(&self, total: u64) {
        let _ = total;
    }

    /// `bytes` more of them are dealt with.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Asked now and then; `true` ends the operation with an error, leaving nothing half-made.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody is watching.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
