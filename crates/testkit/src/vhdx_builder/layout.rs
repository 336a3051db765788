//! Where everything goes in the file.

use std::collections::{BTreeMap, BTreeSet};

use super::builder::VhdxBuilder;
use super::bytes::{MIB, to_u32};
use super::geometry::Geometry;
use super::ids;
use super::metadata::{self, MetadataEntry};
use super::region::RegionEntry;

/// A part of the file after the header section, for [`VhdxBuilder::area_order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The log.
    Log,
    /// The metadata region.
    Metadata,
    /// The BAT region.
    Bat,
    /// The extra regions, in the order they were added.
    ExtraRegions,
    /// Payload and sector bitmap blocks.
    Blocks,
    /// Free space of this many MiB.
    Gap(u64),
}

/// The order of payload and sector bitmap blocks in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Ascending, without gaps; a chunk's bitmap block before its payload blocks.
    #[default]
    Sequential,
    /// Descending, without gaps.
    Reverse,
    /// Ascending, with free space of this many MiB before each block.
    Gaps(u64),
}

/// Where a builder puts what; all offsets are in bytes from the start of the file.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Sizes and BAT indices.
    pub geometry: Geometry,
    /// Start of the log.
    pub log_offset: u64,
    /// Length of the log in bytes.
    pub log_length: u32,
    /// Start of the metadata region.
    pub metadata_offset: u64,
    /// Length of the metadata region in bytes.
    pub metadata_length: u32,
    /// Start of the BAT region.
    pub bat_offset: u64,
    /// Length of the BAT region in bytes.
    pub bat_length: u32,
    /// The region table that describes the above: BAT, metadata, extra regions.
    pub region_entries: Vec<RegionEntry>,
    /// The metadata table that describes the items, in the order of the items.
    pub metadata_entries: Vec<MetadataEntry>,
    /// Start of each payload block that has space in the file, by block.
    pub blocks: BTreeMap<u64, u64>,
    /// The same for what [`VhdxBuilder::pending_block`] sets.
    pub pending: BTreeMap<u64, u64>,
    /// Start of each sector bitmap block, by chunk.
    pub bitmaps: BTreeMap<u64, u64>,
    /// End of the last structure, which is the file's length if nothing else is asked for.
    pub end: u64,
}

impl Layout {
    /// File offset of the BAT entry with this index.
    pub fn bat_entry_offset(&self, index: u64) -> u64 {
        self.bat_offset + index * 8
    }
}

/// A block that needs space; sorted, a chunk's bitmap stands before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Bitmap {
        chunk: u64,
    },
    Payload {
        chunk: u64,
        block: u64,
        pending: bool,
    },
}

impl Claim {
    fn chunk(self) -> u64 {
        match self {
            Self::Bitmap { chunk } | Self::Payload { chunk, .. } => chunk,
        }
    }
}

/// Lays out what `builder` asks for.
pub(super) fn plan(builder: &VhdxBuilder) -> Layout {
    let metadata_entries = metadata::place(&builder.metadata_items(), builder.item_placement);
    let mut layout = Layout {
        geometry: builder.geometry(),
        log_offset: 0,
        log_length: builder.log_length,
        metadata_offset: 0,
        metadata_length: metadata_length(&metadata_entries),
        bat_offset: 0,
        bat_length: bat_length(builder),
        region_entries: Vec::new(),
        metadata_entries,
        blocks: BTreeMap::new(),
        pending: BTreeMap::new(),
        bitmaps: BTreeMap::new(),
        end: 0,
    };
    let mut extra_entries = Vec::new();
    let mut next = MIB;
    for area in &builder.area_order {
        match area {
            Area::Gap(mib) => next += mib * MIB,
            Area::Log => layout.log_offset = take(&mut next, layout.log_length.into()),
            Area::Metadata => {
                layout.metadata_offset = take(&mut next, layout.metadata_length.into());
            }
            Area::Bat => layout.bat_offset = take(&mut next, layout.bat_length.into()),
            Area::ExtraRegions => {
                for region in &builder.extra_regions {
                    let length = region.length_mib << 20;
                    let file_offset = take(&mut next, length.into());
                    let required = u32::from(region.required);
                    extra_entries.push(RegionEntry {
                        guid: region.guid,
                        file_offset,
                        length,
                        required,
                    });
                }
            }
            Area::Blocks => place_blocks(builder, &mut layout, &mut next),
        }
    }
    layout.end = next;
    if let Some(offset) = builder.log_offset {
        layout.log_offset = offset;
        layout.end = next.max(offset + u64::from(layout.log_length));
    }
    layout.region_entries = known_entries(&layout);
    layout.region_entries.extend(extra_entries);
    layout
}

