//! What every disk-image format builds on.
//!
//! ```text
//!   guest bytes      BlockDevice        one whole virtual disk
//!                        │
//!                      Layer            one image's share of it; names its holes
//!                        │
//!   host bytes        Storage           file, memory, window, overlay …
//! ```
//!
//! A format crate implements [`Layer`] and [`FormatDriver`] over any [`Storage`]. Raw images live
//! here ([`RawLayer`]) because any chain may end in one. Composing layers into chains is the work of
//! `blockdev-chain`; a lone image becomes a disk through [`LoneLayer`].
//!
//! The library prints nothing and needs no executor; only [`bulk_copy`] starts threads, which end
//! with the call.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use blockdev_core::{BlockDevice, LoneLayer, MemoryStorage, RawLayer};
//!
//! let storage = Arc::new(MemoryStorage::from(vec![7u8; 4096]));
//! let disk = LoneLayer::new(Box::new(RawLayer::open(storage)?));
//! let mut sector = [0u8; 512];
//! disk.read_at(&mut sector, 1024)?;
//! assert_eq!(sector, [7u8; 512]);
//! # Ok::<(), blockdev_core::Error>(())
//! ```

mod bulk;
mod cache;
mod check;
mod concat;
mod cursor;
mod device;
mod driver;
mod error;
mod extent;
mod file_ref;
mod fingerprint;
mod flushes;
mod free_runs;
mod layer;
mod limits;
pub mod locate;
mod lone;
mod measure;
#[cfg(all(test, shuttle))]
mod model;
mod pins;
mod progress;
mod range;
mod raw;
mod salvage;
mod storage;
mod sync;
mod translations;
mod window;
mod zeros;

pub use bulk::{BulkOptions, BulkSink, bulk_copy};
pub use cache::{CacheOwner, PAGE_BYTES, PageCache};
pub use check::{CheckReport, Finding, Severity};
pub use concat::Concat;
pub use cursor::DeviceCursor;
pub use device::{BlockDevice, Caps, DeviceInfo, Extents, ZeroFlags};
pub use driver::{FormatDriver, OpenMode, OpenOptions, ProbeInput, RawGuard, Recovery, probe};
pub use error::{Error, ErrorKind, Location, Result};
pub use extent::{Extent, ExtentKind, HostFile, HostPlace};
pub use file_ref::{ContentId, FileName, FileRef, FileRole, NameKind};
pub use fingerprint::file_fingerprint;
pub use flushes::Flushes;
pub use free_runs::FreeRuns;
pub use layer::{Below, BelowRun, DiscardMode, Holes, Layer, ZerosBelow};
pub use limits::Limits;
pub use lone::LoneLayer;
pub use measure::{Measurement, stored_units};
pub use pins::{Pin, Pins};
pub use progress::{NoProgress, Progress};
pub use range::{ByteRange, align_down, align_up, fits};
pub use raw::{RawDriver, RawLayer};
pub use salvage::{Lost, Salvage};
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub use storage::UringStorage;
pub use storage::{
    FileId, FileOptions, FileStorage, HostExtent, LockMode, MemoryStorage, OverlayStorage,
    ReadAhead, ReadOnlyStorage, ReadPart, Scattered, Storage, StorageExt, SyncKind, WindowStorage,
};
pub use translations::Translations;
pub use window::DiskWindow;
pub use zeros::{first_nonzero, is_zero, nonzero_runs};
