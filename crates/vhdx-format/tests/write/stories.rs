//! What guests do in the scenarios: each story is one way for an image to change.

use blockdev_core::{Result, ZeroFlags};
use testkit::crash::{Control, Driver, Image, Named, Scenario};
use testkit::vhdx_builder::{
    Area, BlockContent, BlockData, Damage, ExtraRegion, ItemPlacement, MetadataItem, PendingLog,
    Placement, Slot, VhdxBuilder,
};
use vhdx_format::Uuid;

use crate::subject::{MIB, Vhdx, child, content, disk_of};

pub(crate) type Story = testkit::crash::Story<Vhdx>;

pub(crate) const UNMAP: ZeroFlags = ZeroFlags {
    may_unmap: true,
    no_fallback: false,
};
pub(crate) const KEEP: ZeroFlags = ZeroFlags {
    may_unmap: false,
    no_fallback: false,
};

/// Every story.
pub(crate) const STORIES: &[Named<Vhdx>] = &[
    ("allocate, 1 MiB blocks", || allocate(1)),
    ("allocate, 2 MiB blocks", || allocate(2)),
    ("allocate, 32 MiB blocks", || allocate(32)),
    ("overwrite in place", overwrite),
    ("many writes for one flush", many_writes),
    ("partial writes in a child, 512-byte sectors", || {
        partial(512, 1)
    }),
    ("partial writes in a child, 4 KiB sectors", || {
        partial(4096, 1)
    }),
    ("partial writes in a child, 2 MiB blocks", || {
        partial(512, 2)
    }),
    ("a child over the border of two chunks", child_chunks),
    ("promotion to fully present", promotion),
    ("promotion by one write over all", promotion_at_once),
    ("stale bits in the bitmap", stale_bits),
    ("trim and use again", trim_and_reuse),
    ("trim and use again in a child", trim_in_child),
    ("trim parts of blocks", trim_parts),
    ("zero and write", zero_and_write),
    ("zero and write in a child", zero_in_child),
    ("every state of a child's block", every_state),
    ("the log wraps", || log_wraps(1)),
    ("the log wraps by entries of many sizes", || log_wraps(7)),
    ("the log wraps by states alone", log_wraps_by_states),
    ("the log is full", log_full),
    ("the header switches", header_switch),
    ("a fixed disk", fixed),
    ("the last block reaches past the disk", last_block),
    (
        "the last block of a child reaches past the disk",
        last_block_of_child,
    ),
    ("a disk above one chunk", chunks),
    ("a dirty log, then writes", dirty),
    ("a dirty child, then writes", dirty_child),
    ("a dirty log that wraps", dirty_wrapped),
    ("unknown regions and items", unknown),
    ("the first header is torn", || torn_header(Slot::First)),
    ("the second header is torn", || torn_header(Slot::Second)),
    ("a region table is torn", torn_region_table),
    ("gaps between the blocks", gaps),
    ("blocks in front of the tables", blocks_first),
    ("a child of 256 MiB blocks", largest_blocks),
    ("the file ends in its last block", short_file),
    ("remains behind the last block", long_file),
    ("the disk grows and shrinks", grow_and_shrink),
    ("a fixed disk grows and shrinks", fixed_grows),
    ("a child grows over a longer parent", child_grows),
    ("the disk outgrows its BAT", bat_moves),
    ("a child outgrows its BAT", || bat_of_child_moves(512)),
    ("compact", compact),
    ("compact a child", compact_child),
    ("relink", relink),
    ("dynamic to fixed and back", to_fixed),
    ("differencing to dynamic", to_standalone),
    ("dynamic to differencing", to_differencing),
    ("repair", repair),
    ("repair of a child", repair_child),
];

