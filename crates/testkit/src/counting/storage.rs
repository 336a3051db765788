//! A storage that writes down every call.

use std::sync::{Arc, Mutex, PoisonError};

use blockdev_core::{FileId, HostExtent, LockMode, ReadPart, Result, Storage, SyncKind};

/// A kind of call to a [`Storage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// `len`
    Len,
    /// `read_at`
    Read,
    /// `write_at`
    Write,
    /// `set_len`; the call's `offset` is the new length
    SetLen,
    /// `sync` of bytes
    SyncData,
    /// `sync` of bytes and everything else
    SyncFull,
    /// `punch_hole`
    Punch,
    /// `zero_range`
    Zero,
    /// `allocate`
    Allocate,
    /// `next_extent`
    Extent,
    /// `copy_range_to`, on the side that is read
    Copy,
    /// `lock`
    Lock,
}

impl Op {
    /// True for calls that change bytes or length.
    #[must_use]
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::Write | Self::SetLen | Self::Punch | Self::Zero | Self::Allocate
        )
    }
}

/// One recorded call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub op: Op,
    /// Byte offset; 0 where the call has none.
    pub offset: u64,
    /// Bytes asked for; 0 where the call has none.
    pub len: u64,
}

/// Passes every call on to another storage and records it, in order.
///
/// Gives its file to nobody ([`Storage::as_file`] is `None`), so that no bytes pass unseen.
#[derive(Debug)]
pub struct CountingStorage {
    inner: Arc<dyn Storage>,
    calls: Mutex<Vec<Call>>,
}

impl CountingStorage {
    /// Counts the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        // Room for what a test looks at, so that recording asks for no memory in between.
        let calls = Mutex::new(Vec::with_capacity(4096));
        Arc::new(Self { inner, calls })
    }

    /// All calls since the last [`reset`](Self::reset), in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock_calls().clone()
    }

    /// The calls of one kind, in order.
    #[must_use]
    pub fn of(&self, op: Op) -> Vec<Call> {
        let calls = self.lock_calls();
        calls.iter().copied().filter(|call| call.op == op).collect()
    }

    /// How many calls of one kind there were.
    #[must_use]
    pub fn count(&self, op: Op) -> usize {
        let calls = self.lock_calls();
        calls.iter().filter(|call| call.op == op).count()
    }

    /// How many bytes the calls of one kind asked for.
    #[must_use]
    pub fn bytes(&self, op: Op) -> u64 {
        let calls = self.lock_calls();
        let of = calls.iter().filter(|call| call.op == op);
        of.map(|call| call.len).sum()
    }

    /// The calls that changed something, in order: none, on a read-only open.
    #[must_use]
    pub fn changes(&self) -> Vec<Call> {
        let calls = self.lock_calls();
        let changes = calls.iter().copied().filter(|call| call.op.changes());
        changes.collect()
    }

    /// Forgets all calls, keeping the memory.
    pub fn reset(&self) {
        self.lock_calls().clear();
    }

    /// Forgets all calls, runs `f`, and returns its result with the calls it made.
    pub fn during<T>(&self, f: impl FnOnce() -> T) -> (T, Vec<Call>) {
        self.reset();
        let result = f();
        (result, self.calls())
    }

    fn lock_calls(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, op: Op, offset: u64, len: u64) {
        self.lock_calls().push(Call { op, offset, len });
    }
}

impl Storage for CountingStorage {
    fn len(&self) -> Result<u64> {
        self.note(Op::Len, 0, 0);
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.note(Op::Read, offset, buf.len() as u64);
        self.inner.read_at(buf, offset)
    }

    /// Each part counts as a read of its own.
    fn read_scattered(&self, parts: &mut [ReadPart<'_>]) -> Result<()> {
        for part in &*parts {
            self.note(Op::Read, part.offset, part.buf.len() as u64);
        }
        self.inner.read_scattered(parts)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.note(Op::Write, offset, buf.len() as u64);
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.note(Op::SetLen, len, 0);
        self.inner.set_len(len)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        let op = match kind {
            SyncKind::Data => Op::SyncData,
            SyncKind::Full => Op::SyncFull,
        };
        self.note(op, 0, 0);
        self.inner.sync(kind)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.note(Op::Punch, offset, len);
        self.inner.punch_hole(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.note(Op::Zero, offset, len);
        self.inner.zero_range(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.note(Op::Allocate, offset, len);
        self.inner.allocate(offset, len)
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        self.note(Op::Extent, offset, 0);
        self.inner.next_extent(offset)
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.note(Op::Copy, offset, len);
        self.inner.copy_range_to(offset, to, to_offset, len)
    }

    fn identity(&self) -> Option<FileId> {
        self.inner.identity()
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        self.note(Op::Lock, 0, 0);
        self.inner.lock(mode)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn allocated_len(&self) -> Result<u64> {
        self.inner.allocated_len()
    }
}

#[cfg(test)]
mod tests {
    use blockdev_core::MemoryStorage;

    use super::*;

    #[test]
    fn calls_are_kept_in_order_with_their_ranges() {
        let storage = CountingStorage::new(Arc::new(MemoryStorage::from(vec![0; 8192])));
        let ((), calls) = storage.during(|| {
            storage.write_at(&[1; 512], 4096).unwrap();
            storage.sync(SyncKind::Data).unwrap();
            storage.read_at(&mut [0; 100], 4000).unwrap();
        });
        let expected = [
            (Op::Write, 4096, 512),
            (Op::SyncData, 0, 0),
            (Op::Read, 4000, 100),
        ]
        .map(|(op, offset, len)| Call { op, offset, len });
        assert_eq!(calls, expected);
        assert_eq!((storage.count(Op::Read), storage.bytes(Op::Read)), (1, 100));
        assert_eq!(storage.changes().len(), 1);
    }
}
