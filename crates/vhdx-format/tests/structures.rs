//! The views of single structures: every field is what was stored.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use blockdev_core::{ByteRange, ContentId, ErrorKind, Layer, Limits};
use common::{MIB, Sparse, built, memory, size};
use testkit::vhdx_builder::{
    BlockContent, BlockData, Damage, ExtraRegion, HeaderCopy, LogEntry, MetadataItem,
    ParentLocator, Slot, VhdxBuilder, ids,
};
use uuid::Uuid;
use vhdx_format::{
    BatEntry, BatSlot, BitmapState, DiskType, LogDescriptor, PayloadState, VhdxImage, inspect,
    known,
};

fn guid(n: u128) -> Uuid {
    Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_0000 + n)
}

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

#[test]
fn the_file_identifier_shows_signature_and_creator() {
    for creator in ["", "Diskweave 0.1", "Ünïcödé 𝄞", &"x".repeat(256)] {
        let image = built(&VhdxBuilder::new(MIB).creator(creator)).unwrap();
        assert_eq!(image.file_identifier().signature, *b"vhdxfile");
        assert_eq!(image.file_identifier().creator, creator);
    }
    let long = built(&VhdxBuilder::new(MIB).creator(&"y".repeat(300))).unwrap();
    assert_eq!(long.file_identifier().creator, "y".repeat(256));
    let short = inspect::file_identifier(&blockdev_core::MemoryStorage::from(b"vhdxfil".to_vec()));
    assert_eq!(short.unwrap_err().kind(), ErrorKind::NotRecognised);
}

#[test]
fn both_headers_and_the_current_one_show_every_field() {
    let builder = VhdxBuilder::new(MIB)
        .file_write_guid(guid(1))
        .data_write_guid(guid(2))
        .log_length_mib(3)
        .header(
            Slot::First,
            HeaderCopy {
                sequence: Some(77),
                file_write_guid: Some(guid(5)),
                data_write_guid: Some(guid(6)),
                ..HeaderCopy::default()
            },
        )
        .header(
            Slot::Second,
            HeaderCopy {
                sequence: Some(9),
                log_version: Some(3),
                ..HeaderCopy::default()
            },
        );
    let file = builder.build();
    let image = built(&builder).unwrap();
    let headers = image.headers();
    assert_eq!(headers.current, Some(0));
    assert_eq!(*headers.current().unwrap(), image.header());
    let [first, second] = headers.copies;
    for (copy, slot, sequence, guids) in [
        (first, Slot::First, 77, (guid(5), guid(6))),
        (second, Slot::Second, 9, (guid(1), guid(2))),
    ] {
        let at = slot.header_offset();
        let stored = file.read(at + 4, 4);
        assert_eq!(copy.offset, at);
        assert_eq!(copy.signature, *b"head");
        assert_eq!(copy.checksum.to_le_bytes(), stored[..]);
        assert_eq!(copy.computed_checksum, copy.checksum);
        assert!(copy.is_valid());
        assert_eq!(copy.sequence_number, sequence);
        assert_eq!((copy.file_write_guid, copy.data_write_guid), guids);
        assert!(copy.log_guid.is_nil());
        assert_eq!((copy.log_length, copy.log_offset), (3 << 20, MIB));
        assert_eq!(copy.version, 1);
    }
    assert_eq!((first.log_version, second.log_version), (0, 3));
    assert_eq!(image.content_id(), Some(ContentId(*guid(6).as_bytes())));
    let dirty = VhdxBuilder::new(MIB)
        .log_guid(guid(9))
        .pending_block(0, full(1));
    assert_eq!(built(&dirty).unwrap().header().log_guid, guid(9));
}

#[test]
fn a_damaged_copy_can_be_looked_at_too() {
    let builder = VhdxBuilder::new(MIB)
        .damage_header(Slot::First, Damage::Checksum)
        .damage_header(Slot::Second, Damage::Signature)
        .damage_region_table(Slot::First, Damage::TornAt(16))
        .damage_region_table(Slot::Second, Damage::Zeroed);
    let storage = Sparse(builder.build());
    let headers = inspect::headers(&storage).unwrap();
    assert_eq!(headers.current, None);
    assert!(headers.current().is_err());
    assert_eq!(headers.copies[0].sequence_number, 1);
    assert_ne!(
        headers.copies[0].checksum,
        headers.copies[0].computed_checksum
    );
    assert_ne!(headers.copies[1].signature, *b"head");
    let tables = inspect::region_tables(&storage).unwrap();
    assert!(tables.current().is_err());
    assert_eq!(tables.copies[0].entry_count, 2);
    assert_ne!(
        tables.copies[0].checksum,
        tables.copies[0].computed_checksum
    );
    assert_eq!(tables.copies[1].entries.len(), 0);
}

