//! Reading single structures: for opening, for checking, and for whoever wants to look.
//!
//! These functions read what they are asked for and nothing else, so that a file too damaged to be
//! opened can still be looked at. They see the file as it lies: a log that was not replayed is not
//! taken into account, unless the storage given is one in which it was.

use blockdev_core::{ByteRange, Result, Storage, StorageExt};
use uuid::Uuid;

use crate::VhdxError;
use crate::known;
use crate::meta::file_identifier::FileIdentifier;
use crate::meta::headers::{HeaderCopy, Headers};
use crate::meta::locator::ParentLocator;
use crate::meta::metadata::{FileParameters, MetadataEntry, MetadataTable};
use crate::meta::regions::{RegionTable, RegionTables};
use crate::ondisk::{header, metadata_table, region_table};

/// The file type identifier (§2.2.1).
///
/// # Errors
/// [`NotRecognised`](blockdev_core::ErrorKind::NotRecognised) for a file of another format,
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn file_identifier(storage: &dyn Storage) -> Result<FileIdentifier> {
    let mut bytes = [0; FileIdentifier::BYTES];
    storage.read_zero_padded(&mut bytes, 0)?;
    Ok(FileIdentifier::decode(&bytes)?)
}

/// Both copies of the header, and which one is current (§2.2.2).
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io); invalid copies are part of the answer.
pub fn headers(storage: &dyn Storage) -> Result<Headers> {
    let copy = |offset| {
        let mut bytes = [0; header::BYTES];
        storage.read_zero_padded(&mut bytes, offset)?;
        Ok::<_, blockdev_core::Error>(HeaderCopy::decode(&bytes, offset))
    };
    Ok(Headers::choose([
        copy(header::OFFSETS[0])?,
        copy(header::OFFSETS[1])?,
    ]))
}

/// Both copies of the region table, and which one is used (§2.2.3).
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io); invalid copies are part of the answer.
pub fn region_tables(storage: &dyn Storage) -> Result<RegionTables> {
    let mut bytes = vec![0; region_table::BYTES];
    let mut copy = |offset| {
        storage.read_zero_padded(&mut bytes, offset)?;
        Ok::<_, blockdev_core::Error>(RegionTable::decode(&bytes, offset))
    };
    let [first, second] = region_table::OFFSETS;
    Ok(RegionTables::choose([copy(first)?, copy(second)?]))
}

/// Both copies of the region table, whose bytes these are.
pub(crate) fn decode_region_tables(copies: [&[u8]; 2]) -> RegionTables {
    let [first, second] = region_table::OFFSETS;
    RegionTables::choose([
        RegionTable::decode(copies[0], first),
        RegionTable::decode(copies[1], second),
    ])
}

/// The metadata table of the metadata region at `region` (§2.6.1).
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io); a wrong signature is part of the answer.
pub fn metadata_table(storage: &dyn Storage, region: ByteRange) -> Result<MetadataTable> {
    let mut bytes = vec![0; metadata_table::BYTES];
    storage.read_zero_padded(&mut bytes, region.start())?;
    Ok(MetadataTable::decode(&bytes, region.start()))
}

/// The bytes of one metadata item (§2.6.1.2); none for an empty item.
///
/// # Errors
/// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) when the item is longer than 1 MiB or reaches
/// past the end of the file, [`Io`](blockdev_core::ErrorKind::Io).
pub fn metadata_item(
    storage: &dyn Storage,
    table: &MetadataTable,
    entry: &MetadataEntry,
) -> Result<Vec<u8>> {
    if entry.length > metadata_table::MAX_ITEM_BYTES {
        return Err(entry.field("Length", entry.length, "at most 1 MiB").into());
    }
    let mut bytes = vec![0; entry.length as usize];
    if !bytes.is_empty() {
        let at = table
            .offset
            .checked_add(u64::from(entry.offset))
            .ok_or_else(|| {
                entry.field("Offset", entry.offset, "an item inside the metadata region")
            })?;
        // Nearly every item ends inside the file; to ask for its length first would be a call more.
        if let Err(error) = storage.read_at(&mut bytes, at) {
            if storage.len()?.saturating_sub(at) >= bytes.len() as u64 {
                return Err(error);
            }
            let found = format!("{:#x}, {} bytes long,", entry.offset, entry.length);
            return Err(entry
                .field("Offset", found, "an item that ends inside the file")
                .into());
        }
    }
    Ok(bytes)
}

/// The system items that describe the disk, decoded (§2.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadataItems {
    /// Block size and type of the disk.
    pub file_parameters: FileParameters,
    /// Size of the virtual disk in bytes.
    pub virtual_disk_size: u64,
    /// Identity of the virtual disk.
    pub virtual_disk_id: Uuid,
    /// Logical sector size in bytes.
    pub logical_sector_size: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
    /// Where the parent is; there when the disk is differencing, and of no meaning otherwise.
    pub parent_locator: Option<ParentLocator>,
}

/// Decodes the known items that `table` lists.
///
/// # Errors
/// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) when one is missing or malformed,
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn metadata_items(storage: &dyn Storage, table: &MetadataTable) -> Result<MetadataItems> {
    let items = items_without_locator(storage, table)?;
    let locator = match table.find(known::PARENT_LOCATOR) {
        // Without the flag the item means nothing, and nothing in it can be wrong.
        _ if !items.file_parameters.has_parent => None,
        Some(entry) => Some(parent_locator(storage, table, entry)?),
        None => {
            // The flag without the item: nobody could tell where absent blocks come from.
            return Err(VhdxError::Missing {
                structure: "metadata table",
                offset: table.offset,
                what: "Parent Locator".into(),
            }
            .into());
        }
    };
    Ok(MetadataItems {
        parent_locator: locator,
        ..items
    })
}

/// The same without a look at the parent locator.
pub(crate) fn items_without_locator(
    storage: &dyn Storage,
    table: &MetadataTable,
) -> Result<MetadataItems> {
    fn fixed<const N: usize>(
        storage: &dyn Storage,
        table: &MetadataTable,
        id: Uuid,
    ) -> Result<[u8; N]> {
        let entry = table.require(id)?;
        entry.expect_length(N)?;
        let bytes = metadata_item(storage, table, entry)?;
        Ok(bytes.try_into().expect("the length was checked"))
    }
    let parameters = fixed(storage, table, known::FILE_PARAMETERS)?;
    let size = fixed(storage, table, known::VIRTUAL_DISK_SIZE)?;
    let id = fixed(storage, table, known::VIRTUAL_DISK_ID)?;
    let logical = fixed(storage, table, known::LOGICAL_SECTOR_SIZE)?;
    let physical = fixed(storage, table, known::PHYSICAL_SECTOR_SIZE)?;
    Ok(MetadataItems {
        file_parameters: FileParameters::decode(&parameters),
        virtual_disk_size: u64::from_le_bytes(size),
        virtual_disk_id: Uuid::from_bytes_le(id),
        logical_sector_size: u32::from_le_bytes(logical),
        physical_sector_size: u32::from_le_bytes(physical),
        parent_locator: None,
    })
}

fn parent_locator(
    storage: &dyn Storage,
    table: &MetadataTable,
    entry: &MetadataEntry,
) -> Result<ParentLocator> {
    let bytes = metadata_item(storage, table, entry)?;
    let offset = table.offset.saturating_add(u64::from(entry.offset));
    Ok(ParentLocator::decode(&bytes, offset)?)
}
