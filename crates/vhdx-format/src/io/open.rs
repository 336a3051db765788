//! Opening: fixed areas first, then the log, then what the log may have changed.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use blockdev_core::{
    ByteRange, Caps, DeviceInfo, Error, ErrorKind, OpenMode, OpenOptions, ReadOnlyStorage,
    Recovery, Result, Storage,
};

use super::engine::Engine;
use super::engine::log::LogWriter;
use super::inspect::{self, MetadataItems};
use super::log::log_contents;
use super::replay::ReplayPlan;
use super::tables::Tables;
use crate::VhdxError;
use crate::image::{LogState, Structures, VhdxImage};
use crate::io::tables::ENTRY_BYTES;
use crate::known::{BAT_REGION, METADATA_REGION};
use crate::meta::file_identifier::FileIdentifier;
use crate::meta::geometry::{Geometry, Unchecked};
use crate::meta::headers::{HeaderCopy, Headers};
use crate::meta::metadata::MetadataTable;
use crate::meta::problem::refuse;
use crate::meta::regions::RegionTables;
use crate::ondisk::MIB;

impl VhdxImage {
    /// Opens the VHDX file in `storage`.
    ///
    /// Read-only, no byte of it is written whatever its state: a log that is not empty is replayed
    /// in memory. For writing, the log is replayed in the file. [`OpenOptions::recovery`] says
    /// otherwise. With [`OpenOptions::salvage`] it is opened as far as what is left of it allows.
    ///
    /// # Errors
    /// [`NotRecognised`](ErrorKind::NotRecognised) for another format,
    /// [`Corrupt`](ErrorKind::Corrupt) with structure and offset,
    /// [`Unsupported`](ErrorKind::Unsupported) for what is marked required and unknown,
    /// [`NeedsRecovery`](ErrorKind::NeedsRecovery) by [`Recovery::Refuse`],
    /// [`InvalidInput`](ErrorKind::InvalidInput) for options that contradict each other,
    /// [`LimitExceeded`](ErrorKind::LimitExceeded), [`Io`](ErrorKind::Io).
    pub fn open(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self> {
        if options.salvage {
            return Self::open_damaged(storage, options);
        }
        check_options(&*storage, options)?;
        let identifier = inspect::file_identifier(&*storage)?;
        let headers = inspect::headers(&*storage)?;
        refuse(headers.problems(), options.strict)?;
        refuse(headers.current()?.problems(storage.len()?), options.strict)?;

        let (replayed, headers, log_state) = recover(&storage, headers, options)?;
        let medium = storage;
        let storage: Arc<dyn Storage> = match options.mode {
            OpenMode::ReadOnly => Arc::new(ReadOnlyStorage::new(replayed)),
            OpenMode::ReadWrite => replayed,
        };

        let file_len = storage.len()?;
        let region_tables = load_regions(&*storage, &headers, file_len, options.strict)?;
        let regions = region_tables.current()?;
        let region = |guid| {
            let range = regions.require(guid)?.range();
            Ok::<_, VhdxError>(range.expect("a region that ends inside the file"))
        };
        let bat = region(BAT_REGION)?;
        let (table, items) = load_metadata(&*storage, region(METADATA_REGION)?, options.strict)?;
        let geometry = geometry(&items, &table)?;
        let has_parent = items.file_parameters.has_parent;
        check_bat_length(&geometry, bat, has_parent)?;

        let engine = match options.mode {
            OpenMode::ReadOnly => None,
            OpenMode::ReadWrite => Some(Engine::new(log_writer(headers.current()?)?)),
        };
        let parts = Parts {
            storage,
            medium,
            identifier,
            headers,
            region_tables,
            metadata_table: table,
            items,
            geometry,
            bat_offset: bat.start(),
            file_len,
            log_state,
        };
        Ok(Self::assemble(parts, options, engine))
    }

    /// The image of which everything is known.
    pub(crate) fn assemble(parts: Parts, options: &OpenOptions, engine: Option<Engine>) -> Self {
        let (items, geometry) = (parts.items, parts.geometry);
        let sector = items.logical_sector_size;
        let locator = items.parent_locator.iter();
        let tables = Tables::new(
            Arc::clone(&parts.storage),
            &options.page_cache(),
            parts.bat_offset,
            &geometry,
            items.file_parameters.has_parent,
        );
        Self {
            refs: locator.map(|locator| locator.file_ref(sector)).collect(),
            info: device_info(&items, &geometry, options.mode),
            file_len: AtomicU64::new(parts.file_len),
            headers: RwLock::new(parts.headers),
            structures: Structures {
                identifier: parts.identifier,
                region_tables: parts.region_tables,
                metadata_table: parts.metadata_table,
                items,
            },
            geometry,
            tables,
            log_state: parts.log_state,
            storage: parts.storage,
            medium: parts.medium,
            engine,
        }
    }
}

/// What opening has found out.
pub(crate) struct Parts {
    /// The file as it is to be read, and as the caller gave it.
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) medium: Arc<dyn Storage>,
    pub(crate) identifier: FileIdentifier,
    pub(crate) headers: Headers,
    pub(crate) region_tables: RegionTables,
    pub(crate) metadata_table: MetadataTable,
    pub(crate) items: MetadataItems,
    pub(crate) geometry: Geometry,
    pub(crate) bat_offset: u64,
    pub(crate) file_len: u64,
    pub(crate) log_state: LogState,
}