#[test]
fn region_tables_show_every_entry() {
    let builder = VhdxBuilder::new(MIB)
        .damage_region_table(Slot::First, Damage::Checksum)
        .extra_region(ExtraRegion {
            guid: guid(3),
            required: false,
            length_mib: 5,
            content: Vec::new(),
        });
    let layout = builder.layout();
    let image = built(&builder).unwrap();
    let tables = image.region_tables();
    assert_eq!(tables.current, Some(1));
    assert!(!tables.copies[0].is_valid() && tables.copies[1].is_valid());
    for (table, slot) in tables.copies.iter().zip(Slot::BOTH) {
        assert_eq!(table.offset, slot.region_table_offset());
        assert_eq!((table.signature, table.entry_count), (*b"regi", 3));
        for (n, (entry, made)) in table.entries.iter().zip(&layout.region_entries).enumerate() {
            assert_eq!(entry.entry_offset, table.offset + 16 + 32 * n as u64);
            assert_eq!(
                (entry.guid, entry.file_offset),
                (made.guid, made.file_offset)
            );
            assert_eq!(
                (entry.length, entry.required),
                (made.length, made.required == 1)
            );
            let range = ByteRange::new(made.file_offset, made.length.into());
            assert_eq!(entry.range(), range);
        }
    }
    let current = tables.current().unwrap();
    assert_eq!(
        current.find(known::BAT_REGION).unwrap().file_offset,
        layout.bat_offset
    );
    let names = [known::BAT_REGION, known::METADATA_REGION, guid(3)].map(known::region_name);
    assert_eq!(names, [Some("BAT"), Some("Metadata"), None]);
}

#[test]
fn the_metadata_table_shows_every_entry_and_flag() {
    let item = MetadataItem::user(guid(4), vec![1, 2, 3]);
    let builder = VhdxBuilder::new(MIB)
        .metadata_item(item.virtual_disk())
        .metadata_item(MetadataItem::system(guid(5), Vec::new()))
        .metadata_item(MetadataItem::system(guid(6), vec![9; 70_000]));
    let layout = builder.layout();
    let storage = Sparse(builder.build());
    let image = built(&builder).unwrap();
    let table = image.metadata_table();
    assert_eq!(
        (table.offset, table.signature),
        (layout.metadata_offset, *b"metadata")
    );
    assert_eq!(
        usize::from(table.entry_count),
        layout.metadata_entries.len()
    );
    for (n, (entry, made)) in table
        .entries
        .iter()
        .zip(&layout.metadata_entries)
        .enumerate()
    {
        assert_eq!(entry.entry_offset, table.offset + 32 * (1 + n as u64));
        assert_eq!(
            (entry.item_id, entry.offset, entry.length),
            (made.id, made.offset, made.length)
        );
        let flags = [entry.is_user, entry.is_virtual_disk, entry.is_required];
        assert_eq!(flags, [0, 1, 2].map(|bit| made.flags >> bit & 1 == 1));
    }
    let item = |n: usize| inspect::metadata_item(&storage, table, &table.entries[n]).unwrap();
    assert_eq!(item(5), [1, 2, 3]);
    assert_eq!(item(6), [0; 0]);
    assert_eq!(item(7), vec![9; 70_000]);
    assert!(
        table.find(guid(4)).is_none(),
        "the user's items are not the system's"
    );
    assert!(table.find(guid(6)).is_some());
    assert_eq!(
        known::item_name(known::PARENT_LOCATOR),
        Some("Parent Locator")
    );
    assert_eq!(known::item_name(guid(6)), None);
}

