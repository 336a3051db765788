//! The builder's settings.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::block::{BlockContent, BlockData};
use super::damage::{Damage, Slot};
use super::geometry::Geometry;
use super::header::HeaderCopy;
use super::ids;
use super::layout::{Area, Layout, Placement, plan};
use super::locator::ParentLocator;
use super::log::LogEntry;
use super::metadata::{ItemChange, ItemPlacement, MetadataEntry, MetadataItem};
use super::region::{ExtraRegion, RegionEntry};

/// How the updates of pending blocks are put into the log.
#[derive(Clone, Copy, Debug)]
pub struct PendingLog {
    /// Where the first entry starts, in bytes from the start of the log.
    pub start: u32,
    /// SequenceNumber of the first entry.
    pub first_sequence: u64,
    /// Descriptors in each entry but the last. Below the number of updates there are several
    /// entries, and a reader has to replay them all.
    pub descriptors_per_entry: usize,
    /// FlushedFileOffset of all entries, or `None` for the size of the file in whole MiB.
    pub flushed_file_offset: Option<u64>,
    /// LastFileOffset of all entries, or `None` for the end of the last structure.
    pub last_file_offset: Option<u64>,
}

impl Default for PendingLog {
    fn default() -> Self {
        Self {
            start: 0,
            first_sequence: 1,
            descriptors_per_entry: usize::MAX,
            flushed_file_offset: None,
            last_file_offset: None,
        }
    }
}

/// Describes a VHDX image; see the [module](super) for examples.
///
/// Nothing is validated: any value that fits its field is stored, so that every rule of the
/// format can be broken on purpose.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct VhdxBuilder {
    pub(super) virtual_size: u64,
    pub(super) block_size: u32,
    pub(super) logical_sector_size: u32,
    pub(super) physical_sector_size: u32,
    pub(super) creator: String,
    pub(super) leave_block_allocated: bool,
    pub(super) has_parent: bool,
    pub(super) file_write_guid: Uuid,
    pub(super) data_write_guid: Uuid,
    pub(super) virtual_disk_id: Uuid,
    pub(super) version: u16,
    pub(super) log_version: u16,
    pub(super) log_guid: Option<Uuid>,
    pub(super) log_length: u32,
    pub(super) log_offset: Option<u64>,
    pub(super) log_entries: Vec<LogEntry>,
    pub(super) headers: [HeaderCopy; 2],
    pub(super) region_damage: [Option<Damage>; 2],
    pub(super) region_table: Option<Vec<RegionEntry>>,
    pub(super) extra_regions: Vec<ExtraRegion>,
    pub(super) area_order: Vec<Area>,
    pub(super) placement: Placement,
    pub(super) bat_length: Option<u32>,
    pub(super) raw_bat: BTreeMap<u64, u64>,
    pub(super) item_placement: ItemPlacement,
    pub(super) metadata_table: Option<Vec<MetadataEntry>>,
    pub(super) item_changes: Vec<ItemChange>,
    pub(super) locator: Option<ParentLocator>,
    pub(super) blocks: BTreeMap<u64, BlockContent>,
    pub(super) pending: BTreeMap<u64, BlockContent>,
    pub(super) pending_log: PendingLog,
    pub(super) stale_bitmaps: BTreeMap<u64, u8>,
    pub(super) forced_bitmaps: BTreeSet<u64>,
    pub(super) file_len: Option<u64>,
}

impl VhdxBuilder {
    /// A dynamic image of `virtual_size` bytes in which no block is present: blocks of 1 MiB,
    /// 512-byte sectors, a log of 1 MiB, then the metadata and the BAT region, then blocks.
    pub fn new(virtual_size: u64) -> Self {
        Self {
            virtual_size,
            block_size: 1 << 20,
            logical_sector_size: 512,
            physical_sector_size: 512,
            creator: String::from("independent test image"),
            leave_block_allocated: false,
            has_parent: false,
            file_write_guid: ids::DEFAULT_FILE_WRITE,
            data_write_guid: ids::DEFAULT_DATA_WRITE,
            virtual_disk_id: ids::DEFAULT_DISK_ID,
            version: 1,
            log_version: 0,
            log_guid: None,
            log_length: 1 << 20,
            log_offset: None,
            log_entries: Vec::new(),
            headers: Default::default(),
            region_damage: [None; 2],
            region_table: None,
            extra_regions: Vec::new(),
            area_order: vec![
                Area::Log,
                Area::Metadata,
                Area::Bat,
                Area::ExtraRegions,
                Area::Blocks,
            ],
            placement: Placement::Sequential,
            bat_length: None,
            raw_bat: BTreeMap::new(),
            item_placement: ItemPlacement::Packed,
            metadata_table: None,
            item_changes: Vec::new(),
            locator: None,
            blocks: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_log: PendingLog::default(),
            stale_bitmaps: BTreeMap::new(),
            forced_bitmaps: BTreeSet::new(),
            file_len: None,
        }
    }

