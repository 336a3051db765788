//! A small copy-on-write disk format that exists for these tests only, right in one variety and
//! wrong in many.
//!
//! ```text
//!   0      4096    8192    12288   16384
//!   header table 1 table 2 table 3 block 4 …      blocks of 4 KiB, named by their place
//! ```
//!
//! The header names the table in use and the one of the snapshot. A table entry is 8 bytes, one
//! number twice: 0 not stored (the parent rules), 1 zeros, else a block. Order of a write to a new block: data,
//! sync, entry. A block that is freed is used again only after a flush.

mod check;
mod control;
mod device;
mod table;

use std::sync::Arc;

use blockdev_core::{CheckReport, Error, ErrorKind, Result, Storage, SyncKind};
use testkit::crash::{Control, CrashSubject};

pub(crate) use device::ToyDevice;
pub(crate) use table::{BLOCK, Header};

/// What the engine does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The entry is written, then the data.
    MappingBeforeData,
    /// No sync between data and entry.
    NoBarrier,
    /// A freed block is used again at once.
    ReuseBeforeDurable,
    /// Blocks that a snapshot's content replaces are punched before the change is durable.
    EarlyPunch,
    /// An entry is written in two halves.
    TornEntry,
    /// A block that the snapshot also names is written in place.
    SharedOverwritten,
    /// The file grows after the sync that should have covered it.
    SizeLost,
    /// A flush that does nothing.
    EmptyFlush,
    /// A write to part of a block completes it with zeros, not with the parent.
    ZeroInsteadOfParent,
    /// A snapshot is applied over the table in use.
    ApplyInPlace,
    /// Shrinking clears entries before the new size is durable.
    ShrinkClearsFirst,
    /// Before it cuts off what a crash left unused, the header is wiped and written anew.
    RecoveryWipesHeader,
    /// Opening for reading writes.
    ReaderWrites,
    /// A write to part of a block puts its data at the block's start.
    Misplaced,
    /// A zeroed block is noted in memory only.
    LostZeros,
    /// A write gives the lock up between reading a block and putting its changed copy in its place.
    LostUpdate,
    /// A failed sync is passed over in silence.
    SyncErrorIgnored,
    /// A failure empties the table in memory, and the handle reads zeros.
    ForgetsOnFailure,
    /// After a failure the handle goes on as if nothing had been.
    NotPoisoned,
}

/// The toy engine, over zeros or over a parent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Toy {
    /// What is wrong with it, if anything.
    pub(crate) bug: Option<Bug>,
    /// What lies below.
    pub(crate) parent: Option<Arc<[u8]>>,
}

impl Toy {
    /// An empty image of a disk of `size` bytes.
    pub(crate) fn image(size: u64) -> Vec<u8> {
        let mut image = vec![0; 4 * 4096];
        let header = Header {
            size,
            active: 1,
            snapshot: 0,
        };
        image[..512].copy_from_slice(&header.encode());
        image
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Syncs, or not, as the bug would have it.
    pub(crate) fn sync(&self, storage: &dyn Storage) -> Result<()> {
        match storage.sync(SyncKind::Data) {
            Err(_) if self.has(Bug::SyncErrorIgnored) => Ok(()),
            done => done,
        }
    }
}

impl CrashSubject for Toy {
    type Device = ToyDevice;

    fn format(&self) -> &str {
        "toy"
    }

    fn open(&self, files: &[Arc<dyn Storage>], writable: bool) -> Result<ToyDevice> {
        ToyDevice::open(self.clone(), Arc::clone(&files[0]), writable)
    }

    fn check(&self, files: &[Arc<dyn Storage>]) -> Result<CheckReport> {
        check::check(&*files[0])
    }

    fn control(
        &self,
        device: ToyDevice,
        files: &[Arc<dyn Storage>],
        control: Control,
    ) -> Result<ToyDevice> {
        device.control(control)?;
        drop(device);
        self.open(files, true)
    }
}

pub(crate) fn poisoned() -> Error {
    Error::new(ErrorKind::Poisoned, "an earlier failure; open it again")
}
