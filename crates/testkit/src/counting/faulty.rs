//! A host that fails when told to.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use blockdev_core::{FileId, HostExtent, LockMode, Result, Storage, SyncKind};

use super::Op;
use crate::stamp::SECTOR_BYTES;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device fails (EIO); nothing is done.
    Io,
    /// The file system is full (ENOSPC); nothing is done.
    NoSpace,
    /// Half of the bytes get through, then the device fails: a torn write, a file cut short under a
    /// reader. As [`Io`](Self::Io) for calls without bytes.
    Short,
    /// As [`Short`](Self::Short), but a write ends between two sectors: what is smaller than a sector
    /// is whole or not there, as after a power cut.
    Torn,
}

impl Fault {
    fn error(self) -> blockdev_core::Error {
        // The numbers are the same on every Unix; elsewhere the kinds carry the meaning.
        match self {
            Self::NoSpace => io::Error::from(io::ErrorKind::StorageFull).into(),
            Self::Io => io::Error::other("injected input/output error").into(),
            Self::Short | Self::Torn => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    /// The kind of operation; any when `None`.
    op: Option<Op>,
    /// Which of them fails, from 1.
    nth: u64,
    fault: Fault,
    /// All later ones fail as well.
    from_then_on: bool,
    seen: u64,
}

/// Passes calls on to another storage, but for those it was told to fail.
///
/// A test that wants every place tried loops over `n` until [`hit`](Self::hit) stays false.
#[derive(Debug)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    host: Arc<Host>,
    witness: Witness,
}

/// What fails: one host, whichever of its files a call is for.
#[derive(Debug, Default)]
struct Host {
    plans: Mutex<Vec<Plan>>,
    hit: AtomicBool,
    calls: AtomicU64,
}

/// Told of each failure as it happens.
struct Witness(Box<dyn Fn(Op) + Send + Sync>);

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// The part of `len` bytes from `offset` that ends where a sector does.
fn whole_sectors(offset: u64, len: usize) -> usize {
    let end = (offset + len as u64) / SECTOR_BYTES * SECTOR_BYTES;
    usize::try_from(end.saturating_sub(offset)).expect("no more than the length")
}

impl FaultyStorage {
    /// Fails nothing yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Self::witnessed(inner, |_| {})
    }

    /// The same, telling `witness` of each failure before the caller learns of it.
    pub fn witnessed(
        inner: Arc<dyn Storage>,
        witness: impl Fn(Op) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            witness: Witness(Box::new(witness)),
            inner,
            host: Arc::default(),
        })
    }

    /// Another file of the same host: calls to either are counted as one sequence, and what is said to
    /// one of the two ([`fail`](Self::fail), [`heal`](Self::heal) …) holds for both.
    pub fn beside(
        &self,
        inner: Arc<dyn Storage>,
        witness: impl Fn(Op) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            witness: Witness(Box::new(witness)),
            inner,
            host: Arc::clone(&self.host),
        })
    }

    /// The `nth` call of kind `op` from now (1 is the next; any kind when `None`) fails.
    pub fn fail(&self, op: impl Into<Option<Op>>, nth: u64, fault: Fault) {
        self.plan(op.into(), nth, fault, false);
    }

    /// The `nth` call of kind `op` from now fails, and all later ones of it.
    pub fn fail_from(&self, op: impl Into<Option<Op>>, nth: u64, fault: Fault) {
        self.plan(op.into(), nth, fault, true);
    }

    /// Fails nothing any more: the cable is back in. [`hit`](Self::hit) starts again at false.
    pub fn heal(&self) {
        self.lock_plans().clear();
        self.host.hit.store(false, Ordering::SeqCst);
    }

    /// True once a planned failure has happened.
    #[must_use]
    pub fn hit(&self) -> bool {
        self.host.hit.load(Ordering::SeqCst)
    }

    /// Calls seen so far, of any kind.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.host.calls.load(Ordering::SeqCst)
    }

    fn plan(&self, op: Option<Op>, nth: u64, fault: Fault, from_then_on: bool) {
        self.lock_plans().push(Plan {
            op,
            nth,
            fault,
            from_then_on,
            seen: 0,
        });
    }

    fn lock_plans(&self) -> std::sync::MutexGuard<'_, Vec<Plan>> {
        let plans = &self.host.plans;
        plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that this call of kind `op` meets.
    fn next(&self, op: Op) -> Option<Fault> {
        self.host.calls.fetch_add(1, Ordering::SeqCst);
        let mut met = None;
        for plan in self.lock_plans().iter_mut() {
            if plan.op.is_some_and(|of| of != op) {
                continue;
            }
            plan.seen += 1;
            if plan.seen == plan.nth || plan.from_then_on && plan.seen > plan.nth {
                met.get_or_insert(plan.fault);
            }
        }
        if met.is_some() {
            self.host.hit.store(true, Ordering::SeqCst);
            (self.witness.0)(op);
        }
        met
    }

    fn pass(&self, op: Op) -> Result<()> {
        match self.next(op) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }
}

