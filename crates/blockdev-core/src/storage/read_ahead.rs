//! Fetching more than was asked for, from where every request takes long.
//!
//! ```text
//!   asked     ▐█▌                 a place nobody read before: as it is
//!              ▐█▌                goes on from there: fetched with what follows
//!                ▐█▌▐█▌▐█▌        from memory
//!   fetched    [64 KiB]           and twice as much each next time, up to the most
//! ```
//!
//! What was fetched is given up before anything of it is changed through this container, and is not kept if
//! it was fetched while that happened: nobody is given what was read before a change that has returned.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{FileId, HostExtent, LockMode, ReadPart, Result, Storage, SyncKind};

/// How much is fetched the first time that reads go on from where another ended.
const FIRST_BYTES: usize = 64 << 10;
/// The most that is fetched at once.
const MOST_BYTES: usize = 1 << 20;
/// How many sequences of reads are told apart, each of which keeps what was fetched last.
const MOST_STREAMS: usize = 8;

/// A container that is far away, of which sequences of small reads are answered by few large ones.
///
/// It holds 8 MiB at most, and 1 MiB more for each thread that is just reading. Changes must go through it:
/// of what others change meanwhile it may give what was there before.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{MemoryStorage, ReadAhead, Storage};
///
/// let far = Arc::new(MemoryStorage::from(vec![7; 1 << 20]));
/// let near = ReadAhead::new(far);
/// let mut page = [0; 4096];
/// for at in (0..1 << 20).step_by(4096) {
///     near.read_at(&mut page, at)?;
/// }
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ReadAhead {
    inner: Arc<dyn Storage>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The one used last is the last one.
    streams: Vec<Stream>,
    fetches: Vec<Fetch>,
    changes: Vec<Range<u64>>,
    next_id: u64,
}

/// Reads that go on from each other.
#[derive(Debug)]
struct Stream {
    /// Where the next one would start.
    next: u64,
    /// How much to fetch then.
    ahead: usize,
    window: Option<Window>,
}

/// What was fetched.
#[derive(Debug, Clone)]
struct Window {
    start: u64,
    bytes: Arc<Vec<u8>>,
}

/// Bytes that are on their way.
#[derive(Debug)]
struct Fetch {
    id: u64,
    range: Range<u64>,
    /// Some of it was changed meanwhile.
    is_stale: bool,
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Window {
    fn range(&self) -> Range<u64> {
        self.start..self.start + self.bytes.len() as u64
    }

    /// Copies what it has of `buf`, which starts at `offset`, and tells how much that was.
    fn copy(&self, buf: &mut [u8], offset: u64) -> usize {
        let Some(skip) = offset.checked_sub(self.start) else {
            return 0;
        };
        let there = usize::try_from(skip)
            .ok()
            .and_then(|skip| self.bytes.get(skip..));
        let there = there.unwrap_or_default();
        let len = there.len().min(buf.len());
        buf[..len].copy_from_slice(&there[..len]);
        len
    }
}

impl State {
    /// What was fetched of byte `at`.
    fn window(&mut self, at: u64) -> Option<Window> {
        let found = self.streams.iter().position(|stream| {
            let window = stream.window.as_ref();
            window.is_some_and(|window| window.range().contains(&at))
        })?;
        let stream = self.streams.remove(found);
        let window = stream.window.clone();
        self.streams.push(stream);
        window
    }

    /// Notes a read of `len` bytes at `at`, where `left` bytes are in all and none is here; tells how many to
    /// fetch instead.
    fn plan(&mut self, at: u64, len: usize, left: u64) -> usize {
        let next = at.saturating_add(len as u64);
        let going_on = self.streams.iter().position(|stream| stream.next == at);
        let (mut stream, fetched) = match going_on {
            Some(found) => {
                let stream = self.streams.remove(found);
                let fetched = stream.ahead.max(len);
                let fetched = usize::try_from(left).map_or(fetched, |left| left.min(fetched));
                (stream, fetched)
            }
            None => {
                let stream = Stream {
                    next,
                    ahead: FIRST_BYTES / 2,
                    window: None,
                };
                (stream, len)
            }
        };
        stream.next = at.saturating_add(fetched as u64);
        stream.ahead = (2 * stream.ahead).min(MOST_BYTES);
        stream.window = None;
        if self.streams.len() == MOST_STREAMS {
            self.streams.remove(0);
        }
        self.streams.push(stream);
        fetched
    }

    fn begin(&mut self, range: Range<u64>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let is_stale = self.changes.iter().any(|change| overlap(change, &range));
        self.fetches.push(Fetch {
            id,
            range,
            is_stale,
        });
        id
    }