fn known_entries(layout: &Layout) -> Vec<RegionEntry> {
    let entry = |guid, file_offset, length| RegionEntry {
        guid,
        file_offset,
        length,
        required: 1,
    };
    vec![
        entry(ids::BAT_REGION, layout.bat_offset, layout.bat_length),
        entry(
            ids::METADATA_REGION,
            layout.metadata_offset,
            layout.metadata_length,
        ),
    ]
}

/// Reserves `length` bytes, rounded up to whole MiB.
fn take(next: &mut u64, length: u64) -> u64 {
    let start = *next;
    *next = start + length.next_multiple_of(MIB);
    start
}

fn metadata_length(entries: &[MetadataEntry]) -> u32 {
    let end = |entry: &MetadataEntry| u64::from(entry.offset) + u64::from(entry.length);
    let end = entries.iter().map(end).max().unwrap_or(0).max(1);
    to_u32(end.next_multiple_of(MIB))
}

/// What the geometry needs, up to the largest whole number of MiB that the region table can say.
fn bat_length(builder: &VhdxBuilder) -> u32 {
    if let Some(length) = builder.bat_length {
        return length;
    }
    let entries = builder.geometry().bat_entries(builder.has_parent);
    let largest = u64::from(u32::MAX) / MIB * MIB;
    to_u32(
        entries
            .saturating_mul(8)
            .clamp(1, largest)
            .next_multiple_of(MIB),
    )
}

fn place_blocks(builder: &VhdxBuilder, layout: &mut Layout, next: &mut u64) {
    let block_size = layout.geometry.block_size;
    let mut claims = claims(builder);
    if builder.placement == Placement::Reverse {
        claims.reverse();
    }
    for claim in claims {
        if let Placement::Gaps(mib) = builder.placement {
            *next += mib * MIB;
        }
        match claim {
            Claim::Bitmap { chunk } => layout.bitmaps.insert(chunk, take(next, MIB)),
            Claim::Payload {
                block,
                pending: false,
                ..
            } => layout.blocks.insert(block, take(next, block_size)),
            Claim::Payload {
                block,
                pending: true,
                ..
            } => layout.pending.insert(block, take(next, block_size)),
        };
    }
}

/// Everything that needs space, in ascending order. Pending blocks get space of their own: what
/// they replace stays where it is until the log is replayed.
fn claims(builder: &VhdxBuilder) -> Vec<Claim> {
    let geometry = builder.geometry();
    let mut claims: Vec<Claim> = bitmap_chunks(builder, true)
        .into_iter()
        .map(|chunk| Claim::Bitmap { chunk })
        .collect();
    for (blocks, pending) in [(&builder.blocks, false), (&builder.pending, true)] {
        let stored = blocks
            .iter()
            .filter(|(_, content)| content.stored().is_some());
        claims.extend(stored.map(|(&block, _)| Claim::Payload {
            chunk: geometry.chunk_of(block),
            block,
            pending,
        }));
    }
    claims.sort_by_key(|&claim| (claim.chunk(), claim));
    claims
}

/// Chunks that have a sector bitmap block, before or after the log is replayed.
pub(super) fn bitmap_chunks(builder: &VhdxBuilder, replayed: bool) -> BTreeSet<u64> {
    let geometry = builder.geometry();
    let pending = if replayed {
        Some(&builder.pending)
    } else {
        None
    };
    let partial = std::iter::once(&builder.blocks)
        .chain(pending)
        .flatten()
        .filter(|(_, content)| content.state() == 7)
        .map(|(&block, _)| block);
    partial
        .chain(builder.stale_bitmaps.keys().copied())
        .map(|block| geometry.chunk_of(block))
        .chain(builder.forced_bitmaps.iter().copied())
        .collect()
}