/// What is done to the image of `builder`, over `base`.
fn over(
    builder: &VhdxBuilder,
    base: Vec<u8>,
    script: impl Fn(&mut Driver<'_, Vhdx>) -> Result<()> + 'static,
) -> Story {
    let disk = disk_of(builder, &base);
    let image = Image::from(builder.build().to_vec());
    let subject = Vhdx::of(&image, base);
    (subject, Scenario::new("", image, script).content(disk))
}

fn alone(
    builder: &VhdxBuilder,
    script: impl Fn(&mut Driver<'_, Vhdx>) -> Result<()> + 'static,
) -> Story {
    over(builder, Vec::new(), script)
}

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

fn part(seed: u64, present: impl IntoIterator<Item = u64>) -> BlockContent {
    BlockContent::partial(BlockData::Pattern(seed), present)
}

/// A disk of `blocks` blocks, the first `there` of which are in the file.
fn filled(blocks: u64, there: u64) -> VhdxBuilder {
    let disk = VhdxBuilder::new(blocks * MIB);
    (0..there).fold(disk, |disk, block| disk.block(block, full(block)))
}

fn allocate(mib: u32) -> Story {
    let block = u64::from(mib) * MIB;
    let disk = VhdxBuilder::new(4 * block).block_size(mib << 20);
    alone(&disk, move |d| {
        d.write(0, 512)?;
        d.write(70_000, 9000)?;
        d.flush()?;
        d.write(512, 4096)?;
        d.write(2 * block - 3000, 9000)?;
        d.flush()?;
        d.write(100, 1000)?;
        d.write(3 * block + 69_000, 3000)
    })
}

fn overwrite() -> Story {
    alone(&filled(2, 2), |d| {
        d.write(0, 9000)?;
        d.write(30_000, 100)?;
        d.flush()?;
        d.write(512, 4096)?;
        d.write(MIB - 700, 5000)?;
        d.flush()?;
        d.write(0, 512)?;
        d.write(700, 9000)
    })
}

fn many_writes() -> Story {
    alone(&VhdxBuilder::new(6 * MIB), |d| {
        for n in 0..12 {
            d.write(n * 711_000 % (6 * MIB - 9000), 300 + n * 170)?;
        }
        d.flush()?;
        for n in 0..12 {
            d.write(n * 97_000, 900)?;
        }
        d.discard(MIB, MIB)?;
        d.write(MIB + 35_000, 3000)?;
        d.flush()
    })
}

/// In sectors and in parts of them, across blocks, beside each other.
fn partial(sector: u32, mib: u32) -> Story {
    let disk = child(4 * u64::from(mib) * MIB)
        .logical_sector_size(sector)
        .block_size(mib << 20);
    let block = u64::from(mib) * MIB;
    over(&disk, content(3000), move |d| {
        d.write(8192, 4096)?;
        d.write(700, 300)?;
        d.flush()?;
        d.write(1000, 100)?;
        d.write(block - 4096, 8192)?;
        d.write(40_000, 5000)?;
        d.flush()?;
        d.write(39_000, 7000)?;
        d.write(2 * block - 100, 200)?;
        d.write(8192, 512)?;
        d.flush()?;
        d.write(3 * block + 4096, 12_288)?;
        d.write(0, 600)
    })
}

/// A chunk of 512-byte sectors is 4 GiB.
fn child_chunks() -> Story {
    let border = 4096 * MIB;
    over(&child(border + 3 * MIB), content(64), move |d| {
        d.write(border - 3000, 9000)?;
        d.write(0, 700)?;
        d.flush()?;
        d.write(border + 2 * MIB, 512)?;
        d.write(border - 9000, 700)?;
        d.discard(border, MIB)?;
        d.flush()?;
        d.write(border + 100, 1000)?;
        d.write(border - MIB, 4096)
    })
}

fn promotion() -> Story {
    let holes = |n: u64| (100..104).contains(&n) || n == 2047;
    let disk = child(3 * MIB)
        .block(0, part(1, (0..2048).filter(|n| !holes(*n))))
        .block(1, part(2, 0..2040));
    over(&disk, content(3000), |d| {
        d.write(100 * 512, 1024)?;
        d.flush()?;
        d.write(2047 * 512, 512)?;
        d.write(MIB + 2040 * 512, 4096)?;
        d.flush()?;
        d.write(102 * 512, 1024)?;
        d.flush()?;
        d.write(5000, 9000)?;
        d.discard(0, MIB)?;
        d.flush()?;
        d.write(3000, 700)
    })
}

fn promotion_at_once() -> Story {
    let disk = child(3 * MIB).block(1, part(2, 3..500));
    over(&disk, content(3000), |d| {
        d.write(0, MIB)?;
        d.flush()?;
        d.write(MIB, 1536)?;
        d.write(MIB + 500 * 512, MIB - 500 * 512)?;
        d.flush()?;
        d.write(700, 700)
    })
}

/// The bits of a block that is not partially present mean nothing, whatever they say.
fn stale_bits() -> Story {
    let disk = child(6 * MIB)
        .block(0, full(1))
        .block(1, BlockContent::Zero)
        .block(3, BlockContent::Unmapped { kept: None })
        .block(4, part(4, 7..90))
        .stale_bitmap(0, 0xFF)
        .stale_bitmap(1, 0xFF)
        .stale_bitmap(2, 0xFF)
        .stale_bitmap(3, 0x5A)
        .stale_bitmap(5, 0xA5);
    over(&disk, content(6000), |d| {
        d.write(2 * MIB + 4096, 512)?;
        d.flush()?;
        d.discard(0, MIB)?;
        d.write(5 * MIB + 700, 1000)?;
        d.flush()?;
        d.write(1024, 2048)?;
        d.write(MIB + 1024, 700)?;
        d.flush()?;
        d.write(3 * MIB + 9000, 700)?;
        d.write_zeroes(4 * MIB, MIB, UNMAP)?;
        d.flush()?;
        d.write(4 * MIB + 512, 512)
    })
}

fn trim_and_reuse() -> Story {
    alone(&filled(6, 4), |d| {
        d.discard(MIB, MIB)?;
        d.write(4 * MIB + 3000, 3000)?;
        d.flush()?;
        d.write(5 * MIB, 5000)?;
        d.write_zeroes(2 * MIB, MIB, UNMAP)?;
        d.flush()?;
        d.write(MIB + 900, 900)?;
        d.discard(0, 6 * MIB)?;
        d.flush()?;
        d.flush()?;
        d.write(3 * MIB + 30_000, 9000)?;
        d.write(700, 700)?;
        d.flush()?;
        d.write(2 * MIB, 700)
    })
}

fn trim_in_child() -> Story {
    let disk = child(6 * MIB)
        .block(0, full(1))
        .block(1, part(2, (3..90).chain(700..2048)))
        .block(2, part(3, 0..2000))
        .block(3, full(4));
    over(&disk, content(6000), |d| {
        d.discard(0, 2 * MIB)?;
        d.write(4 * MIB + 3000, 3000)?;
        d.flush()?;
        d.write(5 * MIB, 1024)?;
        d.write(MIB + 4096, 4096)?;
        d.flush()?;
        d.discard(2 * MIB, MIB)?;
        d.write(2 * MIB + 700, 300)?;
        d.flush()?;
        d.write(700, 300)?;
        d.discard(3 * MIB, 3 * MIB)?;
        d.flush()?;
        d.write(5 * MIB + 1024, 1024)
    })
}

fn trim_parts() -> Story {
    let disk = child(4 * MIB)
        .block(0, full(1))
        .block(1, part(2, (3..90).chain(700..2048)));
    over(&disk, content(4000), |d| {
        d.discard(4096, 300_000)?;
        d.discard(MIB + 1000, 50_000)?;
        d.flush()?;
        d.write(9000, 700)?;
        d.discard(MIB - 9000, MIB + 20_000)?;
        d.discard(3 * MIB + 100, 9000)?;
        d.flush()?;
        d.write(2 * MIB, 700)
    })
}

fn zero_and_write() -> Story {
    alone(&filled(5, 3), |d| {
        d.write_zeroes(0, MIB, KEEP)?;
        d.write_zeroes(MIB, MIB, UNMAP)?;
        d.flush()?;
        d.write(4096, 700)?;
        d.write(MIB + 24_576, 700)?;
        d.flush()?;
        d.write_zeroes(2 * MIB + 3000, 300_000, KEEP)?;
        d.write_zeroes(2 * MIB + 500_000, 300_000, UNMAP)?;
        d.write_zeroes(3 * MIB, 2 * MIB, UNMAP)?;
        d.flush()?;
        d.write(4 * MIB + 24_000, 9000)?;
        d.write_zeroes(3000, 3 * MIB, UNMAP)
    })
}

fn zero_in_child() -> Story {
    let disk = child(5 * MIB)
        .block(0, full(1))
        .block(1, part(2, (3..90).chain(700..2048)));
    over(&disk, content(5000), |d| {
        d.write_zeroes(0, 2 * MIB, UNMAP)?;
        d.write_zeroes(2 * MIB + 3000, 9000, KEEP)?;
        d.flush()?;
        d.write(4096, 700)?;
        d.write(MIB + 24_576, 700)?;
        d.write_zeroes(3 * MIB, MIB, KEEP)?;
        d.flush()?;
        d.write_zeroes(MIB + 20_000, 9000, UNMAP)?;
        d.write(3 * MIB + 512, 512)?;
        d.flush()?;
        d.write_zeroes(4 * MIB - 700, 1400, UNMAP)
    })
}

/// Each state over a parent that has content everywhere, then a write to a part of it.
fn every_state() -> Story {
    let old = || Some(BlockData::Pattern(40));
    let disk = child(7 * MIB)
        .block(0, BlockContent::NotPresent)
        .block(1, BlockContent::Undefined { kept: None })
        .block(2, BlockContent::Undefined { kept: old() })
        .block(3, BlockContent::Zero)
        .block(4, BlockContent::Unmapped { kept: None })
        .block(5, BlockContent::Unmapped { kept: old() })
        .block(6, part(6, 9..700));
    over(&disk, content(7200), |d| {
        for block in 0..7 {
            d.write(block * MIB + 5000, 700)?;
        }
        d.flush()?;
        for block in 0..7 {
            d.write(block * MIB + 512, 512)?;
        }
        d.flush()?;
        d.discard(MIB, 5 * MIB)?;
        d.flush()?;
        d.write(2 * MIB + 4096, 4096)?;
        d.write(5 * MIB + 4096, 4096)
    })
}

/// Each flush is an entry of two or three sectors, or of more where `pages` bitmap pages change; the
/// ring has 256.
fn log_wraps(pages: u64) -> Story {
    let disk = child(128 * MIB).block_size(32 << 20);
    over(&disk, content(64), move |d| {
        let flushes = if pages == 1 { 140 } else { 60 };
        for flush in 0..flushes {
            for page in 0..1 + flush % pages {
                // A page of the bitmap is 16 MiB of the disk.
                d.write(page * 16 * MIB + flush * 1024, 512)?;
            }
            d.flush()?;
        }
        d.write(3 * MIB, 512)
    })
}

/// No byte of a guest is written, so that no flush has anything to make stable but tables.
fn log_wraps_by_states() -> Story {
    let disk = child(160 * MIB).block(3, full(3)).block(90, part(9, 7..90));
    over(&disk, content(64), |d| {
        d.write(150 * MIB, 512)?;
        for block in 0..140 {
            d.write_zeroes(block * MIB, MIB, UNMAP)?;
            d.flush()?;
        }
        d.write(3 * MIB, 512)
    })
}

/// More pages than an entry, or half of the log, holds.
fn log_full() -> Story {
    let disk = child(160 * 16 * MIB).block_size(32 << 20);
    over(&disk, content(64), |d| {
        for page in 0..150 {
            d.write(page * 16 * MIB + page * 512, 512)?;
        }
        d.flush()?;
        for page in 0..70 {
            d.write(page * 16 * MIB + (page + 300) * 512, 512)?;
        }
        d.flush()?;
        for page in 60..150 {
            d.write(page * 16 * MIB + (page + 600) * 512, 512)?;
        }
        d.flush()?;
        d.write(700, 700)
    })
}

fn header_switch() -> Story {
    alone(&filled(4, 1), |d| {
        d.write(0, 512)?;
        d.reopen()?;
        d.write(MIB, 512)?;
        d.flush()?;
        d.reopen()?;
        d.reopen()?;
        d.write(700, 700)?;
        d.write(2 * MIB + 700, 700)?;
        d.reopen()?;
        d.write(3 * MIB, 700)?;
        d.discard(0, MIB)?;
        d.reopen()?;
        d.write(9000, 700)
    })
}

fn fixed() -> Story {
    alone(&VhdxBuilder::new(3 * MIB).fixed(), |d| {
        d.write(700, 9000)?;
        d.write(MIB - 700, 1400)?;
        d.flush()?;
        d.discard(0, MIB)?;
        d.write_zeroes(2 * MIB, MIB, UNMAP)?;
        d.flush()?;
        d.write(1000, 700)?;
        d.write(2 * MIB + 1000, 700)?;
        d.write_zeroes(MIB, 9000, KEEP)
    })
}

fn last_block() -> Story {
    let size = 2 * MIB + 300 * 1024 + 512;
    let disk = VhdxBuilder::new(size).block(0, full(1));
    alone(&disk, move |d| {
        d.write(size - 700, 700)?;
        d.flush()?;
        d.write_zeroes(2 * MIB, size - 2 * MIB, UNMAP)?;
        d.write(MIB - 700, 1400)?;
        d.flush()?;
        d.write(size - 5000, 5000)?;
        d.discard(0, size)?;
        d.flush()?;
        d.write(size - 512, 512)
    })
}

fn last_block_of_child() -> Story {
    let size = 2 * MIB + 4096;
    let disk = child(size).block(2, part(3, 2..6));
    over(&disk, content(5000), move |d| {
        d.write(size - 4096, 1024)?;
        d.flush()?;
        d.write(size - 700, 700)?;
        d.write(MIB + 700, 700)?;
        d.flush()?;
        d.write(2 * MIB, 4096)?;
        d.flush()?;
        d.discard(2 * MIB, 4096)?;
        d.flush()?;
        d.write(2 * MIB + 512, 512)
    })
}

fn chunks() -> Story {
    let border = 4096 * MIB;
    alone(&VhdxBuilder::new(border + 3 * MIB), move |d| {
        d.write(border - 3000, 9000)?;
        d.flush()?;
        d.write(border + 2 * MIB + 700, 700)?;
        d.write(0, 700)?;
        d.discard(border, MIB)?;
        d.flush()?;
        d.write(border - MIB, 700)?;
        d.write(border + 700, 700)
    })
}

fn dirty() -> Story {
    let disk = VhdxBuilder::new(5 * MIB)
        .block(0, full(1))
        .block(1, full(2))
        .pending_block(1, BlockContent::Zero)
        .pending_block(2, full(3));
    alone(&disk, |d| {
        d.write(2 * MIB + 700, 700)?;
        d.write(MIB, 512)?;
        d.flush()?;
        d.write(3 * MIB, 9000)?;
        d.reopen()?;
        d.write(4 * MIB, 700)
    })
}

fn dirty_child() -> Story {
    let disk = child(5 * MIB)
        .block(0, full(1))
        .pending_block(1, part(2, 3..700))
        .pending_block(2, full(4))
        .pending_block(3, part(3, [0, 2047]));
    over(&disk, content(5000), |d| {
        d.write(MIB + 700, 700)?;
        d.write(3 * MIB + 512, 512)?;
        d.flush()?;
        d.write(4 * MIB, 9000)?;
        d.write(4096, 4096)
    })
}

fn dirty_wrapped() -> Story {
    let disk = child(5 * MIB)
        .pending_block(0, part(2, 3..700))
        .pending_block(1, full(4))
        .pending_block(3, part(3, [0, 2047]))
        .pending_log(PendingLog {
            start: (1 << 20) - 2 * 4096,
            first_sequence: 1 << 40,
            descriptors_per_entry: 2,
            ..PendingLog::default()
        });
    over(&disk, content(5000), |d| {
        d.reopen()?;
        d.write(MIB + 700, 700)?;
        d.write(2 * MIB, 512)?;
        d.flush()?;
        d.write(3 * MIB, 512)
    })
}

/// What nobody knows here, and what must therefore stay as it is.
fn unknown() -> Story {
    let region = |n: u128| ExtraRegion {
        guid: Uuid::from_u128(0xEE00_0000_0000_4000_8000_0000_0000_0000 + n),
        required: false,
        length_mib: 1,
        content: content(1024),
    };
    let item = |n: u128| Uuid::from_u128(0xDD00_0000_0000_4000_8000_0000_0000_0000 + n);
    let disk = child(4 * MIB)
        .extra_region(region(1))
        .extra_region(region(2))
        .item_placement(ItemPlacement::Unaligned)
        .metadata_item(MetadataItem::user(item(1), content(3)))
        .metadata_item(MetadataItem::system(item(2), content(7)).virtual_disk())
        .area_order([
            Area::ExtraRegions,
            Area::Log,
            Area::Metadata,
            Area::Gap(1),
            Area::Bat,
            Area::Blocks,
        ])
        .block(1, full(1));
    let (mut subject, scenario) = over(&disk, content(4000), |d| {
        d.write(700, 700)?;
        d.write(2 * MIB - 700, 1400)?;
        d.flush()?;
        d.discard(MIB, MIB)?;
        d.flush()?;
        d.write(3 * MIB, 9000)?;
        d.write(MIB, 512)?;
        d.reopen()?;
        d.write(2 * MIB, 512)
    });
    let (image, layout) = (scenario.images[0].clone(), disk.layout());
    let mib = 1 << 20;
    for entry in &layout.region_entries[2..] {
        subject = subject.keeping(&image, entry.file_offset, mib);
    }
    subject = subject
        .keeping(&image, layout.metadata_offset, mib)
        .keeping(&image, Slot::First.region_table_offset(), 128 << 10);
    (subject, scenario)
}

fn torn_header(slot: Slot) -> Story {
    let disk = filled(3, 1).damage_header(slot, Damage::TornAt(512));
    alone(&disk, |d| {
        d.write(700, 700)?;
        d.flush()?;
        d.write(MIB, 700)?;
        d.reopen()?;
        d.write(2 * MIB, 700)
    })
}

fn torn_region_table() -> Story {
    let disk = filled(3, 1).damage_region_table(Slot::First, Damage::Checksum);
    alone(&disk, |d| {
        d.write(700, 700)?;
        d.write(MIB, 700)?;
        d.flush()?;
        d.discard(0, MIB)?;
        d.reopen()?;
        d.write(2 * MIB, 700)
    })
}

/// Space that nothing refers to, with something in it: a block that gets it reads as zeros where it
/// was not written to.
fn gaps() -> Story {
    let disk = filled(5, 3).placement(Placement::Gaps(2));
    let layout = disk.layout();
    let mut image = Image::from(disk.build().to_vec());
    for place in layout.blocks.values() {
        image.write(place - 2 * MIB, &content(2048));
    }
    let subject = Vhdx::of(&image, Vec::new());
    let scenario = Scenario::new("", image, |d| {
        d.write(3 * MIB + 700, 700)?;
        d.flush()?;
        d.write(4 * MIB + 9000, 700)?;
        d.discard(MIB, MIB)?;
        d.flush()?;
        d.write(MIB + 100, 100)
    });
    (subject, scenario.content(disk_of(&disk, &[])))
}

fn blocks_first() -> Story {
    let order = [Area::Blocks, Area::Bat, Area::Metadata, Area::Log];
    let disk = filled(4, 2).area_order(order);
    alone(&disk, |d| {
        d.write(700, 700)?;
        d.write(2 * MIB, 700)?;
        d.discard(MIB, MIB)?;
        d.flush()?;
        d.write(3 * MIB + 700, 700)?;
        d.flush()?;
        d.write(MIB, 700)
    })
}

/// The bits of one block fill 16 pages, and those of eight more than an entry holds.
fn largest_blocks() -> Story {
    let disk = (0..8).fold(child(8 * 256 * MIB).block_size(256 << 20), |disk, block| {
        disk.stale_bitmap(block, 0xFF)
    });
    over(&disk, content(64), |d| {
        for block in 0..8 {
            d.write(block * 256 * MIB + 700, 700)?;
        }
        d.flush()?;
        d.write(256 * MIB + 100 * MIB, 512)?;
        d.discard(256 * MIB, 256 * MIB)?;
        d.flush()?;
        d.write(256 * MIB + 9000, 700)
    })
}

/// What the disk has of its last block is all in the file, and no more.
fn short_file() -> Story {
    let size = 2 * MIB + 300 * 1024;
    let disk = VhdxBuilder::new(size).block(0, full(1)).block(2, full(2));
    let end = disk.layout().end;
    alone(&disk.file_len(end - 700 * 1024), move |d| {
        d.write(size - 700, 700)?;
        d.flush()?;
        d.write(MIB + 700, 700)?;
        d.write_zeroes(2 * MIB + 4096, 8192, UNMAP)?;
        d.flush()?;
        d.control(Control::Resize(4 * MIB))?;
        d.write(size - 100, 9000)?;
        d.write(3 * MIB, 700)
    })
}

/// What a crash left there is no part of the disk.
fn long_file() -> Story {
    let disk = filled(5, 2);
    let mut image = Image::from(disk.build().to_vec());
    image.write(image.len(), &content(2500));
    let subject = Vhdx::of(&image, Vec::new());
    let scenario = Scenario::new("", image, |d| {
        d.write(2 * MIB + 700, 700)?;
        d.flush()?;
        d.write(3 * MIB + 700, 700)?;
        d.write(4 * MIB + 700, 700)?;
        d.discard(0, MIB)?;
        d.flush()?;
        d.write(100, 100)
    });
    (subject, scenario.content(disk_of(&disk, &[])))
}

fn grow_and_shrink() -> Story {
    let disk = VhdxBuilder::new(2 * MIB + 4096)
        .block(0, full(1))
        .block(2, full(2));
    alone(&disk, |d| {
        d.write(2 * MIB, 700)?;
        d.control(Control::Resize(5 * MIB + 512))?;
        d.write(2 * MIB + 4000, 700)?;
        d.write(5 * MIB, 512)?;
        d.flush()?;
        d.control(Control::Resize(MIB + 1024))?;
        d.write(MIB, 700)?;
        d.control(Control::Resize(4 * MIB))?;
        d.write(3 * MIB, 700)?;
        d.write(MIB + 9000, 700)
    })
}

fn fixed_grows() -> Story {
    alone(&VhdxBuilder::new(MIB + 4096).fixed(), |d| {
        d.write(MIB, 700)?;
        d.control(Control::Resize(4 * MIB))?;
        d.write(3 * MIB, 700)?;
        d.write(MIB + 9000, 700)?;
        d.flush()?;
        d.control(Control::Resize(2 * MIB))?;
        d.write(9000, 700)
    })
}

fn child_grows() -> Story {
    let disk = child(2 * MIB + 4096)
        .block(0, full(1))
        .block(2, part(2, 2..5));
    over(&disk, content(5000), |d| {
        d.write(2 * MIB, 700)?;
        d.control(Control::Resize(4 * MIB))?;
        d.write(2 * MIB + 9000, 700)?;
        d.write(3 * MIB + 700, 700)?;
        d.flush()?;
        d.control(Control::Resize(MIB + 512))?;
        d.write(MIB, 100)?;
        d.control(Control::Resize(6 * MIB))?;
        d.write(MIB + 9000, 700)
    })
}

/// A BAT of 1 MiB has 2^17 entries.
fn bat_moves() -> Story {
    let disk = VhdxBuilder::new(3 * MIB)
        .block(0, full(1))
        .block(2, full(2));
    alone(&disk, |d| {
        d.write(MIB, 700)?;
        d.control(Control::Resize(140_000 * MIB))?;
        d.write(139_000 * MIB, 700)?;
        d.discard(0, MIB)?;
        d.flush()?;
        d.write(9000, 700)?;
        d.control(Control::Resize(2 * MIB))?;
        d.write(MIB + 700, 700)
    })
}

fn bat_of_child_moves(sector: u32) -> Story {
    let disk = child(3 * MIB)
        .logical_sector_size(sector)
        .block(1, part(1, 5..900));
    over(&disk, content(2000), |d| {
        d.write(700, 700)?;
        d.control(Control::Resize(140_000 * MIB))?;
        d.write(139_000 * MIB, 512)?;
        d.write(MIB + 700, 700)?;
        d.flush()?;
        d.write(4096, 512)
    })
}

/// Blocks of zeros, gaps, and blocks at the end that fit into them.
fn compact() -> Story {
    let zeros = || BlockContent::full(BlockData::Byte(0));
    let disk = filled(8, 8)
        .block(1, zeros())
        .block(4, zeros())
        .block(
            6,
            BlockContent::Unmapped {
                kept: Some(BlockData::Pattern(9)),
            },
        )
        .placement(Placement::Gaps(1));
    alone(&disk, |d| {
        d.write(2 * MIB, 700)?;
        d.discard(3 * MIB, MIB)?;
        d.control(Control::Other("compact"))?;
        d.write(MIB + 700, 700)?;
        d.write(7 * MIB, 700)?;
        d.flush()?;
        d.write_zeroes(0, MIB, KEEP)?;
        d.control(Control::Other("compact"))?;
        d.write(9000, 700)
    })
}

/// The bitmap block is the last in the file, and moves as well.
fn compact_child() -> Story {
    let disk = child(6 * MIB)
        .block(0, part(1, 5..900))
        .block(2, full(2))
        .block(3, BlockContent::full(BlockData::Byte(0)))
        .block(5, part(5, 700..2048))
        .placement(Placement::Reverse);
    over(&disk, content(6000), |d| {
        d.write(MIB + 700, 700)?;
        d.discard(2 * MIB, MIB)?;
        d.control(Control::Other("compact"))?;
        d.write(700, 700)?;
        d.write(3 * MIB + 512, 512)?;
        d.flush()?;
        d.discard(5 * MIB, MIB)?;
        d.control(Control::Other("compact"))?;
        d.write(MIB + 9000, 512)
    })
}

fn relink() -> Story {
    let disk = child(3 * MIB).block(0, part(1, 5..900));
    let (mut subject, scenario) = over(&disk, content(3000), |d| {
        d.write(700, 700)?;
        d.control(Control::Other("relink"))?;
        d.write(MIB + 700, 700)?;
        d.reopen()?;
        d.control(Control::Other("relink"))
    });
    subject.parents = &["parent.vhdx", "moved.vhdx"];
    (subject, scenario)
}

fn to_fixed() -> Story {
    alone(&filled(4, 2), |d| {
        d.write(2 * MIB + 700, 700)?;
        d.discard(0, MIB)?;
        d.control(Control::Other("fixed"))?;
        d.write(3 * MIB, 700)?;
        d.discard(MIB, MIB)?;
        d.flush()?;
        d.control(Control::Other("dynamic"))?;
        d.discard(MIB, MIB)?;
        d.flush()?;
        d.write(MIB + 700, 700)
    })
}

fn to_standalone() -> Story {
    let disk = child(4 * MIB)
        .block(0, part(1, 5..900))
        .block(1, BlockContent::Zero)
        .block(3, full(3));
    over(&disk, content(4000), |d| {
        d.write(2 * MIB + 700, 700)?;
        d.control(Control::Other("standalone"))?;
        d.write(MIB + 700, 700)?;
        d.flush()?;
        d.discard(0, MIB)?;
        d.write(3 * MIB, 700)
    })
}

fn to_differencing() -> Story {
    over(&filled(4, 2), content(4000), |d| {
        d.write(2 * MIB + 700, 700)?;
        d.control(Control::Other("differencing"))?;
        d.write(3 * MIB + 700, 700)?;
        d.discard(MIB, MIB)?;
        d.flush()?;
        d.write(MIB + 700, 700)
    })
}

/// The image is repaired whenever it is opened: entries that lead past the end of the file or into
/// another block, a state that there is not, a copy of the header and one of the region table torn.
fn repair() -> Story {
    let disk = filled(6, 3);
    let place = disk.layout().blocks[&1];
    let disk = disk
        .raw_bat(3, 999 << 20 | 6)
        .raw_bat(4, place | 6)
        .raw_bat(5, 5)
        .damage_header(Slot::First, Damage::TornAt(512))
        .damage_region_table(Slot::Second, Damage::Checksum);
    let (mut subject, scenario) = alone(&disk, |d| {
        d.write(700, 700)?;
        d.write(3 * MIB, 700)?;
        d.flush()?;
        d.reopen()?;
        d.write(4 * MIB + 700, 700)
    });
    subject.repairs = true;
    (subject, scenario)
}

/// A partial block whose bitmap block is not there is given up. What is left of it is not the parent's,
/// which ends before it.
fn repair_child() -> Story {
    let disk = child(4 * MIB).block(0, full(1)).area_order([
        Area::Log,
        Area::Metadata,
        Area::Bat,
        Area::Blocks,
        Area::Gap(1),
    ]);
    let partial = (disk.layout().end - MIB) | 7;
    let bitmap = disk.geometry().bitmap_bat_index(0);
    let disk = disk.raw_bat(2, partial).raw_bat(bitmap, 1 << 30 | 6);
    let (mut subject, scenario) = over(&disk, content(2048), |d| {
        d.write(MIB + 700, 700)?;
        d.flush()?;
        d.write(2 * MIB + 700, 700)?;
        d.discard(0, MIB)?;
        d.flush()?;
        d.write(1024, 700)
    });
    subject.repairs = true;
    (subject, scenario)
}
