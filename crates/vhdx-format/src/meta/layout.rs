//! Where everything lies in a new image, and the bytes of its fixed structures.
//!
//! ```text
//!   0         1 MiB      1 MiB + log                              blocks, in the order of the disk
//!   ├──────────┼───────────┼────────────┼───────────────────────┼────────┬────────┬──
//!   │ headers  │ log       │ metadata   │ BAT                   │ block  │ block  │ …
//!   └──────────┴───────────┴────────────┴───────────────────────┴────────┴────────┴──
//! ```

use uuid::Uuid;
use zerocopy::IntoBytes;

use super::geometry::{Geometry, Unchecked};
use super::headers::{HeaderFields, encode};
use super::locator::ParentLocator;
use crate::ondisk::crc::checksum;
use crate::ondisk::file_identifier::{self, CREATOR_UNITS, RawFileIdentifier};
use crate::ondisk::metadata_items::{HAS_PARENT, LEAVE_BLOCK_ALLOCATED, RawFileParameters};
use crate::ondisk::metadata_table::{
    self, IS_REQUIRED, IS_USER, IS_VIRTUAL_DISK, MAX_ENTRIES, MAX_ITEM_BYTES, MAX_USER_ENTRIES,
    RawMetadataEntry, RawMetadataTableHeader,
};
use crate::ondisk::region_table::{self, RawRegionEntry, RawRegionTableHeader};
use crate::ondisk::{HEADER_SECTION_BYTES, MIB};
use crate::{CreateOptions, InheritedItem, VhdxError, known};

/// Where the regions of a new image lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    log_length: u32,
    metadata_length: u32,
    pub(crate) bat_offset: u64,
    bat_length: u32,
}

impl Layout {
    /// Checks the options and places the regions.
    ///
    /// # Errors
    /// [`VhdxError::Field`] with the first option that the format does not allow.
    pub(crate) fn new(options: &CreateOptions) -> Result<Self, VhdxError> {
        let geometry = Unchecked {
            virtual_size: options.virtual_size,
            block_size: options.block_size,
            logical_sector_size: options.logical_sector_size,
            physical_sector_size: options.physical_sector_size,
            region_offset: 0,
        }
        .check()?;
        let log_length = options.log_size;
        if log_length == 0 || !u64::from(log_length).is_multiple_of(MIB) {
            let expected = "a multiple of 1 MiB, and not 0";
            return Err(field("LogLength", log_length.to_string(), expected));
        }
        if options.creator.encode_utf16().count() >= CREATOR_UNITS {
            let expected = "at most 255 UTF-16 units";
            return Err(field("Creator", format!("{:?}", options.creator), expected));
        }
        check_parent(options)?;
        check_inherited(&options.inherited)?;
        let metadata_length = (metadata(options)?.len() as u64).next_multiple_of(MIB);
        let metadata_length = u32::try_from(metadata_length).expect("2047 items of 1 MiB at most");
        // Long enough for a differencing disk too, so that one can be made of it in place.
        let bat_bytes = (geometry.bat_entries(true) * 8)
            .next_multiple_of(MIB)
            .max(MIB);
        let bat_length = u32::try_from(bat_bytes).expect("at most 2^26 entries and their bitmaps");
        let bat_offset = HEADER_SECTION_BYTES + u64::from(log_length) + u64::from(metadata_length);
        Ok(Self {
            geometry,
            log_length,
            metadata_length,
            bat_offset,
            bat_length,
        })
    }

    fn metadata_offset(&self) -> u64 {
        HEADER_SECTION_BYTES + u64::from(self.log_length)
    }

    /// Where the first block goes.
    pub(crate) fn first_block(&self) -> u64 {
        self.bat_offset + u64::from(self.bat_length)
    }

