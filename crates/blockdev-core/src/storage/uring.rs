//! A file of which several parts are read at once.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::sys::ring::{MOST_READS, Outcome, Ring};
use crate::{FileId, FileStorage, HostExtent, LockMode, ReadPart, Result, Storage, SyncKind};

/// How many rings are kept for later.
const MOST_SPARE: usize = 16;

/// A [`FileStorage`], direct or not, that reads the parts of one request by one call of the host's, through
/// Linux's `io_uring`: a disk that can do several things at once is asked for all of them.
///
/// Everything else goes as without: one read alone is done sooner by a plain call. Each thread that reads
/// takes a ring of its own while it does. Where the kernel has no `io_uring`, or forbids it to this process,
/// parts are read one after the other ([`has_ring`](Self::has_ring) tells).
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::{FileOptions, FileStorage, RawLayer, UringStorage};
///
/// let file = FileStorage::open("disk.img", FileOptions::read_only().with_direct(true))?;
/// let layer = RawLayer::open(Arc::new(UringStorage::new(file)))?;
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug)]
pub struct UringStorage {
    inner: FileStorage,
    /// Rings that nobody uses; none of them ever if it is `None`.
    spare: Option<Mutex<Vec<Ring>>>,
}

impl UringStorage {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: FileStorage) -> Self {
        let first = Ring::new().ok();
        Self {
            inner,
            spare: first.map(|ring| Mutex::new(vec![ring])),
        }
    }

    /// Whether parts are read at once.
    #[must_use]
    pub fn has_ring(&self) -> bool {
        self.spare.is_some()
    }

    /// The file within.
    #[must_use]
    pub fn inner(&self) -> &FileStorage {
        &self.inner
    }

    /// A ring for the calling thread alone, if one is to be had.
    fn ring(&self) -> Option<Ring> {
        let spare = lock(self.spare.as_ref()?).pop();
        // The process may have as many descriptors as it can.
        spare.or_else(|| Ring::new().ok())
    }

    fn give_back(&self, ring: Ring) {
        if let Some(spare) = &self.spare
            && ring.is_sound()
        {
            let mut spare = lock(spare);
            if spare.len() < MOST_SPARE {
                spare.push(ring);
            }
        }
    }

    /// Reads at most [`MOST_READS`] parts.
    fn read_at_once(&self, parts: &mut [ReadPart<'_>]) -> Result<()> {
        let mut asked = [false; MOST_READS];
        for (part, asked) in parts.iter().zip(&mut asked) {
            *asked = self.inner.takes(part.buf, part.offset);
        }
        let worth_it = asked.iter().filter(|asked| **asked).count() > 1;
        let ring = if worth_it { self.ring() } else { None };
        let (Some(mut ring), Some(file)) = (ring, self.inner.as_file()) else {
            return self.inner.read_scattered(parts);
        };
        let outcomes = ring.read(file, parts, &asked);
        self.give_back(ring);
        for (part, outcome) in parts.iter_mut().zip(outcomes) {
            let done = match outcome {
                Outcome::NotAsked | Outcome::Failed(libc::EINTR | libc::EAGAIN) => 0,
                Outcome::Read(done) => done.min(part.buf.len()),
                Outcome::Failed(code) => return Err(io::Error::from_raw_os_error(code).into()),
            };
            let rest = &mut part.buf[done..];
            if !rest.is_empty() {
                self.inner.read_at(rest, part.offset + done as u64)?;
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Storage for UringStorage {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn read_scattered(&self, parts: &mut [ReadPart<'_>]) -> Result<()> {
        let mut some = parts.chunks_mut(MOST_READS);
        some.try_for_each(|parts| self.read_at_once(parts))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.inner.sync(kind)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.punch_hole(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.zero_range(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.allocate(offset, len)
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        self.inner.next_extent(offset)
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.inner.copy_range_to(offset, to, to_offset, len)
    }

    fn identity(&self) -> Option<FileId> {
        self.inner.identity()
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        self.inner.lock(mode)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn allocated_len(&self) -> Result<u64> {
        self.inner.allocated_len()
    }

    fn as_file(&self) -> Option<&File> {
        self.inner.as_file()
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::thread;

    use super::*;
    use crate::{ErrorKind, FileOptions, Scattered, StorageExt};

    fn patterned(len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| u8::try_from(at * at % 251).expect("less"))
            .collect()
    }

    /// A file of bytes that tell where they are, both ways.
    fn files(dir: &std::path::Path) -> [UringStorage; 2] {
        let path = dir.join("disk");
        std::fs::write(&path, patterned(1_000_100)).unwrap();
        [false, true].map(|direct| {
            let options = FileOptions::read_only().with_direct(direct);
            UringStorage::new(FileStorage::open(&path, options).unwrap())
        })
    }

    #[test]
    fn scattered_parts_are_what_plain_reads_give() {
        let dir = tempfile::tempdir().unwrap();
        let expected = patterned(1_000_100);
        for storage in files(dir.path()) {
            for (step, len, count) in [(12_288, 4096, 70), (4099, 513, 200), (65_536, 65_536, 15)] {
                let mut buf = vec![0; len * count];
                let mut parts: Vec<_> = (buf.chunks_mut(len).enumerate())
                    .map(|(index, buf)| ReadPart {
                        buf,
                        offset: (step * index) as u64,
                    })
                    .collect();
                parts.reverse();
                storage.read_scattered(&mut parts).unwrap();
                for (index, part) in buf.chunks(len).enumerate() {
                    assert!(
                        part == &expected[step * index..][..len],
                        "{index} of {len} bytes"
                    );
                }
            }
        }
    }

    #[test]
    fn a_part_past_the_end_fails_alone_and_zeros_come_where_they_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let expected = patterned(1_000_100);
        for storage in files(dir.path()) {
            for last in [999_424, 1_003_520] {
                let mut buf = [[1; 4096]; 2];
                let [first, second] = &mut buf;
                let mut parts =
                    [(first, 0), (second, last)].map(|(buf, offset)| ReadPart { buf, offset });
                let failed = storage.read_scattered(&mut parts).unwrap_err();
                assert_eq!(failed.kind(), ErrorKind::Io, "{last}");
                let mut padded = Scattered::zero_padded(&storage);
                let [first, second] = &mut buf;
                padded.add(first, 0).unwrap();
                padded.add(second, last).unwrap();
                padded.read().unwrap();
                assert!(buf[0] == expected[..4096]);
                let there = usize::try_from(1_000_100_u64.saturating_sub(last)).unwrap();
                assert!(buf[1][..there] == expected[1_000_100 - there..]);
                assert!(buf[1][there..].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn threads_read_by_rings_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let expected = patterned(1_000_100);
        for storage in files(dir.path()) {
            let (storage, expected) = (&storage, &expected);
            thread::scope(|scope| {
                for thread in 0..8 {
                    scope.spawn(move || {
                        for round in 0..50 {
                            let mut buf = [[0; 4096]; 4];
                            let at = |part| 4096 * ((thread * 31 + round * 7 + part * 13) % 240);
                            let mut parts = buf.each_mut().map(|buf| ReadPart { buf, offset: 0 });
                            for (index, part) in parts.iter_mut().enumerate() {
                                part.offset = at(index) as u64;
                            }
                            storage.read_scattered(&mut parts).unwrap();
                            for (index, part) in buf.iter().enumerate() {
                                assert!(part == &expected[at(index)..][..4096]);
                            }
                        }
                    });
                }
            });
            if let Some(spare) = &storage.spare {
                let spare = lock(spare).len();
                assert!((1..=8).contains(&spare), "{spare} rings for 8 threads");
            }
        }
    }

    /// A descriptor that takes no reads at all: each outcome is an error of the host's, none is forgotten.
    #[test]
    fn what_the_host_refuses_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [1; 8192]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let unlocked = FileOptions::read_only().with_lock(LockMode::None);
        let storage = UringStorage::new(FileStorage::from_file(file, &path, unlocked).unwrap());
        let mut buf = [[0; 512]; 2];
        let mut parts = buf.each_mut().map(|buf| ReadPart { buf, offset: 0 });
        let refused = storage.read_scattered(&mut parts).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
        assert!(storage.read_zero_padded(&mut [0; 4], 0).is_err());
    }
}
