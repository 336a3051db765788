//! An opener that remembers what it was asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use blockdev_core::locate::{HostOpener, Opener};
use blockdev_core::{FileOptions, Result, Storage};

/// Opens host files and remembers each attempt, also those that fail.
#[derive(Debug, Default)]
pub struct CountingOpener {
    attempts: Mutex<Vec<(PathBuf, FileOptions)>>,
}

impl CountingOpener {
    /// Nothing opened yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How often `path` was asked for, by whatever spelling.
    #[must_use]
    pub fn opens(&self, path: impl AsRef<Path>) -> usize {
        let path = resolved(path.as_ref());
        let attempts = self.lock_attempts();
        attempts.iter().filter(|(of, _)| *of == path).count()
    }

    /// How often anything was asked for.
    #[must_use]
    pub fn total(&self) -> usize {
        self.lock_attempts().len()
    }

    /// Everything that was asked for, in order, with links and `..` resolved where it exists.
    #[must_use]
    pub fn attempts(&self) -> Vec<(PathBuf, FileOptions)> {
        self.lock_attempts().clone()
    }

    fn note(&self, path: &Path, options: FileOptions) {
        self.lock_attempts().push((resolved(path), options));
    }

    fn lock_attempts(&self) -> std::sync::MutexGuard<'_, Vec<(PathBuf, FileOptions)>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

impl Opener for CountingOpener {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        self.note(path, options);
        HostOpener.open(path, options)
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        self.note(&root.join(name), options);
        HostOpener.open_beneath(root, name, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_hide_an_open() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [0; 512]).unwrap();
        let opener = CountingOpener::new();
        let options = FileOptions::read_only();
        opener.open(&dir.path().join("./a"), options).unwrap();
        opener
            .open_beneath(dir.path(), Path::new("a"), options)
            .unwrap();
        assert!(opener.open(&dir.path().join("gone"), options).is_err());
        assert_eq!(opener.opens(dir.path().join("a")), 2);
        assert_eq!(opener.opens(dir.path().join("gone")), 1);
        assert_eq!(opener.total(), 3);
    }
}