/// The log of a file that is to be changed; there must be one.
fn log_writer(header: &HeaderCopy) -> Result<LogWriter> {
    if u64::from(header.log_length) < MIB {
        return Err(VhdxError::Field {
            structure: "header",
            offset: header.offset,
            field: "LogLength",
            found: header.log_length.to_string(),
            expected: "at least 1 MiB in a file that is opened for writing".into(),
        }
        .into());
    }
    Ok(LogWriter::new(header))
}

fn check_options(storage: &dyn Storage, options: &OpenOptions) -> Result<()> {
    if options.mode == OpenMode::ReadWrite {
        if storage.is_read_only() {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the file is opened read-only",
            ));
        }
        if matches!(options.recovery, Recovery::InMemory | Recovery::Ignore) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "an image opened for writing must replay its log in the file",
            ));
        }
    }
    Ok(())
}

/// Deals with the log: the file as it is to be read, its headers, and what was done.
fn recover(
    storage: &Arc<dyn Storage>,
    headers: Headers,
    options: &OpenOptions,
) -> Result<(Arc<dyn Storage>, Headers, LogState)> {
    let current = *headers.current()?;
    if current.log_guid.is_nil() {
        return Ok((Arc::clone(storage), headers, LogState::Empty));
    }
    if options.recovery == Recovery::Ignore {
        return Ok((Arc::clone(storage), headers, LogState::Ignored));
    }
    let log = log_contents(&**storage, &current, &options.limits)?;
    let plan = ReplayPlan::new(&**storage, &current, &log)?;
    let plan = plan.expect("the header names a log");
    let entries = plan.entries();
    match (options.recovery, options.mode) {
        (Recovery::Refuse, _) => Err(VhdxError::LogNotEmpty {
            offset: current.log_offset,
            entries,
        }
        .into()),
        (_, OpenMode::ReadOnly) => {
            let replayed = plan.in_memory(Arc::clone(storage), options.limits.log_bytes)?;
            Ok((replayed, headers, LogState::ReplayedInMemory { entries }))
        }
        (_, OpenMode::ReadWrite) => {
            let headers = plan.in_file(&**storage, &headers)?;
            Ok((Arc::clone(storage), headers, LogState::Replayed { entries }))
        }
    }
}

fn load_regions(
    storage: &dyn Storage,
    headers: &Headers,
    file_len: u64,
    strict: bool,
) -> Result<RegionTables> {
    let tables = inspect::region_tables(storage)?;
    refuse(tables.problems(), strict)?;
    let log = headers
        .current()?
        .log_range()
        .expect("the header was checked");
    refuse(tables.current()?.problems(log, file_len), strict)?;
    Ok(tables)
}

/// The metadata table in `region` and the items it lists, checked.
pub(crate) fn load_metadata(
    storage: &dyn Storage,
    region: ByteRange,
    strict: bool,
) -> Result<(MetadataTable, MetadataItems)> {
    let table = inspect::metadata_table(storage, region)?;
    refuse(table.problems(region.len()), strict)?;
    let items = inspect::metadata_items(storage, &table)?;
    if let Some(locator) = &items.parent_locator {
        refuse(locator.problems(), strict)?;
    }
    Ok((table, items))
}

pub(crate) fn geometry(
    items: &MetadataItems,
    table: &MetadataTable,
) -> Result<Geometry, VhdxError> {
    Unchecked {
        virtual_size: items.virtual_disk_size,
        block_size: items.file_parameters.block_size,
        logical_sector_size: items.logical_sector_size,
        physical_sector_size: items.physical_sector_size,
        region_offset: table.offset,
    }
    .check()
}

/// The BAT must be long enough to place every block of the disk (§2.5).
pub(crate) fn check_bat_length(
    geometry: &Geometry,
    bat: ByteRange,
    has_parent: bool,
) -> Result<(), VhdxError> {
    let needed = geometry.bat_entries(has_parent) * ENTRY_BYTES;
    if needed <= bat.len() {
        return Ok(());
    }
    Err(VhdxError::Field {
        structure: "BAT",
        offset: bat.start(),
        field: "Length",
        found: bat.len().to_string(),
        expected: format!(
            "at least {needed} for a disk of {} bytes",
            geometry.virtual_size()
        )
        .into(),
    })
}

fn device_info(items: &MetadataItems, geometry: &Geometry, mode: OpenMode) -> DeviceInfo {
    let writable = mode == OpenMode::ReadWrite;
    DeviceInfo {
        size: geometry.virtual_size(),
        logical_sector_size: items.logical_sector_size,
        physical_sector_size: items.physical_sector_size,
        block_size: Some(items.file_parameters.block_size),
        read_only: !writable,
        format: crate::FORMAT_NAME,
        caps: Caps {
            write: writable,
            write_zeroes: writable,
            discard: writable,
        },
    }
}