#[test]
fn the_items_that_describe_the_disk_are_decoded() {
    let builder = VhdxBuilder::new(24 * MIB)
        .block_size(8 << 20)
        .logical_sector_size(4096)
        .physical_sector_size(512)
        .virtual_disk_id(guid(7))
        .leave_block_allocated(true);
    let image = built(&builder).unwrap();
    let items = image.items();
    assert_eq!(items.file_parameters.block_size, 8 << 20);
    assert!(items.file_parameters.leave_block_allocated && !items.file_parameters.has_parent);
    assert_eq!(
        (items.virtual_disk_size, items.virtual_disk_id),
        (24 * MIB, guid(7))
    );
    assert_eq!(
        (items.logical_sector_size, items.physical_sector_size),
        (4096, 512)
    );
    assert_eq!(
        (&items.parent_locator, image.disk_type()),
        (&None, DiskType::Fixed)
    );
    let info = image.info();
    assert_eq!(
        (info.size, info.format, info.block_size),
        (24 * MIB, "vhdx", Some(8 << 20))
    );
    assert_eq!(image.geometry().block_size(), 8 * MIB);
    assert_eq!(
        (
            image.geometry().payload_blocks(),
            image.geometry().bitmap_blocks()
        ),
        (3, 1)
    );
    assert_eq!(size(&image), 24 * MIB);
}

#[test]
fn the_parent_locator_shows_every_pair_decoded() {
    let locator = ParentLocator::new()
        .linkage(guid(1))
        .linkage2(guid(2))
        .relative_path(r"..\Übung\p.vhdx")
        .absolute_win32_path(r"\\?\d:\p.vhdx")
        .pair("Some Key", "𝄞");
    let builder = VhdxBuilder::new(MIB).differencing(locator);
    let image = built(&builder).unwrap();
    let locator = image.parent_locator().unwrap();
    let (first, second) = (guid(1).braced().to_string(), guid(2).braced().to_string());
    let expected = [
        ("parent_linkage", first.as_str()),
        ("parent_linkage2", &second),
        ("relative_path", r"..\Übung\p.vhdx"),
        ("absolute_win32_path", r"\\?\d:\p.vhdx"),
        ("Some Key", "𝄞"),
    ];
    let seen = locator
        .entries
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    assert!(seen.eq(expected));
    assert_eq!(locator.locator_type, known::VHDX_PARENT_LOCATOR);
    assert_eq!(locator.linkages(), [guid(1), guid(2)]);
    assert_eq!(
        (locator.get("Some Key"), locator.get("some key")),
        (Some("𝄞"), None)
    );
    let layout = builder.layout();
    let entry = layout.metadata_entries.last().unwrap();
    assert_eq!(
        locator.offset,
        layout.metadata_offset + u64::from(entry.offset)
    );
}

#[test]
fn bat_entries_show_state_place_and_what_they_are_for() {
    let builder = VhdxBuilder::child_of(&VhdxBuilder::new(8 * MIB), "p")
        .block(
            1,
            BlockContent::Undefined {
                kept: Some(BlockData::Byte(1)),
            },
        )
        .block(2, BlockContent::Zero)
        .block(3, BlockContent::Unmapped { kept: None })
        .block(4, full(1))
        .block(5, BlockContent::partial(BlockData::Byte(1), 0..1));
    let layout = builder.layout();
    let image = built(&builder).unwrap();
    assert_eq!(image.bat_len(), 4097);
    let bitmap_index = 4096;
    let states = [
        (0, PayloadState::NotPresent, "not-present"),
        (1, PayloadState::Undefined, "undefined"),
        (2, PayloadState::Zero, "zero"),
        (3, PayloadState::Unmapped, "unmapped"),
        (4, PayloadState::FullyPresent, "fully-present"),
        (5, PayloadState::PartiallyPresent, "partially-present"),
    ];
    for (block, state, name) in states {
        let (slot, entry) = image.bat_entry(block).unwrap().unwrap();
        assert_eq!(slot, BatSlot::Payload { block });
        assert_eq!((entry.payload_state(), state.as_str()), (Some(state), name));
        assert_eq!(
            entry.file_offset(),
            layout.blocks.get(&block).copied().unwrap_or(0)
        );
        assert_eq!(entry.reserved_bits(), 0);
    }
    let (slot, entry) = image.bat_entry(bitmap_index).unwrap().unwrap();
    assert_eq!(slot, BatSlot::Bitmap { chunk: 0 });
    assert_eq!(entry.bitmap_state(), Some(BitmapState::Present));
    assert_eq!(entry.bitmap_state().unwrap().as_str(), "present");
    assert_eq!(entry.file_offset(), layout.bitmaps[&0]);
    assert_eq!(image.bat_entry(4097).unwrap(), None);
    assert_eq!(image.bat_entry(u64::MAX).unwrap(), None);
    let used: Vec<_> = image.bat_entries().map(|entry| entry.unwrap().0).collect();
    assert_eq!(used, [1, 2, 3, 4, 5, bitmap_index], "those that are not 0");
    assert_eq!(BatEntry(0x0030_0006).state_bits(), 6);
}

