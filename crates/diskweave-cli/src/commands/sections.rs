//! `sections`: the structures of a VHDX file, field by field, as they lie in the file.

use std::cell::RefCell;
use std::io::{BufWriter, Write, stdout};
use std::sync::Arc;

use blockdev_nbd::NbdOpener;
use diskweave::core::locate::Opener;
use diskweave::core::{ByteRange, Error, FileOptions, Limits, LockMode, Result, Storage};
use diskweave::vhdx::inspect::{self, FoundEntry};
use diskweave::vhdx::{
    BatEntry, BatSlot, HeaderCopy, LogDescriptor, MetadataEntry, RegionTable, VhdxImage, known,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{shown, vhdx_facts};
use crate::args::{Output, Section, Sections};
use crate::failure::Failure;
use crate::output::plain::print;
use crate::output::{json, tree};

pub(crate) fn run(args: &Sections) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.file), e);
    let lock = if args.open.shared() {
        LockMode::Unprotected
    } else {
        LockMode::Shared
    };
    let options = FileOptions::read_only().with_lock(lock);
    let storage = NbdOpener::default()
        .open(&args.file, options)
        .map_err(about)?;
    let value = match args.section {
        Section::Header => header(&*storage),
        Section::Region => region(&*storage),
        Section::Metadata => metadata(&*storage),
        Section::Bat => return bat(storage, args),
        Section::Log => log(&*storage),
    }
    .map_err(about)?;
    match args.output {
        Output::Json => json::print(&value)?,
        Output::Human => print(&tree::text(&value, 0))?,
    }
    Ok(0)
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn ascii(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn header(storage: &dyn Storage) -> Result<Value> {
    let identifier = inspect::file_identifier(storage)?;
    let headers = inspect::headers(storage)?;
    Ok(json!({
        "file-identifier": {
            "signature": ascii(&identifier.signature),
            "creator": identifier.creator,
        },
        "current": headers.current.map(|at| at + 1),
        "header-1": header_copy(&headers.copies[0]),
        "header-2": header_copy(&headers.copies[1]),
    }))
}

fn header_copy(copy: &HeaderCopy) -> Value {
    json!({
        "offset": hex(copy.offset),
        "valid": copy.is_valid(),
        "signature": ascii(&copy.signature),
        "checksum": hex(copy.checksum.into()),
        "computed-checksum": hex(copy.computed_checksum.into()),
        "sequence-number": copy.sequence_number,
        "file-write-guid": copy.file_write_guid.to_string(),
        "data-write-guid": copy.data_write_guid.to_string(),
        "log-guid": copy.log_guid.to_string(),
        "log-version": copy.log_version,
        "version": copy.version,
        "log-length": copy.log_length,
        "log-offset": hex(copy.log_offset),
    })
}

fn region(storage: &dyn Storage) -> Result<Value> {
    inspect::file_identifier(storage)?;
    let tables = inspect::region_tables(storage)?;
    Ok(json!({
        "current": tables.current.map(|at| at + 1),
        "region-table-1": region_table(&tables.copies[0]),
        "region-table-2": region_table(&tables.copies[1]),
    }))
}

fn region_table(table: &RegionTable) -> Value {
    let entries: Vec<Value> = table
        .entries
        .iter()
        .map(|entry| {
            json!({
                "region": known::region_name(entry.guid),
                "guid": entry.guid.to_string(),
                "file-offset": hex(entry.file_offset),
                "length": entry.length,
                "required": entry.required,
            })
        })
        .collect();
    json!({
        "offset": hex(table.offset),
        "valid": table.is_valid(),
        "signature": ascii(&table.signature),
        "checksum": hex(table.checksum.into()),
        "computed-checksum": hex(table.computed_checksum.into()),
        "entry-count": table.entry_count,
        "entries": entries,
    })
}

fn metadata(storage: &dyn Storage) -> Result<Value> {
    inspect::file_identifier(storage)?;
    let tables = inspect::region_tables(storage)?;
    let region = tables
        .current()?
        .find(known::METADATA_REGION)
        .and_then(|entry| entry.range());
    let Some(region) = region else {
        return Ok(json!({ "entries": null }));
    };
    let table = inspect::metadata_table(storage, region)?;
    let entries: Vec<Value> = table.entries.iter().map(metadata_entry).collect();
    Ok(json!({
        "offset": hex(table.offset),
        "signature": ascii(&table.signature),
        "entry-count": table.entry_count,
        "entries": entries,
        "items": match inspect::metadata_items(storage, &table) {
            Ok(items) => self::items(&items),
            // The table is shown all the same.
            Err(error) => json!({ "error": error.to_string() }),
        },
    }))
}

fn metadata_entry(entry: &MetadataEntry) -> Value {
    json!({
        "item": known::item_name(entry.item_id),
        "item-id": entry.item_id.to_string(),
        "offset": hex(entry.offset.into()),
        "length": entry.length,
        "is-user": entry.is_user,
        "is-virtual-disk": entry.is_virtual_disk,
        "is-required": entry.is_required,
    })
}

fn items(items: &inspect::MetadataItems) -> Value {
    json!({
        "file-parameters": {
            "block-size": items.file_parameters.block_size,
            "leave-block-allocated": items.file_parameters.leave_block_allocated,
            "has-parent": items.file_parameters.has_parent,
        },
        "virtual-disk-size": items.virtual_disk_size,
        "virtual-disk-id": items.virtual_disk_id.to_string(),
        "logical-sector-size": items.logical_sector_size,
        "physical-sector-size": items.physical_sector_size,
        "parent-locator": items.parent_locator.as_ref().map(vhdx_facts::locator),
    })
}

/// The block allocation table, as it is after replay: no other one means anything.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Bat<'a> {
    entry_count: u64,
    chunk_ratio: u64,
    payload_blocks: u64,
    sector_bitmap_blocks: u64,
    entries_not_zero: BatEntries<'a>,
}