    /// Takes in what was fetched, if it is still so.
    fn end(&mut self, id: u64, fetched: Option<Window>) {
        let Some(found) = self.fetches.iter().position(|fetch| fetch.id == id) else {
            return;
        };
        let fetch = self.fetches.swap_remove(found);
        let Some(window) = fetched.filter(|_| !fetch.is_stale) else {
            return;
        };
        let end = window.range().end;
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.next == end) {
            stream.window = Some(window);
        }
    }

    /// Forgets what there is of `range`, and what is on its way.
    fn give_up(&mut self, range: &Range<u64>) {
        for stream in &mut self.streams {
            stream
                .window
                .take_if(|window| overlap(&window.range(), range));
        }
        for fetch in &mut self.fetches {
            fetch.is_stale |= overlap(&fetch.range, range);
        }
    }
}

/// A change under way, until it is dropped.
struct Changing<'a> {
    of: &'a ReadAhead,
    range: Range<u64>,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        let found = state.changes.iter().position(|other| *other == self.range);
        if let Some(found) = found {
            state.changes.swap_remove(found);
        }
    }
}

impl ReadAhead {
    /// Reads ahead of those who read `inner` through it.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before `len` bytes from `offset` are changed, and held until they are.
    fn change(&self, offset: u64, len: u64) -> Changing<'_> {
        let range = offset..offset.saturating_add(len);
        let mut state = self.lock();
        state.give_up(&range);
        // What is fetched from now on is stale from its beginning.
        state.changes.push(range.clone());
        drop(state);
        Changing { of: self, range }
    }

    /// Fills `buf` from `offset`, of which nothing is here.
    fn read_there(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.len() >= MOST_BYTES {
            return self.inner.read_at(buf, offset);
        }
        let left = self.inner.len()?.saturating_sub(offset);
        let mut state = self.lock();
        let fetched = state.plan(offset, buf.len(), left);
        if fetched <= buf.len() {
            drop(state);
            return self.inner.read_at(buf, offset);
        }
        let id = state.begin(offset..offset + fetched as u64);
        drop(state);
        let mut bytes = vec![0; fetched];
        let read = self.inner.read_at(&mut bytes, offset);
        let window = Window {
            start: offset,
            bytes: Arc::new(bytes),
        };
        if read.is_err() {
            self.lock().end(id, None);
            // It may be what nobody asked for that cannot be read.
            return self.inner.read_at(buf, offset);
        }
        window.copy(buf, offset);
        self.lock().end(id, Some(window));
        Ok(())
    }
}