#[test]
fn the_log_gives_the_pages_that_it_asks_to_write() {
    let page: Vec<u8> = (0..4096u32).map(|n| (n % 253).to_le_bytes()[0]).collect();
    let builder = VhdxBuilder::new(4 * MIB);
    let scratch = builder.layout().bat_offset + 65_536;
    let entry = LogEntry::new(5)
        .data(scratch, vec![9; 4096])
        .zero(scratch + 4096, 12_288)
        .data(scratch + 65_536, page.clone());
    let storage = memory(&builder.log_entry(entry).build());
    let header = *inspect::headers(&*storage).unwrap().current().unwrap();
    let log = inspect::log_contents(&*storage, &header, &Limits::default()).unwrap();
    let shown = |descriptor| {
        let shown = inspect::log_page(&*storage, &header, &log.found[0], descriptor);
        shown.unwrap().map(|page| page.to_vec())
    };
    assert_eq!(shown(0), Some(vec![9; 4096]));
    assert_eq!(shown(1), None, "zeros");
    assert_eq!(shown(2), Some(page));
    assert_eq!(shown(3), None, "there are three");
}

#[test]
fn the_log_shows_header_descriptors_and_data_of_every_entry() {
    let page: Vec<u8> = (0..4096u32).map(|n| (n % 253).to_le_bytes()[0]).collect();
    let builder = VhdxBuilder::new(4 * MIB);
    let scratch = builder.layout().bat_offset + 65_536;
    let entry = LogEntry::new(5)
        .at(8192)
        .file_offsets(4 * MIB, 9 * MIB)
        .data(scratch, page.clone())
        .zero(scratch + 4096, 12_288)
        .data(scratch + 65_536, page);
    let builder = builder.log_entry(entry);
    let storage = memory(&builder.build());
    let header = *inspect::headers(&*storage).unwrap().current().unwrap();
    let log = inspect::log_contents(&*storage, &header, &Limits::default()).unwrap();
    assert_eq!((log.found.len(), &log.active[..]), (1, &[0][..]));
    let h = log.found[0].header;
    assert_eq!(
        (h.entry_length, h.tail, h.sequence_number),
        (3 * 4096, 8192, 5)
    );
    assert_eq!((h.descriptor_count, h.log_guid), (3, ids::DEFAULT_LOG));
    assert_eq!(
        (h.flushed_file_offset, h.last_file_offset),
        (4 * MIB, 9 * MIB)
    );
    let descriptors = &log.found[0].entry.as_ref().unwrap().descriptors;
    let (leading, trailing) = ([0, 1, 2, 3, 4, 5, 6, 7], [44, 45, 46, 47]);
    let data = |file_offset, data_sector| (file_offset, leading, trailing, data_sector);
    let seen: Vec<_> = descriptors
        .iter()
        .filter_map(|descriptor| match *descriptor {
            LogDescriptor::Data {
                file_offset,
                leading,
                trailing,
                data_sector,
            } => Some((file_offset, leading, trailing, data_sector)),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [data(scratch, 0), data(scratch + 65_536, 1)]);
    let zero = LogDescriptor::Zero {
        file_offset: scratch + 4096,
        length: 12_288,
    };
    assert_eq!(descriptors[1], zero);
}

#[test]
fn views_of_a_dirty_image_are_those_after_replay() {
    let builder = VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .pending_block(1, full(2));
    let image = built(&builder).unwrap();
    let (_, entry) = image.bat_entry(1).unwrap().unwrap();
    assert_eq!(entry.file_offset(), builder.layout().pending[&1]);
    let options = common::with(blockdev_core::Recovery::Ignore);
    let in_place = VhdxImage::open(memory(&builder.build()), &options).unwrap();
    assert_eq!(in_place.bat_entry(1).unwrap().unwrap().1, BatEntry(0));
}
