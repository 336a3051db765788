//! Chains of disk images, whatever formats they mix: the only place that knows about parents.
//!
//! ```text
//!   Top ──► ChainBuilder ── follows the names that images give, under a ChainPolicy ──► Chain
//!
//!   Chain, a BlockDevice      read: holes fall down        write: the top only, copy-up from below
//!     layer 0   top           ██░░██░░░░░░                 ▼
//!     layer 1   its parent      ██  ░░██                   (read-only)
//!     layer 2   …                   ██   zeros             (read-only)
//! ```
//!
//! Layers may differ in format, size and granularity. Nothing is opened that the caller's
//! [`ChainPolicy`](blockdev_core::locate::ChainPolicy) does not allow, and by default that is
//! nothing: the chain is then *detached*, and what it does not hold is an error, never zeros.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use blockdev_chain::{ChainBuilder, Top};
//! use blockdev_core::{BlockDevice, FormatDriver, MemoryStorage, RawDriver};
//!
//! let drivers: [&dyn FormatDriver; 1] = [&RawDriver];
//! let storage = Arc::new(MemoryStorage::from(vec![7; 4096]));
//! let disk = ChainBuilder::new(&drivers).build(Top::storage(storage, "raw"))?;
//!
//! let mut sector = [0; 512];
//! disk.read_at(&mut sector, 1024)?;
//! assert_eq!(sector, [7; 512]);
//! # Ok::<(), blockdev_core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod builder;
mod chain;
mod data_file;
mod difference;
mod follow;
mod hints;
mod link;
mod merge;
mod pair;
mod protocol;
mod pull;
mod refusal;
mod stack;
#[cfg(test)]
mod tests;
mod top;
mod verify;
mod view;

pub use builder::ChainBuilder;
pub use chain::Chain;
pub use difference::Differences;
pub use link::{FoundBy, LayerInfo};
pub use top::Top;
pub use verify::check_parent;
pub use view::View;
