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
use crate::ondisk::crc::checksum;
use crate::ondisk::file_identifier::{self, CREATOR_UNITS, RawFileIdentifier};
use crate::ondisk::metadata_items::{LEAVE_BLOCK_ALLOCATED, RawFileParameters};
use crate::ondisk::metadata_table::{
    self, IS_REQUIRED, IS_VIRTUAL_DISK, RawMetadataEntry, RawMetadataTableHeader,
};
use crate::ondisk::region_table::{self, RawRegionEntry, RawRegionTableHeader};
use crate::ondisk::{HEADER_SECTION_BYTES, MIB};
use crate::{CreateOptions, VhdxError, known};

/// Bytes of the metadata region.
const METADATA_BYTES: u32 = 1 << 20;

/// Where the regions of a new image lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    log_length: u32,
    pub(crate) bat_offset: u64,
    bat_length: u32,
}

impl Layout {
    /// Checks the options and places the regions.
    ///
    /// # Errors
    /// [`VhdxError::Field`] with the first option that the format does not allow.
    pub(crate) fn new(options: &CreateOptions) -> Result<Self, VhdxError> {
        let field = |field, found: String, expected: &'static str| VhdxError::Field {
            structure: "new image",
            offset: 0,
            field,
            found,
            expected: expected.into(),
        };
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
        // Long enough for a differencing disk too, so that one can be made of it in place.
        let bat_bytes = (geometry.bat_entries(true) * 8)
            .next_multiple_of(MIB)
            .max(MIB);
        let bat_length = u32::try_from(bat_bytes).expect("at most 2^26 entries and their bitmaps");
        let bat_offset = HEADER_SECTION_BYTES + u64::from(log_length) + u64::from(METADATA_BYTES);
        Ok(Self {
            geometry,
            log_length,
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
    pub(crate) fn structures(&self, options: &CreateOptions) -> Vec<(u64, Vec<u8>)> {
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
        vec![
            (0, file_identifier(&options.creator)),
            (first, header(1)),
            (second, header(2)),
            (region_table::OFFSETS[0], regions.clone()),
            (region_table::OFFSETS[1], regions),
            (self.metadata_offset(), metadata(options)),
        ]
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
                METADATA_BYTES,
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

/// The metadata table and its items.
fn metadata(options: &CreateOptions) -> Vec<u8> {
    let parameters = RawFileParameters {
        block_size: options.block_size.into(),
        flags: if options.fixed {
            LEAVE_BLOCK_ALLOCATED
        } else {
            0
        }
        .into(),
    };
    let disk_id = options.virtual_disk_id.unwrap_or_else(Uuid::new_v4);
    let items: [(Uuid, u32, Vec<u8>); 5] = [
        (known::FILE_PARAMETERS, 0, parameters.as_bytes().to_vec()),
        (
            known::VIRTUAL_DISK_SIZE,
            IS_VIRTUAL_DISK,
            options.virtual_size.to_le_bytes().to_vec(),
        ),
        (
            known::VIRTUAL_DISK_ID,
            IS_VIRTUAL_DISK,
            disk_id.to_bytes_le().to_vec(),
        ),
        (
            known::LOGICAL_SECTOR_SIZE,
            IS_VIRTUAL_DISK,
            options.logical_sector_size.to_le_bytes().to_vec(),
        ),
        (
            known::PHYSICAL_SECTOR_SIZE,
            IS_VIRTUAL_DISK,
            options.physical_sector_size.to_le_bytes().to_vec(),
        ),
    ];
    let mut table = RawMetadataTableHeader {
        signature: metadata_table::SIGNATURE,
        reserved: 0.into(),
        entry_count: u16::try_from(items.len()).expect("five").into(),
        reserved2: [0; 20],
    }
    .as_bytes()
    .to_vec();
    let mut content = Vec::new();
    for (id, flags, item) in items {
        let offset = metadata_table::BYTES + content.len();
        let entry = RawMetadataEntry {
            item_id: id.into(),
            offset: u32::try_from(offset).expect("just after the table").into(),
            length: u32::try_from(item.len()).expect("a few bytes").into(),
            flags: (flags | IS_REQUIRED).into(),
            reserved2: 0.into(),
        };
        table.extend_from_slice(entry.as_bytes());
        content.extend_from_slice(&item);
    }
    table.resize(metadata_table::BYTES, 0);
    table.extend_from_slice(&content);
    table
}