    /// The fixed structures, each with its place: all but the BAT.
    ///
    /// # Errors
    /// None with the options that the layout was made from.
    pub(crate) fn structures(
        &self,
        options: &CreateOptions,
    ) -> Result<Vec<(u64, Vec<u8>)>, VhdxError> {
        let regions = self.region_table();
        let header = |sequence_number| {
            encode(&HeaderFields {
                sequence_number,
                file_write_guid: options.file_write_guid.unwrap_or_else(Uuid::new_v4),
                data_write_guid: options.data_write_guid.unwrap_or_else(Uuid::new_v4),
                log_guid: Uuid::nil(),
                log_version: 0,
                version: 1,
                log_length: self.log_length,
                log_offset: HEADER_SECTION_BYTES,
            })
            .to_vec()
        };
        let [first, second] = crate::ondisk::header::OFFSETS;
        Ok(vec![
            (0, file_identifier(&options.creator)),
            (first, header(1)),
            (second, header(2)),
            (region_table::OFFSETS[0], regions.clone()),
            (region_table::OFFSETS[1], regions),
            (self.metadata_offset(), metadata(options)?),
        ])
    }

    fn region_table(&self) -> Vec<u8> {
        let mut bytes = RawRegionTableHeader {
            signature: region_table::SIGNATURE,
            checksum: 0.into(),
            entry_count: 2.into(),
            reserved: 0.into(),
        }
        .as_bytes()
        .to_vec();
        for (guid, file_offset, length) in [
            (known::BAT_REGION, self.bat_offset, self.bat_length),
            (
                known::METADATA_REGION,
                self.metadata_offset(),
                self.metadata_length,
            ),
        ] {
            let entry = RawRegionEntry {
                guid: guid.into(),
                file_offset: file_offset.into(),
                length: length.into(),
                required: 1.into(),
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes.resize(region_table::BYTES, 0);
        let at = region_table::CHECKSUM_FIELD;
        let sum = checksum(&bytes, at);
        bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

fn file_identifier(creator: &str) -> Vec<u8> {
    let mut units = [0u16.into(); CREATOR_UNITS];
    for (unit, value) in units.iter_mut().zip(creator.encode_utf16()) {
        *unit = value.into();
    }
    RawFileIdentifier {
        signature: file_identifier::SIGNATURE,
        creator: units,
    }
    .as_bytes()
    .to_vec()
}

/// An option that the format does not allow.
fn field(field: &'static str, found: String, expected: &'static str) -> VhdxError {
    VhdxError::Field {
        structure: "new image",
        offset: 0,
        field,
        found,
        expected: expected.into(),
    }
}

/// What a parent demands of its child beyond what its locator says.
fn check_parent(options: &CreateOptions) -> Result<(), VhdxError> {
    let Some(parent) = &options.parent else {
        return Ok(());
    };
    if options.fixed {
        // Ignored with a parent (§2.6.2.1): whoever asks for it would not get it.
        let expected = "clear in a disk that has a parent";
        return Err(field("LeaveBlockAllocated", "set".into(), expected));
    }
    let Some((logical, physical)) = parent.sector_sizes else {
        return Ok(());
    };
    for (name, own, parents) in [
        ("LogicalSectorSize", options.logical_sector_size, logical),
        ("PhysicalSectorSize", options.physical_sector_size, physical),
    ] {
        if own != parents {
            let found = format!("{own} over a parent of {parents}");
            return Err(field(name, found, "the parent's"));
        }
    }
    Ok(())
}

/// Inherited items are no more and no longer than a table may hold (§2.6.1), none of them twice, and
/// none that the other options say.
fn check_inherited(items: &[InheritedItem]) -> Result<(), VhdxError> {
    let most = usize::from(MAX_ENTRIES) - KNOWN_ITEMS;
    if items.len() > most {
        let found = format!("{} inherited items", items.len());
        return Err(field("EntryCount", found, "at most 2041 of them"));
    }
    if items.iter().filter(|item| item.is_user).count() > MAX_USER_ENTRIES {
        let found = "set in more than 1024 inherited items".into();
        return Err(field("IsUser", found, "at most 1024"));
    }
    let mut ids: Vec<_> = items
        .iter()
        .map(|item| (item.is_user, item.item_id))
        .collect();
    ids.sort_unstable();
    let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
    let known = |(is_user, id): &&(bool, Uuid)| !is_user && known::item_name(*id).is_some();
    if let Some((_, id)) = twice.map(|pair| &pair[0]).or(ids.iter().find(known)) {
        let expected = "no known item, and none twice";
        return Err(field("ItemID", format!("{{{id}}}"), expected));
    }
    match items
        .iter()
        .find(|item| item.bytes.len() > MAX_ITEM_BYTES as usize)
    {
        Some(long) => Err(field(
            "Length",
            long.bytes.len().to_string(),
            "at most 1 MiB",
        )),
        None => Ok(()),
    }
}

/// The items that this library knows, the parent locator among them.
const KNOWN_ITEMS: usize = 6;

/// The metadata table and its items.
fn metadata(options: &CreateOptions) -> Result<Vec<u8>, VhdxError> {
    let flags = match (&options.parent, options.fixed) {
        (Some(_), _) => HAS_PARENT,
        (None, true) => LEAVE_BLOCK_ALLOCATED,
        (None, false) => 0,
    };
    let parameters = RawFileParameters {
        block_size: options.block_size.into(),
        flags: flags.into(),
    };
    let disk_id = options.virtual_disk_id.unwrap_or_else(Uuid::new_v4);
    let of_disk = IS_VIRTUAL_DISK | IS_REQUIRED;
    let sector_sizes = [options.logical_sector_size, options.physical_sector_size];
    let [logical, physical] = sector_sizes.map(|size| size.to_le_bytes().to_vec());
    let mut items: Vec<(Uuid, u32, Vec<u8>)> = vec![
        (
            known::FILE_PARAMETERS,
            IS_REQUIRED,
            parameters.as_bytes().to_vec(),
        ),
        (
            known::VIRTUAL_DISK_SIZE,
            of_disk,
            options.virtual_size.to_le_bytes().to_vec(),
        ),
        (
            known::VIRTUAL_DISK_ID,
            of_disk,
            disk_id.to_bytes_le().to_vec(),
        ),
        (known::LOGICAL_SECTOR_SIZE, of_disk, logical),
        (known::PHYSICAL_SECTOR_SIZE, of_disk, physical),
    ];
    if let Some(parent) = &options.parent {
        let locator = ParentLocator::of_link(parent)?.encode();
        items.push((known::PARENT_LOCATOR, IS_REQUIRED, locator));
    }
    items.extend(options.inherited.iter().map(|item| {
        let user = if item.is_user { IS_USER } else { 0 };
        (item.item_id, IS_VIRTUAL_DISK | user, item.bytes.clone())
    }));
    let mut table = RawMetadataTableHeader {
        signature: metadata_table::SIGNATURE,
        reserved: 0.into(),
        entry_count: u16::try_from(items.len()).expect("counted").into(),
        reserved2: [0; 20],
    }
    .as_bytes()
    .to_vec();
    let mut content = Vec::new();
    for (id, flags, item) in items {
        // An empty item has no place (§2.6.1.2).
        let offset = match item.len() {
            0 => 0,
            _ => metadata_table::BYTES + content.len(),
        };
        let entry = RawMetadataEntry {
            item_id: id.into(),
            offset: u32::try_from(offset)
                .expect("2047 items of 1 MiB at most")
                .into(),
            length: u32::try_from(item.len()).expect("at most 1 MiB").into(),
            flags: flags.into(),
            reserved2: 0.into(),
        };
        table.extend_from_slice(entry.as_bytes());
        content.extend_from_slice(&item);
    }
    table.resize(metadata_table::BYTES, 0);
    table.extend_from_slice(&content);
    Ok(table)
}