impl Storage for FaultyStorage {
    fn len(&self) -> Result<u64> {
        self.pass(Op::Len)?;
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.next(Op::Read) {
            None => self.inner.read_at(buf, offset),
            Some(fault) => {
                if fault == Fault::Short {
                    let half = buf.len() / 2;
                    self.inner.read_at(&mut buf[..half], offset)?;
                }
                Err(fault.error())
            }
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        match self.next(Op::Write) {
            None => self.inner.write_at(buf, offset),
            Some(fault) => {
                let through = match fault {
                    Fault::Short => buf.len() / 2,
                    Fault::Torn => whole_sectors(offset, buf.len() / 2),
                    Fault::Io | Fault::NoSpace => 0,
                };
                if through > 0 {
                    self.inner.write_at(&buf[..through], offset)?;
                }
                Err(fault.error())
            }
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.pass(Op::SetLen)?;
        self.inner.set_len(len)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.pass(match kind {
            SyncKind::Data => Op::SyncData,
            SyncKind::Full => Op::SyncFull,
        })?;
        self.inner.sync(kind)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.pass(Op::Punch)?;
        self.inner.punch_hole(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.pass(Op::Zero)?;
        self.inner.zero_range(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.pass(Op::Allocate)?;
        self.inner.allocate(offset, len)
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        self.pass(Op::Extent)?;
        self.inner.next_extent(offset)
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.pass(Op::Copy)?;
        self.inner.copy_range_to(offset, to, to_offset, len)
    }

    fn identity(&self) -> Option<FileId> {
        self.inner.identity()
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        self.pass(Op::Lock)?;
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
    use blockdev_core::{ErrorKind, MemoryStorage};

    use super::*;

    #[test]
    fn fails_what_it_was_told_and_nothing_else() {
        let memory = Arc::new(MemoryStorage::from(vec![0; 16]));
        let storage = FaultyStorage::new(memory.clone());
        storage.fail(Op::Write, 2, Fault::Short);
        storage.fail_from(Op::SyncData, 1, Fault::NoSpace);
        storage.write_at(&[1; 4], 0).unwrap();
        storage.read_at(&mut [0; 4], 0).unwrap();
        assert!(!storage.hit());
        let torn = storage.write_at(&[2; 4], 0).unwrap_err();
        assert_eq!(torn.kind(), ErrorKind::Io);
        assert_eq!(memory.to_vec()[..4], [2, 2, 1, 1], "half of it got through");
        storage.write_at(&[3; 4], 0).unwrap();
        for _ in 0..2 {
            let full = storage.sync(SyncKind::Data).unwrap_err();
            assert_eq!(full.kind(), ErrorKind::NoSpace);
        }
        assert!(storage.hit());
        storage.heal();
        storage.sync(SyncKind::Data).unwrap();
        assert!(!storage.hit());
    }

    #[test]
    fn a_torn_write_ends_between_sectors() {
        let memory = Arc::new(MemoryStorage::from(vec![0; 4096]));
        let storage = FaultyStorage::new(memory.clone());
        storage.fail_from(Op::Write, 1, Fault::Torn);
        assert!(storage.write_at(&[1; 8], 504).is_err());
        assert_eq!(memory.to_vec(), [0; 4096]);
        assert!(storage.write_at(&[2; 3000], 100).is_err());
        let there = memory.to_vec().iter().filter(|byte| **byte == 2).count();
        assert_eq!(there, 1536 - 100);
    }

    #[test]
    fn calls_are_counted_over_all_files_of_a_host() {
        let file = || Arc::new(MemoryStorage::from(vec![0; 16]));
        let first = FaultyStorage::new(file());
        let second = first.beside(file(), |_| {});
        first.fail(Op::Write, 3, Fault::Io);
        for storage in [&first, &second] {
            storage.write_at(&[1], 0).unwrap();
        }
        assert!(second.write_at(&[1], 0).is_err());
        assert!(first.hit() && second.hit());
        assert_eq!(first.calls(), 3);
        second.fail_from(Op::Len, 1, Fault::Io);
        assert!(first.len().is_err());
        first.heal();
        second.len().unwrap();
    }

    #[test]
    fn any_kind_can_be_meant() {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::from(vec![0; 16])));
        storage.fail(None, 2, Fault::Io);
        storage.len().unwrap();
        assert!(storage.read_at(&mut [0], 0).is_err());
        storage.read_at(&mut [0], 0).unwrap();
    }
}
