//! What a new image is to be like.

use uuid::Uuid;

use crate::{InheritedItem, ParentLink};

/// How to make a VHDX image.
///
/// # Example
///
/// ```
/// let mut options = vhdx_format::CreateOptions::new(64 << 30);
/// options.block_size = 2 << 20;
/// options.logical_sector_size = 4096;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Size of the virtual disk in bytes: a multiple of the logical sector size, at most 64 TiB.
    pub virtual_size: u64,
    /// Bytes in a payload block: a power of two from 1 MiB to 256 MiB. Default 32 MiB.
    pub block_size: u32,
    /// 512 or 4096. Default 512.
    pub logical_sector_size: u32,
    /// 512 or 4096. Default 4096.
    pub physical_sector_size: u32,
    /// Bytes of the log: a multiple of 1 MiB, at least that. Default 1 MiB.
    pub log_size: u32,
    /// Set aside the space of every block. Default: no, space is taken as it is written. Not for a
    /// disk that has a parent.
    pub fixed: bool,
    /// Name of the program that makes the image, at most 255 UTF-16 units.
    pub creator: String,
    /// Identity of the virtual disk; a new one if not given.
    pub virtual_disk_id: Option<Uuid>,
    /// Identity of the file's content; a new one if not given.
    pub file_write_guid: Option<Uuid>,
    /// Identity of the disk's content; a new one if not given.
    pub data_write_guid: Option<Uuid>,
    /// The parent of a differencing disk, which reads as the parent does until it is written to.
    /// Default: none. See [`child_of`](Self::child_of).
    pub parent: Option<ParentLink>,
    /// What the disk takes over from its parent's metadata beyond what the other options say.
    pub inherited: Vec<InheritedItem>,
}

impl CreateOptions {
    /// The defaults, for a disk of `virtual_size` bytes.
    #[must_use]
    pub fn new(virtual_size: u64) -> Self {
        Self {
            virtual_size,
            block_size: 32 << 20,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            log_size: 1 << 20,
            fixed: false,
            creator: concat!("diskweave ", env!("CARGO_PKG_VERSION")).into(),
            virtual_disk_id: None,
            file_write_guid: None,
            data_write_guid: None,
            parent: None,
            inherited: Vec::new(),
        }
    }
}