    /// A differencing image over `parent`, found at `path` relative to the child: same size,
    /// sector sizes and disk id; a DataWriteGuid and FileWriteGuid of its own.
    pub fn child_of(parent: &Self, path: &str) -> Self {
        let after = |guid: Uuid| Uuid::from_u128(guid.as_u128().wrapping_add(1));
        Self::new(parent.virtual_size)
            .logical_sector_size(parent.logical_sector_size)
            .physical_sector_size(parent.physical_sector_size)
            .virtual_disk_id(parent.virtual_disk_id)
            .file_write_guid(after(parent.file_write_guid))
            .data_write_guid(after(parent.data_write_guid))
            .differencing(ParentLocator::relative(parent.data_write_guid, path))
    }

    /// VirtualDiskSize in bytes.
    pub fn virtual_size(mut self, bytes: u64) -> Self {
        self.virtual_size = bytes;
        self
    }

    /// BlockSize in bytes. What is asked for a block is kept by block number.
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = bytes;
        self
    }

    /// LogicalSectorSize in bytes.
    pub fn logical_sector_size(mut self, bytes: u32) -> Self {
        self.logical_sector_size = bytes;
        self
    }

    /// PhysicalSectorSize in bytes.
    pub fn physical_sector_size(mut self, bytes: u32) -> Self {
        self.physical_sector_size = bytes;
        self
    }

    /// Creator; what exceeds 256 UTF-16 units is cut.
    pub fn creator(mut self, creator: &str) -> Self {
        self.creator = creator.into();
        self
    }

    /// Makes a fixed image: sets LeaveBlockAllocated and allocates, with zeros, every block that
    /// nothing was asked for so far. Sizes have to be set before.
    pub fn fixed(mut self) -> Self {
        for block in 0..self.geometry().payload_blocks() {
            let zeros = || BlockContent::FullyPresent(BlockData::Byte(0));
            self.blocks.entry(block).or_insert_with(zeros);
        }
        self.leave_block_allocated(true)
    }

    /// Sets or clears LeaveBlockAllocated alone.
    pub fn leave_block_allocated(mut self, set: bool) -> Self {
        self.leave_block_allocated = set;
        self
    }

    /// Makes a differencing image: sets HasParent and adds the parent locator.
    pub fn differencing(self, locator: ParentLocator) -> Self {
        self.has_parent(true).parent_locator(locator)
    }

    /// Sets or clears HasParent alone.
    pub fn has_parent(mut self, set: bool) -> Self {
        self.has_parent = set;
        self
    }

    /// Sets the parent locator item alone.
    pub fn parent_locator(mut self, locator: ParentLocator) -> Self {
        self.locator = Some(locator);
        self
    }

    /// FileWriteGuid of both headers.
    pub fn file_write_guid(mut self, guid: Uuid) -> Self {
        self.file_write_guid = guid;
        self
    }

    /// DataWriteGuid of both headers.
    pub fn data_write_guid(mut self, guid: Uuid) -> Self {
        self.data_write_guid = guid;
        self
    }

    /// VirtualDiskId.
    pub fn virtual_disk_id(mut self, guid: Uuid) -> Self {
        self.virtual_disk_id = guid;
        self
    }

    /// Version of both headers.
    pub fn version(mut self, version: u16) -> Self {
        self.version = version;
        self
    }

    /// LogVersion of both headers.
    pub fn log_version(mut self, version: u16) -> Self {
        self.log_version = version;
        self
    }

    /// LogGuid of both headers. Without this it is nil if the log is empty, else
    /// [`ids::DEFAULT_LOG`]; nil hides the entries of a log that was replayed before.
    pub fn log_guid(mut self, guid: Uuid) -> Self {
        self.log_guid = Some(guid);
        self
    }

    /// Length of the log in MiB.
    pub fn log_length_mib(mut self, mib: u32) -> Self {
        self.log_length = mib << 20;
        self
    }

    /// Puts the log at this MiB of the file, whatever else is there, in place of the one that
    /// [`area_order`](Self::area_order) gives it.
    pub fn log_offset_mib(mut self, mib: u64) -> Self {
        self.log_offset = Some(mib << 20);
        self
    }

    /// Adds an entry to the log. Entries are written in the order they are added, after those of
    /// pending blocks.
    pub fn log_entry(self, entry: LogEntry) -> Self {
        self.log_entries([entry])
    }

    /// Adds several entries to the log.
    pub fn log_entries(mut self, entries: impl IntoIterator<Item = LogEntry>) -> Self {
        self.log_entries.extend(entries);
        self
    }

    /// Sets where one header differs from what the other settings give.
    pub fn header(mut self, slot: Slot, copy: HeaderCopy) -> Self {
        self.headers[slot.index()] = copy;
        self
    }

    /// SequenceNumber of the first and of the second header.
    pub fn header_sequences(mut self, first: u64, second: u64) -> Self {
        self.headers[0].sequence = Some(first);
        self.headers[1].sequence = Some(second);
        self
    }

    /// Damages one header.
    pub fn damage_header(mut self, slot: Slot, damage: Damage) -> Self {
        self.headers[slot.index()].damage = Some(damage);
        self
    }

    /// Damages one region table.
    pub fn damage_region_table(mut self, slot: Slot, damage: Damage) -> Self {
        self.region_damage[slot.index()] = Some(damage);
        self
    }

    /// Stores exactly these region table entries, wherever the regions are.
    /// [`Layout::region_entries`] is what would be stored otherwise.
    pub fn region_table(mut self, entries: Vec<RegionEntry>) -> Self {
        self.region_table = Some(entries);
        self
    }

    /// Adds a region.
    pub fn extra_region(mut self, region: ExtraRegion) -> Self {
        self.extra_regions.push(region);
        self
    }

    /// The order of everything after the header section. What is left out is not placed.
    pub fn area_order(mut self, order: impl IntoIterator<Item = Area>) -> Self {
        self.area_order = order.into_iter().collect();
        self
    }

    /// The order of payload and sector bitmap blocks.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Length of the BAT region in bytes, valid or not. Entries that do not fit are left out.
    pub fn bat_length(mut self, bytes: u32) -> Self {
        self.bat_length = Some(bytes);
        self
    }

    /// Stores `entry` at `index` of the BAT, bitmap entries counted too, whatever would be there.
    pub fn raw_bat(mut self, index: u64, entry: u64) -> Self {
        self.raw_bat.insert(index, entry);
        self
    }

    /// How metadata items are laid out.
    pub fn item_placement(mut self, placement: ItemPlacement) -> Self {
        self.item_placement = placement;
        self
    }

    /// Adds a metadata item, or replaces the one with the same id and IsUser flag.
    pub fn metadata_item(mut self, item: MetadataItem) -> Self {
        self.item_changes.push(ItemChange::Put(item));
        self
    }

    /// Leaves out the metadata items with this id.
    pub fn without_metadata_item(mut self, id: Uuid) -> Self {
        self.item_changes.push(ItemChange::Remove(id));
        self
    }

    /// Stores exactly these metadata table entries, wherever the items are.
    /// [`Layout::metadata_entries`] is what would be stored otherwise.
    pub fn metadata_table(mut self, entries: Vec<MetadataEntry>) -> Self {
        self.metadata_table = Some(entries);
        self
    }

    /// Sets state and content of payload block `index`.
    pub fn block(mut self, index: u64, content: BlockContent) -> Self {
        self.blocks.insert(index, content);
        self
    }

    /// Makes the image dirty: content of payload block `index` is in the file, in space of its
    /// own, but its BAT entry and sector bitmap are only in the log, where
    /// [`block`](Self::block) is still what the tables in place say.
    pub fn pending_block(mut self, index: u64, content: BlockContent) -> Self {
        self.pending.insert(index, content);
        self
    }

    /// How the updates of pending blocks are put into the log.
    pub fn pending_log(mut self, log: PendingLog) -> Self {
        self.pending_log = log;
        self
    }

    /// Gives the chunk of payload block `index` a sector bitmap block, and fills the bits of
    /// `index` with `byte` unless the block is partially present.
    pub fn stale_bitmap(mut self, index: u64, byte: u8) -> Self {
        self.stale_bitmaps.insert(index, byte);
        self
    }

    /// Gives `chunk` a sector bitmap block, whether one is needed or not.
    pub fn bitmap_block(mut self, chunk: u64) -> Self {
        self.forced_bitmaps.insert(chunk);
        self
    }

    /// Cuts or extends the finished file to `bytes`.
    pub fn file_len(mut self, bytes: u64) -> Self {
        self.file_len = Some(bytes);
        self
    }

    /// Sizes and BAT indices of the disk.
    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.virtual_size, self.block_size, self.logical_sector_size)
    }

    /// Where [`build`](Self::build) puts everything. Log entries do not change it.
    pub fn layout(&self) -> Layout {
        plan(self)
    }

    /// The LogGuid of the headers.
    pub(super) fn header_log_guid(&self) -> Uuid {
        let empty = self.pending.is_empty() && self.log_entries.is_empty();
        let usual = if empty { Uuid::nil() } else { ids::DEFAULT_LOG };
        self.log_guid.unwrap_or(usual)
    }
}
