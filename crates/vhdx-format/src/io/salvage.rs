//! Opening what is damaged, to get out of it what is still there.
//!
//! Nothing is written, and nothing is refused as long as there is another way to go on:
//!
//! | damaged | instead |
//! | --- | --- |
//! | file type identifier | none |
//! | both headers | the one that looks like one, for the sake of the log; else no log |
//! | log | the file as it is without it |
//! | both region tables | one whose entries look right; else a search for the regions |
//! | optional items, parent locator | none |
//! | BAT that is too short, file cut short | the disk as far as there are entries, blocks as far as they are there |
//!
//! Reading what is not there is an error, as ever: [`Salvage`](blockdev_core::Salvage) takes zeros for
//! it and tells.

use std::sync::Arc;

use blockdev_core::{
    ByteRange, Error, ErrorKind, OpenMode, OpenOptions, Result, Storage, StorageExt,
};

use super::inspect::{self, MetadataItems};
use super::log::log_contents;
use super::open::{Parts, geometry};
use super::replay::ReplayPlan;
use super::tables::ENTRY_BYTES;
use crate::image::{LogState, VhdxImage};
use crate::known::{BAT_REGION, METADATA_REGION};
use crate::meta::file_identifier::FileIdentifier;
use crate::meta::geometry::Geometry;
use crate::meta::headers::Headers;
use crate::meta::metadata::MetadataTable;
use crate::meta::regions::{RegionEntry, RegionTable, RegionTables};
use crate::ondisk::bat_entry::{BatEntry, PayloadState};
use crate::ondisk::metadata_table::SIGNATURE;
use crate::ondisk::{HEADER_SECTION_BYTES, MIB};

/// Regions are looked for in so much of the file; writers put them at its start.
const SEARCHED_BYTES: u64 = 256 << 20;

/// Blocks may reach past the end of a file that was cut short: what is there can be read.
const NO_END: u64 = u64::MAX >> 1;