impl Storage for ReadAhead {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            let window = self.lock().window(at);
            match window {
                Some(window) => done += window.copy(&mut buf[done..], at),
                None => return self.read_there(&mut buf[done..], at),
            }
        }
        Ok(())
    }

    /// What lies apart is no sequence.
    fn read_scattered(&self, parts: &mut [ReadPart<'_>]) -> Result<()> {
        self.inner.read_scattered(parts)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let _changing = self.change(offset, buf.len() as u64);
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let _changing = self.change(0, u64::MAX);
        self.inner.set_len(len)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.inner.sync(kind)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let _changing = self.change(offset, len);
        self.inner.punch_hole(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        let _changing = self.change(offset, len);
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
        // Whoever had it before may have changed anything.
        self.lock().give_up(&(0..u64::MAX));
        self.inner.lock(mode)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn allocated_len(&self) -> Result<u64> {
        self.inner.allocated_len()
    }

    // No file is given away, by which it could be changed.
    fn as_file(&self) -> Option<&File> {
        None
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::MemoryStorage;

    /// Memory that counts what is asked of it, and takes a while.
    #[derive(Debug)]
    struct Far {
        memory: MemoryStorage,
        reads: AtomicUsize,
        bytes: AtomicUsize,
    }

    impl Far {
        fn new(bytes: Vec<u8>) -> Arc<Self> {
            Arc::new(Self {
                memory: bytes.into(),
                reads: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
            })
        }

        /// Reads and bytes since this was asked last.
        fn asked(&self) -> (usize, usize) {
            let [reads, bytes] = [&self.reads, &self.bytes].map(|n| n.swap(0, Ordering::SeqCst));
            (reads, bytes)
        }
    }

    impl Storage for Far {
        fn len(&self) -> Result<u64> {
            self.memory.len()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            self.bytes.fetch_add(buf.len(), Ordering::SeqCst);
            let read = self.memory.read_at(buf, offset);
            thread::yield_now();
            read
        }

        fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
            let (left, right) = buf.split_at(buf.len() / 2);
            self.memory.write_at(left, offset)?;
            thread::yield_now();
            self.memory.write_at(right, offset + left.len() as u64)
        }

        fn set_len(&self, len: u64) -> Result<()> {
            self.memory.set_len(len)
        }

        fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
            self.memory.punch_hole(offset, len)
        }
    }

    #[test]
    fn sequences_of_small_reads_are_few_requests_and_nothing_is_fetched_twice() {
        const LEN: usize = 8 << 20;
        let far = Far::new((0..=250).cycle().take(LEN).collect());
        let near = ReadAhead::new(far.clone());
        let mut page = [0; 4096];
        for at in (0..LEN).step_by(4096) {
            near.read_at(&mut page, at as u64).unwrap();
            assert_eq!(usize::from(page[0]), at % 251);
        }
        let (reads, bytes) = far.asked();
        assert!(reads <= 14, "{reads} requests for {} reads", LEN / 4096);
        assert_eq!(bytes, LEN);
        // Two of them at once, as of metadata and data, of which one starts inside a window.
        for step in 0..256 {
            for from in [100, LEN / 2] {
                near.read_at(&mut page, (from + 4096 * step) as u64)
                    .unwrap();
            }
        }
        let (reads, _) = far.asked();
        assert!(reads <= 14, "{reads} requests for two sequences");
    }

    #[test]
    fn reads_here_and_there_fetch_no_more_than_they_want() {
        let far = Far::new(vec![1; 1 << 20]);
        let near = ReadAhead::new(far.clone());
        for step in 0..100 {
            near.read_at(&mut [0; 512], (step * 37 % 100) * 10_000)
                .unwrap();
        }
        assert_eq!(far.asked(), (100, 51_200));
        near.read_at(&mut vec![0; 1 << 20], 0).unwrap();
        assert_eq!(far.asked(), (1, 1 << 20), "what is long is not copied");
        assert!(near.read_at(&mut [0; 2], (1 << 20) - 1).is_err());
    }

    #[test]
    fn no_more_is_kept_than_was_said() {
        let far = Far::new(vec![1; 64 << 20]);
        let near = ReadAhead::new(far);
        for stream in 0..30 {
            for step in 0..300 {
                near.read_at(&mut [0; 4096], stream * (2 << 20) + step * 4096)
                    .unwrap();
            }
        }
        let state = near.lock();
        let kept = state
            .streams
            .iter()
            .filter_map(|stream| stream.window.as_ref());
        let kept: usize = kept.map(|window| window.bytes.len()).sum();
        assert!(kept <= MOST_STREAMS * MOST_BYTES, "{kept} bytes");
        assert!(state.fetches.is_empty() && state.changes.is_empty());
    }

    /// Readers go along while writers, each with bytes of its own, count up what is there. Whoever wrote and
    /// then reads sees what it wrote, and others never see what is older than what they saw.
    #[test]
    fn nobody_reads_what_was_there_before_a_change_that_has_returned() {
        const CELL: u64 = 24 << 10;
        const WRITERS: u64 = 3;
        const ROUNDS: u8 = 120;
        let far = Far::new(vec![0; usize::try_from(8 * WRITERS * CELL).unwrap()]);
        let near = ReadAhead::new(far);
        let near = &near;
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        for row in 0..8 {
                            let at = (row * WRITERS + writer) * CELL;
                            match round % 10 {
                                9 => near.punch_hole(at, CELL / 2).unwrap(),
                                _ => near.write_at(&vec![round; 12 << 10], at).unwrap(),
                            }
                            let expected = if round % 10 == 9 { 0 } else { round };
                            // From before it, so that it is part of a sequence.
                            for at in (at.saturating_sub(8192)..at + 8192).step_by(4096) {
                                let mut page = [0; 4096];
                                near.read_at(&mut page, at).unwrap();
                                if at / CELL % WRITERS == writer && at % CELL < CELL / 2 {
                                    assert_eq!(page, [expected; 4096], "at {at}");
                                }
                            }
                        }
                    }
                });
            }
            for reader in 0..2 {
                scope.spawn(move || {
                    for _ in 0..60 {
                        let mut page = [0; 2048];
                        for at in (0..8 * WRITERS * CELL - 2048).step_by(2048) {
                            near.read_at(&mut page, at + reader).unwrap();
                        }
                    }
                });
            }
        });
        let mut all = vec![0; usize::try_from(8 * WRITERS * CELL).unwrap()];
        near.inner.read_at(&mut all, 0).unwrap();
        for (page, there) in all.chunks(4096).enumerate() {
            let mut seen = [0; 4096];
            near.read_at(&mut seen, page as u64 * 4096).unwrap();
            assert!(seen == there, "page {page} in the end");
        }
    }

    #[test]
    fn what_is_cut_off_is_zeros_when_it_comes_again() {
        let far = Far::new(vec![5; 1 << 20]);
        let near = ReadAhead::new(far);
        let mut page = [0; 4096];
        for at in [0, 4096, 8192] {
            near.read_at(&mut page, at).unwrap();
        }
        near.set_len(10_000).unwrap();
        assert!(near.read_at(&mut page, 8192).is_err());
        near.set_len(1 << 20).unwrap();
        near.read_at(&mut page, 8192).unwrap();
        assert!(page[..1808] == [5; 1808] && page[1808..] == [0; 2288]);
    }
}
