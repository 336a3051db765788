//! Options for a new child of an open parent.

use blockdev_core::{Error, ErrorKind, Layer, Result, file_fingerprint};
use uuid::Uuid;

use super::inspect;
use crate::known;
use crate::{
    CreateOptions, InheritedItem, LogState, ParentFormat, ParentLink, ParentPaths, VhdxError,
    VhdxImage,
};

/// Most bytes of inherited items. Those that are known of are some tens of bytes long.
const MOST_INHERITED_BYTES: u64 = 16 << 20;

impl CreateOptions {
    /// The options for a differencing disk over `parent`, which is at `paths`: linked to the parent
    /// as it is now, with everything that describes the virtual disk taken over (§2.6.1.2), and the
    /// parent's block size. Another size and another block size may be set afterwards, other sector
    /// sizes may not.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a parent that is opened for writing, which could
    /// change without the child noticing; [`NeedsRecovery`](ErrorKind::NeedsRecovery) for one whose log
    /// was left alone; [`LimitExceeded`](ErrorKind::LimitExceeded) for more than 16 MiB of items to be
    /// taken over; [`Io`](ErrorKind::Io).
    ///
    /// # Example
    ///
    /// ```
    /// use std::sync::Arc;
    /// use blockdev_core::MemoryStorage;
    /// use vhdx_format::{CreateOptions, OpenOptions, ParentPaths, VhdxImage, VhdxWriter};
    ///
    /// let base = Arc::new(MemoryStorage::default());
    /// VhdxWriter::create(base.clone(), CreateOptions::new(1 << 30))?.finish()?;
    /// let parent = VhdxImage::open(base, &OpenOptions::read_only())?;
    ///
    /// let options = CreateOptions::child_of(&parent, ParentPaths::relative("base.vhdx")?)?;
    /// let child = Arc::new(MemoryStorage::default());
    /// VhdxWriter::create(child.clone(), options)?.finish()?;
    ///
    /// let child = VhdxImage::open(child, &OpenOptions::read_only())?;
    /// let locator = child.parent_locator().expect("it has a parent");
    /// assert_eq!(locator.linkages(), [parent.header().data_write_guid]);
    /// # Ok::<(), blockdev_core::Error>(())
    /// ```
    pub fn child_of(parent: &VhdxImage, paths: ParentPaths) -> Result<Self> {
        if !parent.storage().is_read_only() {
            // Its data-write GUID changes with its first write, and not with those after it.
            let text = "a parent that is opened for writing can still change unnoticed";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if parent.log_state() == LogState::Ignored {
            let text = "the parent's log is not replayed, and its metadata may be out of date";
            return Err(Error::new(ErrorKind::NeedsRecovery, text));
        }
        let items = parent.items();
        let format = ParentFormat::Vhdx;
        let mut link = ParentLink::new(format, parent.header().data_write_guid, paths);
        link.sector_sizes = Some((items.logical_sector_size, items.physical_sector_size));
        let mut options = Self::new(items.virtual_disk_size);
        options.block_size = items.file_parameters.block_size;
        options.logical_sector_size = items.logical_sector_size;
        options.physical_sector_size = items.physical_sector_size;
        options.virtual_disk_id = Some(items.virtual_disk_id);
        options.inherited = inherited(parent)?;
        options.parent = Some(link);
        Ok(options)
    }

    /// The options for a differencing disk over `parent`, an image of another format at `paths`. That
    /// is an extension of this library's, which other readers refuse
    /// ([`known::OTHER_PARENT_LOCATOR`](crate::known::OTHER_PARENT_LOCATOR)), and it too when it is to
    /// be strict. The child is linked to the parent's file by
    /// [`file_fingerprint`](blockdev_core::file_fingerprint), and of the parent's size, rounded up to
    /// whole sectors of 512 bytes.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a parent that is VHDX, or is opened for writing;
    /// [`Unsupported`](ErrorKind::Unsupported) for one that has no fingerprint;
    /// [`Io`](ErrorKind::Io).
    pub fn child_of_other(parent: &dyn Layer, paths: ParentPaths) -> Result<Self> {
        let info = parent.info();
        if info.format == crate::FORMAT_NAME {
            let text = "a parent that is VHDX is linked to as such";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if !info.read_only {
            let text = "a parent that is opened for writing can still change";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let fingerprint = file_fingerprint(parent)?.ok_or_else(|| {
            let text = format!(
                "changes of this {} parent could not be noticed: it is in no regular file, or its \
                 content is in another one",
                info.format
            );
            Error::new(ErrorKind::Unsupported, text)
        })?;
        let format = ParentFormat::Other(info.format.into());
        let linkage = Uuid::from_bytes(fingerprint.0);
        let size = info.size.checked_next_multiple_of(512);
        let size =
            size.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the size is too large"))?;
        let mut options = Self::new(size);
        options.parent = Some(ParentLink::new(format, linkage, paths));
        Ok(options)
    }
}

/// The unknown items of `parent` that describe the virtual disk.
fn inherited(parent: &VhdxImage) -> Result<Vec<InheritedItem>> {
    let table = parent.metadata_table();
    let known = |id| known::item_name(id).is_some();
    let mut left = MOST_INHERITED_BYTES;
    let mut items = Vec::new();
    for entry in &table.entries {
        if !entry.is_virtual_disk || !entry.is_user && known(entry.item_id) {
            continue;
        }
        let length = u64::from(entry.length);
        left = left.checked_sub(length).ok_or(VhdxError::Limit {
            structure: "metadata table",
            offset: table.offset,
            what: "length of the items that describe the virtual disk",
            found: MOST_INHERITED_BYTES - left + length,
            limit: MOST_INHERITED_BYTES,
        })?;
        items.push(InheritedItem {
            item_id: entry.item_id,
            is_user: entry.is_user,
            bytes: inspect::metadata_item(parent.storage(), table, entry)?,
        });
    }
    Ok(items)
}
