//! A file that sings when any process opens it.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// A file that must not be opened while this guard lives: not by this process, not by any other.
///
/// The kernel keeps the count (inotify), so a command run as a child is seen as well.
#[derive(Debug)]
pub struct Canary {
    path: PathBuf,
    watch: OwnedFd,
    opened: usize,
}

impl Canary {
    /// Writes `content` to a file at `path` and watches it from then on.
    ///
    /// # Panics
    /// When the file cannot be written or watched.
    #[must_use]
    pub fn plant(path: impl AsRef<Path>, content: &[u8]) -> Self {
        std::fs::write(path.as_ref(), content).expect("the canary's file can be written");
        Self::watch(path)
    }

    /// Watches the file that is at `path` already.
    ///
    /// # Panics
    /// When it cannot be watched.
    #[must_use]
    pub fn watch(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_path_buf();
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .expect("inotify is there on Linux");
        let what = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::MODIFY;
        inotify::add_watch(&watch, &path, what).expect("the file exists");
        Self {
            path,
            watch,
            opened: 0,
        }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often the file was opened so far.
    ///
    /// # Panics
    /// When the kernel lost count.
    pub fn opens(&mut self) -> usize {
        let mut buf = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.watch, &mut buf);
        while let Ok(event) = events.next() {
            assert!(
                !event.events().contains(ReadFlags::QUEUE_OVERFLOW),
                "too many events to count"
            );
            if event.events().contains(ReadFlags::OPEN) {
                self.opened += 1;
            }
        }
        self.opened
    }

    /// Ends the watch.
    ///
    /// # Panics
    /// When the file was opened.
    pub fn assert_never_opened(mut self) {
        let opens = self.opens();
        assert_eq!(opens, 0, "{} was opened", self.path.display());
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // Opens that a test asked about are its own business; unasked ones are a failure.
        if self.opened == 0 && !std::thread::panicking() {
            assert_eq!(self.opens(), 0, "{} was opened", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_other_processes_and_ignores_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut canary = Canary::plant(dir.path().join("secret"), b"content");
        std::fs::metadata(canary.path()).unwrap();
        std::fs::canonicalize(canary.path()).unwrap();
        assert_eq!(canary.opens(), 0, "a look at the name is no open");
        let cat = std::process::Command::new("cat")
            .arg(canary.path())
            .output();
        assert_eq!(cat.unwrap().stdout, b"content");
        assert_eq!(canary.opens(), 1);
    }
}
