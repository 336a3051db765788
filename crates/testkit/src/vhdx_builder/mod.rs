//! Builds VHDX images for tests, from the text of [MS-VHDX] v20240423 alone.
//!
//! Nothing here knows the crate under test: a rule that both got wrong in the same way would have
//! to be misread twice. The model in [`VhdxBuilder::expected_sector`] answers from what was asked
//! for, not from the bytes that were built.
//!
//! ```text
//! 0        64K      128K     192K     256K        1 MiB
//! ├────────┼────────┼────────┼────────┼───────────┼─────┬──────────┬─────┬─────────┬────────┐
//! │ file   │ header │ header │ region │ region    │ log │ metadata │ BAT │ extra   │ blocks │
//! │ id     │ 1      │ 2      │ table 1│ table 2   │     │ region   │     │ regions │        │
//! └────────┴────────┴────────┴────────┴───────────┴─────┴──────────┴─────┴─────────┴────────┘
//!  fixed by the format                             in any order, see Area
//! ```
//!
//! A parent, a child over it, and what a reader of the child has to find:
//!
//! ```
//! use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder, chain_disk};
//!
//! let parent = VhdxBuilder::new(4 << 20).block(0, BlockContent::full(BlockData::Pattern(1)));
//! let child = VhdxBuilder::child_of(&parent, "parent.vhdx")
//!     .block(0, BlockContent::partial(BlockData::Pattern(2), (3..5).chain(100..200)))
//!     .block(1, BlockContent::Zero);
//! let file: Vec<u8> = child.build().to_vec();
//! let disk: Vec<u8> = chain_disk(&[&child, &parent]);
//! assert_eq!(&file[..8], b"vhdxfile");
//! assert_eq!(disk.len(), 4 << 20);
//! ```
//!
//! A dirty image, whose log wraps inside an entry:
//!
//! ```
//! use testkit::vhdx_builder::{BlockContent, PendingLog, SectorTruth, VhdxBuilder};
//!
//! let dirty = VhdxBuilder::new(4 << 20)
//!     .pending_block(2, BlockContent::full(vec![7; 512]))
//!     .pending_log(PendingLog { start: (1 << 20) - 4096, ..PendingLog::default() });
//! assert_eq!(dirty.in_place_sector(4096), SectorTruth::Zero);
//! assert_eq!(dirty.expected_sector(4096), SectorTruth::Own(vec![7; 512]));
//! ```

mod block;
mod build;
mod builder;
mod bytes;
mod damage;
mod geometry;
mod header;
pub mod ids;
mod image;
mod layout;
mod locator;
mod log;
mod log_bytes;
mod metadata;
mod model;
mod region;
#[cfg(test)]
mod tests;

pub use block::{ABSENT_BYTE, BlockContent, BlockData, FILL_UNIT, pattern};
pub use builder::{PendingLog, VhdxBuilder};
pub use damage::{Damage, Slot};
pub use geometry::{Geometry, SECTORS_PER_CHUNK};
pub use header::HeaderCopy;
pub use image::SparseImage;
pub use layout::{Area, Layout, Placement};
pub use locator::ParentLocator;
pub use log::{Descriptor, LOG_SECTOR, LogDamage, LogEntry, log_sequence};
pub use metadata::{ItemPlacement, MetadataEntry, MetadataItem};
pub use model::{SectorTruth, chain_disk, chain_sector};
pub use region::{ExtraRegion, RegionEntry};