/// Made one at a time: a large disk has millions.
struct BatEntries<'a> {
    image: &'a VhdxImage,
    failure: RefCell<Option<Error>>,
}

impl BatEntries<'_> {
    fn values(&self) -> impl Iterator<Item = Value> {
        let until_failure = |entry: Result<_>| {
            let note = |error| *self.failure.borrow_mut() = Some(error);
            entry.map_err(note).ok()
        };
        self.image
            .bat_entries()
            .map_while(until_failure)
            .map(bat_entry)
    }
}

impl Serialize for BatEntries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.values())
    }
}

fn bat(storage: Arc<dyn Storage>, args: &Sections) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.file), e);
    let image = VhdxImage::open(storage, &args.open.image_options()).map_err(about)?;
    let geometry = image.geometry();
    let bat = Bat {
        entry_count: image.bat_len(),
        chunk_ratio: geometry.chunk_ratio(),
        payload_blocks: geometry.payload_blocks(),
        sector_bitmap_blocks: geometry.bitmap_blocks(),
        entries_not_zero: BatEntries {
            image: &image,
            failure: RefCell::new(None),
        },
    };
    match args.output {
        Output::Json => json::print(&bat)?,
        Output::Human => bat_text(&bat)?,
    }
    match bat.entries_not_zero.failure.into_inner() {
        // What could be told was told first.
        Some(error) => Err(about(error)),
        None => Ok(0),
    }
}

fn bat_text(bat: &Bat<'_>) -> Result<(), Failure> {
    let mut out = BufWriter::new(stdout().lock());
    write!(
        out,
        "entry-count: {}\nchunk-ratio: {}\npayload-blocks: {}\nsector-bitmap-blocks: {}\n",
        bat.entry_count, bat.chunk_ratio, bat.payload_blocks, bat.sector_bitmap_blocks
    )?;
    let mut entries = bat.entries_not_zero.values().enumerate().peekable();
    let none = if entries.peek().is_none() {
        " none"
    } else {
        ""
    };
    writeln!(out, "entries-not-zero:{none}")?;
    for (number, entry) in entries {
        out.write_all(tree::numbered(number, &entry, 4).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn bat_entry((index, slot, entry): (u64, BatSlot, BatEntry)) -> Value {
    let (what, number, state) = match slot {
        BatSlot::Payload { block } => {
            let state = entry.payload_state().map(|state| state.as_str());
            ("payload", block, state)
        }
        BatSlot::Bitmap { chunk } => {
            let state = entry.bitmap_state().map(|state| state.as_str());
            ("sector-bitmap", chunk, state)
        }
    };
    json!({
        "index": index,
        "block": what,
        "number": number,
        "state": state.unwrap_or("reserved"),
        "file-offset": hex(entry.file_offset()),
    })
}

fn log(storage: &dyn Storage) -> Result<Value> {
    inspect::file_identifier(storage)?;
    let headers = inspect::headers(storage)?;
    let header = headers.current()?;
    let fits = ByteRange::new(header.log_offset, u64::from(header.log_length));
    let contents = inspect::log_contents(storage, header, &Limits::default())?;
    let entries: Vec<Value> = contents.found.iter().map(log_entry).collect();
    Ok(json!({
        "log-guid": header.log_guid.to_string(),
        "offset": hex(header.log_offset),
        "length": header.log_length,
        "inside-file": fits.is_some_and(|log| storage.len().is_ok_and(|len| log.end() <= len)),
        "active-entries": contents.active.len(),
        "entries": entries,
    }))
}

fn log_entry(found: &FoundEntry) -> Value {
    let header = &found.header;
    let mut value = json!({
        "log-offset": hex(found.log_offset.into()),
        "active": found.active,
        "valid": found.entry.is_ok(),
        "signature": ascii(&header.signature),
        "checksum": hex(header.checksum.into()),
        "entry-length": header.entry_length,
        "tail": hex(header.tail.into()),
        "sequence-number": header.sequence_number,
        "descriptor-count": header.descriptor_count,
        "log-guid": header.log_guid.to_string(),
        "flushed-file-offset": hex(header.flushed_file_offset),
        "last-file-offset": hex(header.last_file_offset),
    });
    match &found.entry {
        Ok(entry) => {
            value["descriptors"] = entry.descriptors.iter().map(descriptor).collect();
        }
        Err(flaw) => value["flaw"] = (*flaw).into(),
    }
    value
}

fn descriptor(descriptor: &LogDescriptor) -> Value {
    match *descriptor {
        LogDescriptor::Data {
            file_offset,
            leading,
            trailing,
            data_sector,
        } => json!({
            "type": "data",
            "file-offset": hex(file_offset),
            "leading-bytes": format!("{:016x}", u64::from_be_bytes(leading)),
            "trailing-bytes": format!("{:08x}", u32::from_be_bytes(trailing)),
            "data-sector": data_sector,
        }),
        LogDescriptor::Zero {
            file_offset,
            length,
        } => json!({
            "type": "zero",
            "file-offset": hex(file_offset),
            "length": length,
        }),
        _ => json!({ "type": "unknown" }),
    }
}
