//! VHDX images (virtual hard disk v2), after [MS-VHDX]: fixed, dynamic and differencing; 512 and
//! 4096-byte sectors; clean or with a log to replay.
//!
//! ```text
//!   crate root   VhdxImage, VhdxDriver, check, errors
//!      │
//!     io/        one verb per file: open, read, replay, check …      the only floor with a Storage
//!      │
//!    meta/       which header holds, what an entry means, runs of bits   no I/O
//!      │
//!   ondisk/      bytes and fields
//! ```
//!
//! An image is opened from any [`Storage`](blockdev_core::Storage) and is one
//! [`Layer`](blockdev_core::Layer) of a disk. It never opens another file: a differencing image
//! names its parent, and a chain (`blockdev-chain`) puts the two together.
//!
//! References such as §2.2.2 are sections of [MS-VHDX], version 8.0 of 23 April 2024.
//!
//! [MS-VHDX]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-vhdx/

#![forbid(unsafe_code)]

mod create_options;
mod driver;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod image;
mod io;
mod meta;
mod ondisk;
mod parent_link;

/// The format's name in every list of formats.
pub(crate) const FORMAT_NAME: &str = "vhdx";

pub use blockdev_core::{OpenMode, OpenOptions, Recovery};
pub use create_options::CreateOptions;
pub use driver::VhdxDriver;
pub use error::VhdxError;
pub use image::{DiskType, LogState, VhdxImage};
pub use io::check::check;
pub use io::compact::Compacted;
pub use io::create::VhdxWriter;
pub use io::repair::{Repaired, repair};
pub use io::window::SectorWindow;
pub use meta::bat::ReadSemantics;
pub use meta::file_identifier::FileIdentifier;
pub use meta::geometry::{BatSlot, Geometry};
pub use meta::headers::{HeaderCopy, Headers};
pub use meta::locator::ParentLocator;
pub use meta::log::{LogDescriptor, LogEntry, LogEntryHeader};
pub use meta::metadata::{FileParameters, MetadataEntry, MetadataTable};
pub use meta::regions::{RegionEntry, RegionTable, RegionTables};
pub use ondisk::bat_entry::{BatEntry, BitmapState, PayloadState};
pub use ondisk::guid::known;
pub use parent_link::{InheritedItem, Linkage, ParentFormat, ParentLink, ParentPaths};
pub use uuid::Uuid;

/// Views of single structures, for files whole or damaged.
pub mod inspect {
    pub use crate::io::inspect::{
        MetadataItems, file_identifier, headers, metadata_item, metadata_items, metadata_table,
        region_tables,
    };
    pub use crate::io::log::{FoundEntry, LogContents, log_contents, log_page};
}
