//! What the facade needs to know of a format: its name, its mark, how to open and check it.

use std::sync::Arc;

use crate::{CheckReport, Layer, Limits, PageCache, Result, Storage, StorageExt};

/// Whether the image may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenMode {
    /// Never writes a byte, whatever state the image is in.
    #[default]
    ReadOnly,
    /// May write, recovery of an unclean image included.
    ReadWrite,
}

/// What to do with an image that was not closed cleanly (for VHDX: whose log is not empty).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recovery {
    /// Recover: in the file when it is opened for writing, in memory otherwise.
    #[default]
    Auto,
    /// Refuse with [`ErrorKind::NeedsRecovery`](crate::ErrorKind::NeedsRecovery).
    Refuse,
    /// Recover in memory; only for a read-only open.
    InMemory,
    /// Show the image as it lies on disk, for inspection; only for a read-only open. Content may
    /// be older than the last flush.
    Ignore,
}

/// Names the format that 512 bytes at the start of a disk would be taken for, if any.
pub type RawGuard = Arc<dyn Fn(&[u8]) -> Option<&'static str> + Send + Sync>;

/// How to open one image.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Whether the image may be changed.
    pub mode: OpenMode,
    /// What to do if it was not closed cleanly.
    pub recovery: Recovery,
    /// Refuse what the specification calls reserved or optional and this library does not know.
    pub strict: bool,
    /// Open what is damaged as far as its content can be told, where the format knows how; only
    /// read-only. What cannot be read is an error when it is asked for
    /// ([`Salvage`](crate::Salvage) takes zeros for it).
    pub salvage: bool,
    /// Caps on what the image may cost.
    pub limits: Limits,
    /// The chain's metadata pages; a cache of its own when there is none.
    pub cache: Option<Arc<PageCache>>,
    /// For an image taken for raw by a guess: refuses writes that would change the guess.
    pub raw_guard: Option<RawGuard>,
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenOptions")
            .field("mode", &self.mode)
            .field("recovery", &self.recovery)
            .field("strict", &self.strict)
            .field("salvage", &self.salvage)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl OpenOptions {
    /// Read-only, recovery in memory, default limits.
    #[must_use]
    pub fn read_only() -> Self {
        Self::default()
    }

    /// Read and write, recovery in the file, default limits.
    #[must_use]
    pub fn read_write() -> Self {
        Self {
            mode: OpenMode::ReadWrite,
            ..Self::default()
        }
    }

    /// The same with another answer to an unclean image.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// The same, strict or not.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// The same, to get what is left out of a damaged image.
    #[must_use]
    pub fn with_salvage(mut self, salvage: bool) -> Self {
        self.salvage = salvage;
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same with a shared metadata cache.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<PageCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The same with a guard for raw images that were guessed.
    #[must_use]
    pub fn with_raw_guard(mut self, guard: RawGuard) -> Self {
        self.raw_guard = Some(guard);
        self
    }

    /// The cache to use: the shared one, or a new one of the size the limits give.
    #[must_use]
    pub fn page_cache(&self) -> Arc<PageCache> {
        self.cache
            .clone()
            .unwrap_or_else(|| PageCache::new(self.limits.metadata_cache_bytes))
    }
}

/// The parts of a file by which formats are told apart.
#[derive(Debug, Clone, Copy)]
pub struct ProbeInput<'a> {
    /// The first bytes: 4 KiB, or the whole file where it is shorter.
    pub head: &'a [u8],
    /// The last bytes: 512, or the whole file where it is shorter.
    pub tail: &'a [u8],
    /// Length of the file in bytes.
    pub len: u64,
}

/// Finds the first of `drivers` whose mark `storage` bears; never raw, which has none.
///
/// The answer is a guess: whoever wrote the image's content may have chosen it.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io).
pub fn probe<'a>(
    storage: &dyn Storage,
    drivers: &[&'a dyn FormatDriver],
) -> Result<Option<&'a dyn FormatDriver>> {
    let (mut head, mut tail) = ([0; 4096], [0; 512]);
    let len = storage.len()?;
    let head_len = storage.read_up_to(&mut head, 0)?;
    let tail_len = storage.read_up_to(&mut tail, len.saturating_sub(512))?;
    let input = ProbeInput {
        head: &head[..head_len],
        tail: &tail[..tail_len],
        len,
    };
    Ok(drivers.iter().find(|driver| driver.probe(&input)).copied())
}

/// A format, for whoever handles images of any kind.
pub trait FormatDriver: Send + Sync {
    /// The format's name: `raw`, `vhdx`, `qcow2`.
    fn name(&self) -> &'static str;

    /// True when a file that begins and ends so is of this format. Never true for raw.
    fn probe(&self, input: &ProbeInput<'_>) -> bool;

    /// Opens one image.
    ///
    /// # Errors
    /// [`NotRecognised`](crate::ErrorKind::NotRecognised) when it is of another format, and
    /// whatever its structures give cause for.
    fn open(&self, storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Box<dyn Layer>>;

    /// Checks one image without changing it; `None` when the format has nothing to check.
    ///
    /// # Errors
    /// Only what keeps the check from running; damage is in the report.
    fn check(
        &self,
        storage: Arc<dyn Storage>,
        options: &OpenOptions,
    ) -> Result<Option<CheckReport>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStorage, RawDriver};

    /// Claims files that end in `foot` and begin with what `head` says.
    struct Marked(&'static [u8], &'static [u8]);

    impl FormatDriver for Marked {
        fn name(&self) -> &'static str {
            "marked"
        }

        fn probe(&self, input: &ProbeInput<'_>) -> bool {
            input.head.starts_with(self.0) && input.tail.ends_with(self.1)
        }

        fn open(&self, _: Arc<dyn Storage>, _: &OpenOptions) -> Result<Box<dyn Layer>> {
            unreachable!("probing opens nothing")
        }

        fn check(&self, _: Arc<dyn Storage>, _: &OpenOptions) -> Result<Option<CheckReport>> {
            Ok(None)
        }
    }

    #[test]
    fn probing_sees_both_ends_of_files_of_every_length() {
        let (by_head, by_foot) = (Marked(b"head", b""), Marked(b"", b"foot"));
        let drivers: [&dyn FormatDriver; 3] = [&RawDriver, &by_head, &by_foot];
        let found = |bytes: Vec<u8>| {
            probe(&MemoryStorage::from(bytes), &drivers)
                .unwrap()
                .is_some()
        };
        for len in [0, 1, 511, 512, 4096, 10_000] {
            assert!(!found(vec![0; len]), "{len}");
            assert!(found([vec![0; len], b"foot".to_vec()].concat()), "{len}");
            assert!(found([b"head".to_vec(), vec![0; len]].concat()), "{len}");
        }
    }
}