impl VhdxImage {
    /// Opens what is left of the VHDX file in `storage`, read-only.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when it is to be written to;
    /// [`Corrupt`](ErrorKind::Corrupt) when not even size and place of its blocks can be told.
    pub(crate) fn open_damaged(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self> {
        if options.mode == OpenMode::ReadWrite {
            let text = "what is damaged is not written to: salvage it into another image";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let medium = Arc::clone(&storage);
        let identifier = inspect::file_identifier(&*storage).unwrap_or_else(|_| FileIdentifier {
            signature: [0; 8],
            creator: String::new(),
        });
        let headers = headers(&*storage)?;
        let (storage, log_state) = replayed(storage, &headers, options);
        let region_tables = regions(&*storage)?;
        let table = region_tables.current()?;
        let place = |guid| {
            table
                .require(guid)
                .map(|entry| (entry.file_offset, entry.length))
        };
        let (metadata, length) = place(METADATA_REGION)?;
        let region = ByteRange::new(metadata, u64::from(length));
        let region = region.ok_or_else(|| lost("the metadata region"))?;
        let metadata_table = inspect::metadata_table(&*storage, region)?;
        let items = items(&*storage, &metadata_table)?;
        let (bat_offset, bat_length) = place(BAT_REGION)?;
        let geometry = as_far_as_told(
            geometry(&items, &metadata_table)?,
            u64::from(bat_length) / ENTRY_BYTES,
            items.file_parameters.has_parent,
        )?;
        Ok(Self::assemble(
            Parts {
                storage,
                medium,
                identifier,
                headers,
                region_tables,
                metadata_table,
                items,
                geometry,
                bat_offset,
                file_len: NO_END,
                log_state,
            },
            options,
            None,
        ))
    }
}

fn lost(what: &str) -> Error {
    let text = format!("{what} can be told by nothing that is left of the file");
    Error::new(ErrorKind::Corrupt, text)
}

/// The headers, with one that is current come what may.
fn headers(storage: &dyn Storage) -> Result<Headers> {
    let mut headers = inspect::headers(storage)?;
    if headers.current.is_none() {
        let looks_right = |n: &usize| {
            let copy = &headers.copies[*n];
            copy.signature == *b"head" && copy.problems(u64::MAX).is_empty()
        };
        let usable = [0, 1].into_iter().filter(looks_right);
        headers.current = usable.max_by_key(|n| headers.copies[*n].sequence_number);
    }
    if headers.current.is_none() {
        headers.copies[0].log_guid = uuid::Uuid::nil();
        headers.copies[0].log_length = 0;
        headers.current = Some(0);
    }
    Ok(headers)
}

/// The file with its log replayed in memory, if that is possible.
fn replayed(
    storage: Arc<dyn Storage>,
    headers: &Headers,
    options: &OpenOptions,
) -> (Arc<dyn Storage>, LogState) {
    let attempt = || {
        let header = headers.current()?;
        let log = log_contents(&*storage, header, &options.limits)?;
        // How long the file was does not matter here.
        let Some(plan) = ReplayPlan::of_any_length(header, &log)? else {
            return Ok(None);
        };
        let entries = plan.entries();
        let replayed = plan.in_memory(Arc::clone(&storage), options.limits.log_bytes)?;
        Ok::<_, Error>(Some((replayed, LogState::ReplayedInMemory { entries })))
    };
    let outcome = attempt();
    match outcome {
        Ok(Some(replayed)) => replayed,
        Ok(None) => (storage, LogState::Empty),
        Err(_) => (storage, LogState::Ignored),
    }
}

/// The region tables, with one in use that names both regions.
fn regions(storage: &dyn Storage) -> Result<RegionTables> {
    let mut tables = inspect::region_tables(storage)?;
    let names_both = |table: &RegionTable| {
        [BAT_REGION, METADATA_REGION].iter().all(|guid| {
            table.find(*guid).is_some_and(|entry| {
                entry.file_offset >= HEADER_SECTION_BYTES
                    && entry.file_offset.is_multiple_of(MIB)
                    && entry.length > 0
            })
        })
    };
    if tables.current().is_ok_and(names_both) {
        return Ok(tables);
    }
    tables.current = tables.copies.iter().position(names_both);
    if tables.current.is_none() {
        tables.copies[0].entries = searched(storage)?;
        tables.current = Some(0);
    }
    Ok(tables)
}

/// The regions, found by what is in them.
fn searched(storage: &dyn Storage) -> Result<Vec<RegionEntry>> {
    let file_len = storage.len()?;
    let end = file_len.min(SEARCHED_BYTES);
    let mut metadata = None;
    let mut bat: Option<(usize, u64)> = None;
    let mut page = [0; 4096];
    for at in (HEADER_SECTION_BYTES..end).step_by(usize::try_from(MIB).expect("1 MiB")) {
        storage.read_zero_padded(&mut page, at)?;
        if page.starts_with(&SIGNATURE) {
            metadata.get_or_insert(at);
        } else if let Some(blocks) = looks_like_bat(&page, file_len)
            && bat.is_none_or(|(most, _)| blocks > most)
        {
            bat = Some((blocks, at));
        }
    }
    let metadata = metadata.ok_or_else(|| lost("the place of the metadata region"))?;
    let (_, bat) = bat.ok_or_else(|| lost("the place of the BAT"))?;
    let entry = |guid, file_offset, length| RegionEntry {
        entry_offset: 0,
        guid,
        file_offset,
        length,
        required: true,
    };
    // How long it is will be seen from the disk's size.
    Ok(vec![
        entry(BAT_REGION, bat, u32::MAX),
        entry(METADATA_REGION, metadata, 1 << 20),
    ])
}

/// How many blocks the page names, if it can be the first of a BAT.
fn looks_like_bat(page: &[u8; 4096], file_len: u64) -> Option<usize> {
    let mut blocks = 0;
    for bytes in page.as_chunks::<8>().0 {
        let entry = BatEntry::from_le_bytes(*bytes);
        let place = entry.file_offset();
        match entry.payload_state()? {
            PayloadState::FullyPresent | PayloadState::PartiallyPresent => {
                if place < HEADER_SECTION_BYTES || place > file_len {
                    return None;
                }
                blocks += 1;
            }
            _ if entry.reserved_bits() != 0 || place > file_len => return None,
            _ => {}
        }
        if entry.reserved_bits() != 0 {
            return None;
        }
    }
    (blocks > 0).then_some(blocks)
}

/// The items, without a parent locator where it cannot be read.
fn items(storage: &dyn Storage, table: &MetadataTable) -> Result<MetadataItems> {
    inspect::metadata_items(storage, table).or_else(|error| {
        let without = inspect::items_without_locator(storage, table);
        without.map_err(|_| error)
    })
}

/// The disk as far as its BAT goes.
fn as_far_as_told(geometry: Geometry, entries: u64, has_parent: bool) -> Result<Geometry> {
    if geometry.bat_entries(has_parent) <= entries {
        return Ok(geometry);
    }
    let stride = geometry.chunk_ratio() + 1;
    let blocks = entries / stride * geometry.chunk_ratio() + entries % stride;
    let size = geometry.virtual_size().min(blocks * geometry.block_size());
    Ok(geometry.with_virtual_size(size)?)
}
