//! The rules of [MS-VHDX] on reading that implementations get wrong, each under its own name. The
//! log has a file to itself: `log_rules.rs`.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use blockdev_core::{BlockDevice, ContentId, ErrorKind, FileRole, Layer, NameKind};
use common::{
    GIB, MIB, TIB, built, disk, index, le64, read_own, refusal, refused, refused_image,
    same_as_model, size,
};
use testkit::conformance;
use testkit::vhdx_builder::{
    Area, BlockContent, BlockData, Damage, ExtraRegion, HeaderCopy, ItemPlacement, MetadataEntry,
    MetadataItem, ParentLocator, Placement, RegionEntry, Slot, VhdxBuilder, chain_disk, ids,
};
use uuid::Uuid;
use vhdx_format::{BatSlot, DiskType, OpenOptions, VhdxImage, known};

const SOME: Uuid = Uuid::from_u128(0x5EED_0001_0000_4000_8000_0000_0000_00AA);

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

fn partial(seed: u64, present: impl IntoIterator<Item = u64>) -> BlockContent {
    BlockContent::partial(BlockData::Pattern(seed), present)
}

/// A child of a disk of `size` bytes.
fn child(size: u64) -> VhdxBuilder {
    VhdxBuilder::child_of(&VhdxBuilder::new(size), "parent.vhdx")
}

fn strict(builder: &VhdxBuilder) -> blockdev_core::Result<VhdxImage> {
    VhdxImage::open(
        common::memory(&builder.build()),
        &OpenOptions::read_only().with_strict(true),
    )
}

/// Whole-disk comparison of a small image without parent, in requests of every shape.
fn shows_its_model(builder: &VhdxBuilder) {
    let disk = disk(builder);
    conformance::readable(&disk, &chain_disk(&[builder]));
    conformance::refuses_changes(&disk);
}

// Rules 2 and 6: headers.

#[test]
fn rule_2_one_torn_header_copy_is_normal_whichever_it_is() {
    // A crash in the middle of a header update leaves one copy torn; vhdx-rs refused such files.
    let damages = [
        Damage::Checksum,
        Damage::Signature,
        Damage::Zeroed,
        Damage::TornAt(512),
        Damage::TornAt(80),
    ];
    for slot in Slot::BOTH {
        for damage in damages {
            let builder = VhdxBuilder::new(4 * MIB)
                .block(1, full(1))
                .damage_header(slot, damage);
            let image = built(&builder).unwrap();
            let other = usize::from(slot == Slot::First);
            assert_eq!(image.headers().current, Some(other), "{slot:?} {damage:?}");
            same_as_model(&image, &builder, 0, 4 * MIB);
            assert!(strict(&builder).is_ok(), "it is no fault of the file");
        }
    }
    let both = VhdxBuilder::new(4 * MIB)
        .damage_header(Slot::First, Damage::Checksum)
        .damage_header(Slot::Second, Damage::Zeroed);
    refused(&both, ErrorKind::Corrupt, "neither copy of the header");
}

#[test]
fn rule_2_the_greater_sequence_number_rules_in_either_slot_and_compares_unsigned() {
    for (first, second, current) in [
        (1, 2, 1),
        (2, 1, 0),
        (u64::MAX, 1, 0),
        (0, 1, 1),
        (u64::MAX - 1, u64::MAX, 1),
    ] {
        let mut builder = VhdxBuilder::new(4 * MIB).header_sequences(first, second);
        for slot in Slot::BOTH {
            let copy = HeaderCopy {
                sequence: Some([first, second][usize::from(slot == Slot::Second)]),
                data_write_guid: Some(Uuid::from_u128(7 + slot.header_offset() as u128)),
                ..HeaderCopy::default()
            };
            builder = builder.header(slot, copy);
        }
        let image = built(&builder).unwrap();
        assert_eq!(image.headers().current, Some(current), "{first} {second}");
        let offset = Slot::BOTH[current].header_offset();
        let guid = Uuid::from_u128(7 + u128::from(offset));
        assert_eq!(image.header().data_write_guid, guid);
        assert_eq!(image.content_id(), Some(ContentId(*guid.as_bytes())));
    }
}

#[test]
fn rule_2_equal_sequence_numbers_are_not_refused() {
    // Some writers make both copies alike at birth; vhdx-rs found no current header in those.
    let builder = VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .header_sequences(5, 5);
    let image = built(&builder).unwrap();
    assert_eq!(image.header().sequence_number, 5);
    same_as_model(&image, &builder, 0, 4 * MIB);
    assert!(
        strict(&builder).is_ok(),
        "equal copies do not contradict each other"
    );
}

#[test]
fn rule_2_version_and_log_version() {
    for version in [0, 2, u16::MAX] {
        let builder = VhdxBuilder::new(4 * MIB).version(version);
        refused(&builder, ErrorKind::Unsupported, "Version");
    }
    // §2.2.2: another log version does not matter while there is no log to replay.
    assert!(built(&VhdxBuilder::new(4 * MIB).log_version(1)).is_ok());
    let dirty = VhdxBuilder::new(4 * MIB)
        .log_version(1)
        .pending_block(0, full(1));
    refused(&dirty, ErrorKind::Unsupported, "LogVersion");
}

// Rule 7: regions and metadata items that nobody knows.

#[test]
fn rule_7_one_torn_region_table_copy_is_survived_whichever_it_is() {
    // QEMU 10.0.2 reads the first copy alone; vhdx-rs refused the file for either.
    for slot in Slot::BOTH {
        for damage in [Damage::Checksum, Damage::Zeroed, Damage::TornAt(4096)] {
            let builder = VhdxBuilder::new(4 * MIB)
                .block(1, full(1))
                .damage_region_table(slot, damage);
            let image = built(&builder).unwrap();
            let other = usize::from(slot == Slot::First);
            assert_eq!(image.region_tables().current, Some(other));
            same_as_model(&image, &builder, 0, 4 * MIB);
        }
    }
    let both = VhdxBuilder::new(4 * MIB)
        .damage_region_table(Slot::First, Damage::Zeroed)
        .damage_region_table(Slot::Second, Damage::Checksum);
    refused(
        &both,
        ErrorKind::Corrupt,
        "neither copy of the region table",
    );
}

fn extra(required: bool) -> ExtraRegion {
    ExtraRegion {
        guid: SOME,
        required,
        length_mib: 2,
        content: b"not ours".to_vec(),
    }
}

#[test]
fn rule_7_an_unknown_optional_region_is_kept_and_an_unknown_required_one_refuses() {
    let optional = VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .extra_region(extra(false));
    shows_its_model(&optional);
    let image = built(&optional).unwrap();
    let entry = image.region_tables().current().unwrap().find(SOME).unwrap();
    assert!(!entry.required && entry.length == 2 << 20);
    assert_eq!(
        strict(&optional).unwrap_err().kind(),
        ErrorKind::Unsupported
    );

    let required = VhdxBuilder::new(4 * MIB).extra_region(extra(true));
    refused(&required, ErrorKind::Unsupported, &SOME.to_string());
}

#[test]
fn rule_7_an_unknown_optional_item_is_kept_and_an_unknown_required_one_refuses() {
    for item in [
        MetadataItem::system(SOME, vec![1; 40]),
        MetadataItem::user(SOME, vec![2; 40]),
    ] {
        let optional = VhdxBuilder::new(4 * MIB)
            .block(0, full(1))
            .metadata_item(item.clone());
        shows_its_model(&optional);
        let user = item.is_user;
        assert_eq!(
            strict(&optional).is_ok(),
            user,
            "the user's items are nobody's business"
        );
        let required = VhdxBuilder::new(4 * MIB).metadata_item(item.required());
        refused(&required, ErrorKind::Unsupported, &SOME.to_string());
    }
}

#[test]
fn rule_7_a_users_item_under_a_known_identifier_is_not_the_systems() {
    // (id, IsUser) is the key: a user's item must neither replace nor duplicate the system's.
    let item = MetadataItem::user(ids::VIRTUAL_DISK_SIZE, (1u64 << 60).to_le_bytes().to_vec());
    let builder = VhdxBuilder::new(4 * MIB).metadata_item(item);
    assert_eq!(size(&built(&builder).unwrap()), 4 * MIB);
    let alone = VhdxBuilder::new(4 * MIB)
        .without_metadata_item(ids::VIRTUAL_DISK_SIZE)
        .metadata_item(MetadataItem::user(
            ids::VIRTUAL_DISK_SIZE,
            (4 * MIB).to_le_bytes().to_vec(),
        ));
    refused(&alone, ErrorKind::Corrupt, "Virtual Disk Size is missing");
}

#[test]
fn regions_may_lie_in_any_order_and_anywhere() {
    use Area::{Bat, Blocks, ExtraRegions, Gap, Log, Metadata};
    for order in [
        vec![Blocks, Bat, Gap(3), Metadata, ExtraRegions, Log],
        vec![Bat, Log, ExtraRegions, Blocks, Metadata],
        vec![
            Gap(9),
            Metadata,
            Blocks,
            Log,
            Gap(1),
            ExtraRegions,
            Bat,
            Gap(2),
        ],
    ] {
        for placement in [
            Placement::Sequential,
            Placement::Reverse,
            Placement::Gaps(2),
        ] {
            let builder = VhdxBuilder::new(5 * MIB)
                .extra_region(extra(false))
                .area_order(order.clone())
                .placement(placement)
                .block(0, full(1))
                .block(1, full(2))
                .block(3, full(3));
            same_as_model(&built(&builder).unwrap(), &builder, 0, 5 * MIB);
        }
    }
}

// Rules 15 and 16: bitmaps and chunks.

#[test]
fn rule_15_bitmap_bit_0_is_the_lowest_of_byte_0() {
    // A reader that takes the highest bit first shows sectors 56 to 63 in place of 0 to 7.
    let builder = child(4 * MIB).block(0, partial(1, [0, 9, 18, 27, 36, 45, 54, 63]));
    let image = built(&builder).unwrap();
    same_as_model(&image, &builder, 0, 4 * MIB);
    let (_, holes) = read_own(&image, 0, 512);
    assert!(holes.is_empty());
    let (_, holes) = read_own(&image, 7 * 512, 512);
    assert!(!holes.is_empty());
}

#[test]
fn rule_15_bits_are_numbered_over_the_chunk_not_over_the_block() {
    for sector in [512, 4096] {
        let builder = child(40 * MIB)
            .logical_sector_size(sector)
            .block_size(2 << 20)
            .block(0, partial(1, 0..1))
            .block(7, partial(2, [1, 3, 5]))
            .block(19, partial(3, (0..512).filter(|n| n % 3 == 0)));
        let image = built(&builder).unwrap();
        same_as_model(&image, &builder, 0, 40 * MIB);
    }
}

#[test]
fn rule_16_disks_above_one_chunk_for_every_block_size_and_both_sector_sizes() {
    // The BAT holds one bitmap entry after each chunk, in files without parent too. Whoever forgets
    // it reads every block past the first 4 GiB (at 512 bytes) from its neighbour's place.
    for sector in [512u32, 4096] {
        for shift in 20..=28 {
            let chunk = u64::from(sector) << 23;
            let ratio = chunk >> shift;
            let mark = |n: u64| {
                let end = (1u64 << shift) - 512;
                let bytes = |b: u64| vec![u8::try_from(b % 251).unwrap() + 1; 512];
                BlockContent::full(BlockData::Pieces(vec![(0, bytes(n)), (end, bytes(n + 7))]))
            };
            let builder = VhdxBuilder::new(2 * chunk + (3 << shift))
                .block_size(1 << shift)
                .logical_sector_size(sector)
                .physical_sector_size(4096)
                .placement(Placement::Reverse)
                .block(ratio - 1, mark(1))
                .block(ratio, mark(2))
                .block(2 * ratio + 2, mark(3));
            let image = built(&builder).unwrap();
            assert_eq!(image.geometry().chunk_ratio(), ratio);
            let end = size(&image);
            for border in [chunk, 2 * chunk, chunk + (1 << shift), chunk - (1 << shift)] {
                same_as_model(&image, &builder, border - 8192, 16_384);
            }
            for at in [0, end - 8192, end - (1 << shift)] {
                same_as_model(&image, &builder, at, 8192);
            }
            assert_eq!(
                image.bat_entry(ratio).unwrap().unwrap().0,
                BatSlot::Bitmap { chunk: 0 }
            );
            let used: Vec<_> = image.bat_entries().map(|e| e.unwrap().0).collect();
            assert_eq!(used, [ratio - 1, ratio + 1, 2 * ratio + 4]);
        }
    }
}

#[test]
fn rule_16_children_above_one_chunk_find_the_bitmap_of_the_right_chunk() {
    for (sector, shift) in [(512u32, 20), (512, 25), (512, 28), (4096, 21), (4096, 28)] {
        let chunk = u64::from(sector) << 23;
        let ratio = chunk >> shift;
        let last = (1u64 << shift) / u64::from(sector) - 1;
        let data = |seed| {
            BlockData::Pieces(vec![
                (0, vec![seed; 8192]),
                (last * u64::from(sector), vec![seed; 4096]),
            ])
        };
        let builder = child(chunk + (2 << shift))
            .logical_sector_size(sector)
            .block_size(1 << shift)
            .block(ratio - 1, BlockContent::partial(data(1), [0, last]))
            .block(ratio, BlockContent::partial(data(2), [1, last]))
            .block(ratio + 1, BlockContent::full(data(3)));
        let image = built(&builder).unwrap();
        for border in [chunk - (1 << shift), chunk, chunk + (1 << shift)] {
            same_as_model(&image, &builder, border - 16_384, 32_768);
        }
        same_as_model(&image, &builder, size(&image) - 16_384, 16_384);
    }
}

// Rules 17 to 21: BAT entries.

#[test]
fn rule_17_payload_blocks_are_aligned_to_1_mib_not_to_their_size() {
    let builder = VhdxBuilder::new(24 * MIB)
        .block_size(8 << 20)
        .block(0, full(1))
        .block(2, full(2));
    let layout = builder.layout();
    assert_ne!(
        layout.blocks[&0] % (8 * MIB),
        0,
        "the test needs an odd place"
    );
    shows_its_model(&builder);
}

#[test]
fn rule_17_offsets_are_the_top_44_bits_and_reserved_bits_do_not_move_a_block() {
    let builder = VhdxBuilder::new(4 * MIB).block(1, full(1));
    let place = builder.layout().blocks[&1];
    let odd = builder.clone().raw_bat(1, place | 0xF_FFF8 | 6);
    same_as_model(&built(&odd).unwrap(), &builder, 0, 4 * MIB);
    let at = builder.layout().bat_entry_offset(1);
    assert_eq!(le64(&builder.build().to_vec(), at), place | 6);
}

#[test]
fn rule_17_no_block_is_read_from_the_header_section_or_past_the_end() {
    // Offset 0 with a state that promises bytes would show the headers as guest data.
    let builder = VhdxBuilder::new(4 * MIB).block(0, full(1));
    let end = builder.build().len();
    for entry in [6, end | 6, 0x7FFF_FFFF_FFF0_0006, !1] {
        let image = builder.clone().raw_bat(1, entry);
        let disk = disk(&image);
        let error = disk.read_at(&mut [0; 512], MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let at = error.location().unwrap();
        assert_eq!(at.structure, "BAT entry");
        assert_eq!(at.offset, builder.layout().bat_entry_offset(1));
        // The damage is that block's alone.
        let mut seen = vec![0; index(MIB)];
        disk.read_at(&mut seen, 0).unwrap();
        assert!(seen == chain_disk(&[&builder])[..index(MIB)]);
        assert_eq!(disk.block_status(0, 4 * MIB).unwrap().len, MIB);
    }
}

#[test]
fn rule_17_the_last_block_need_not_be_in_the_file_past_the_end_of_the_disk() {
    // A writer may cut the file behind the disk's last sector.
    let builder = VhdxBuilder::new(9 * MIB + 512)
        .block_size(8 << 20)
        .block(1, full(1));
    let end = builder.layout().blocks[&1] + MIB + 512;
    let cut = builder.clone().file_len(end);
    same_as_model(&built(&cut).unwrap(), &builder, 0, 9 * MIB + 512);
    let short = builder.file_len(end - 1);
    let error = disk(&short).read_at(&mut [0], 8 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn rule_18_only_not_present_falls_through_to_the_parent() {
    // libvhdi reads ZERO blocks of a child from the parent: deleted data comes back.
    let kept = || Some(BlockData::Byte(0xBB));
    let builder = child(8 * MIB)
        .block(1, BlockContent::Undefined { kept: kept() })
        .block(2, BlockContent::Zero)
        .block(3, BlockContent::Unmapped { kept: kept() })
        .block(4, BlockContent::Unmapped { kept: None })
        .block(5, full(5))
        .block(6, partial(6, 100..200));
    let image = built(&builder).unwrap();
    same_as_model(&image, &builder, 0, 8 * MIB);
    let (_, holes) = read_own(&image, 0, index(8 * MIB));
    assert_eq!(holes.iter().next().unwrap().len(), MIB);
    // Place kept with "not present" is reserved: it means nothing.
    let stale = child(4 * MIB)
        .raw_bat(0, 5 * MIB)
        .raw_bat(1, u64::MAX << 20);
    let (_, holes) = read_own(&built(&stale).unwrap(), 0, index(4 * MIB));
    assert_eq!(holes.iter().map(|hole| hole.len()).sum::<u64>(), 4 * MIB);
}

#[test]
fn rule_18_every_state_of_a_disk_without_parent() {
    let kept = || Some(BlockData::Byte(0xBB));
    let builder = VhdxBuilder::new(8 * MIB)
        .block(1, BlockContent::Undefined { kept: kept() })
        .block(2, BlockContent::Zero)
        .block(3, BlockContent::Unmapped { kept: kept() })
        .block(5, full(5));
    shows_its_model(&builder);
    shows_its_model(&builder.clone().leave_block_allocated(true));
    shows_its_model(&VhdxBuilder::new(4 * MIB).block(2, full(1)).fixed());
}

#[test]
fn reserved_states_are_errors_of_their_block_alone() {
    for state in [4, 5] {
        let builder = VhdxBuilder::new(4 * MIB).block(0, full(1));
        let place = builder.layout().blocks[&0];
        let image = builder.clone().raw_bat(2, place | state);
        let disk = disk(&image);
        let error = disk.read_at(&mut [0], 2 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("reserved state"), "{error}");
        disk.read_at(&mut [0], 3 * MIB).unwrap();
    }
}

#[test]
fn rule_18_partially_present_is_an_error_in_a_disk_without_parent() {
    // Where would the absent sectors come from? Bytes from the block itself would be garbage.
    let builder = VhdxBuilder::new(4 * MIB).block(0, partial(1, 0..2048));
    let error = disk(&builder).read_at(&mut [0], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn rule_19_a_fully_present_block_ignores_its_stale_bits() {
    for stale in [0x00, 0xFF, 0x5A] {
        let builder = child(4 * MIB)
            .block(0, full(1))
            .block(1, partial(2, 7..900))
            .block(2, full(3))
            .stale_bitmap(0, stale)
            .stale_bitmap(2, !stale)
            .stale_bitmap(3, 0xFF);
        same_as_model(&built(&builder).unwrap(), &builder, 0, 4 * MIB);
    }
}

#[test]
fn rule_20_partially_present_without_a_bitmap_block_is_an_error_not_a_guess() {
    let builder = child(4 * MIB).block(0, partial(1, 0..8)).block(1, full(2));
    let bitmap_index = builder.geometry().bitmap_bat_index(0);
    let end = builder.build().len();
    for entry in [0, 5 * MIB, 6, end | 6, 1, 2, 3, (4 * MIB) | 7, !1] {
        let image = builder.clone().raw_bat(bitmap_index, entry);
        let image = built(&image).unwrap();
        let mut holes = blockdev_core::Holes::new();
        let error = image.read_at(&mut [0; 512], 0, &mut holes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{entry:#x}: {error}");
        assert!(
            error.to_string().contains("sector bitmap block 0"),
            "{error}"
        );
        same_as_model(&image, &builder, MIB, MIB);
    }
}

// Rules 22 to 27: metadata.

#[test]
fn rule_22_items_may_be_unaligned_and_in_any_order() {
    for placement in [
        ItemPlacement::Packed,
        ItemPlacement::Unaligned,
        ItemPlacement::Reversed,
    ] {
        let builder = child(4 * MIB)
            .metadata_item(MetadataItem::user(SOME, vec![1; 333]))
            .item_placement(placement);
        let image = built(&builder).unwrap();
        assert_eq!(size(&image), 4 * MIB, "{placement:?}");
        assert!(image.parent_locator().is_some());
    }
    // The last byte of the region belongs to it.
    let at_end = VhdxBuilder::new(4 * MIB).metadata_item(
        MetadataItem::system(ids::VIRTUAL_DISK_SIZE, (4 * MIB).to_le_bytes().to_vec())
            .required()
            .at((1 << 20) - 8),
    );
    assert_eq!(size(&built(&at_end).unwrap()), 4 * MIB);
}

#[test]
fn rule_22_an_empty_item_has_no_place_and_is_no_overlap() {
    let builder = VhdxBuilder::new(4 * MIB)
        .metadata_item(MetadataItem::user(SOME, Vec::new()))
        .metadata_item(MetadataItem::user(Uuid::from_u128(9), Vec::new()));
    let image = built(&builder).unwrap();
    let empty = image.metadata_table().entries.last().unwrap();
    assert_eq!((empty.offset, empty.length), (0, 0));
    assert!(strict(&builder).is_ok());
}

fn with_entries(change: impl Fn(&mut Vec<MetadataEntry>)) -> VhdxBuilder {
    let builder = VhdxBuilder::new(4 * MIB).metadata_item(MetadataItem::user(SOME, vec![1; 16]));
    let mut entries = builder.layout().metadata_entries;
    change(&mut entries);
    builder.metadata_table(entries)
}

#[test]
fn rule_22_items_inside_the_table_outside_the_region_or_over_each_other_are_refused() {
    for (offset, length) in [
        (0, 16),
        (65_535, 16),
        (1 << 20, 16),
        ((1 << 20) - 15, 16),
        (u32::MAX, 16),
    ] {
        let builder = with_entries(|entries| {
            let last = entries.last_mut().unwrap();
            (last.offset, last.length) = (offset, length);
        });
        refused(&builder, ErrorKind::Corrupt, "Offset");
    }
    let overlap = with_entries(|entries| entries[5].offset = entries[1].offset + 7);
    refused(&overlap, ErrorKind::Corrupt, "overlaps");
    let long = with_entries(|entries| entries[5].length = (1 << 20) + 1);
    refused(&long, ErrorKind::Corrupt, "Length");
    let twice = with_entries(|entries| {
        let mut again = entries[5].clone();
        again.offset += 64;
        entries.push(again);
    });
    refused(&twice, ErrorKind::Corrupt, "unique");
}

#[test]
fn rule_24_leave_allocated_means_nothing_in_a_child() {
    let builder = child(4 * MIB).leave_block_allocated(true);
    assert_eq!(built(&builder).unwrap().disk_type(), DiskType::Differencing);
    let fixed = VhdxBuilder::new(4 * MIB).leave_block_allocated(true);
    assert_eq!(built(&fixed).unwrap().disk_type(), DiskType::Fixed);
    assert_eq!(
        built(&VhdxBuilder::new(4 * MIB)).unwrap().disk_type(),
        DiskType::Dynamic
    );
}

#[test]
fn rule_24_block_sizes_are_powers_of_two_from_1_to_256_mib() {
    for block in [
        0,
        1,
        512,
        1 << 19,
        (1 << 20) - 1,
        (1 << 20) + 1,
        3 << 20,
        1 << 29,
        u32::MAX,
    ] {
        refused(
            &VhdxBuilder::new(4 * MIB).block_size(block),
            ErrorKind::Corrupt,
            "BlockSize",
        );
    }
}

#[test]
fn rule_25_the_parent_flag_needs_a_locator_and_a_locator_without_the_flag_means_nothing() {
    let flag_alone = VhdxBuilder::new(4 * MIB).has_parent(true);
    refused(&flag_alone, ErrorKind::Corrupt, "Parent Locator is missing");
    // A writer that merged a child in place may leave the item behind; it was an error to decode it.
    for locator in [
        ParentLocator::relative(SOME, "gone.vhdx"),
        ParentLocator::from_raw(vec![0xFF; 30]),
        ParentLocator::from_raw(vec![1]),
    ] {
        let item_alone = VhdxBuilder::new(4 * MIB)
            .block(0, full(1))
            .parent_locator(locator);
        let image = built(&item_alone).unwrap();
        assert!(image.parent_locator().is_none() && image.file_refs().is_empty());
        shows_its_model(&item_alone);
    }
}

fn located(locator: ParentLocator) -> VhdxBuilder {
    VhdxBuilder::new(4 * MIB).differencing(locator)
}

#[test]
fn rule_25_locators_of_other_types_are_not_guessed_at() {
    let builder = located(ParentLocator::relative(SOME, "a.vhdx").locator_type(SOME));
    refused(&builder, ErrorKind::Unsupported, &SOME.to_string());
}

#[test]
fn rule_25_keys_are_unique_case_sensitive_and_without_terminator() {
    let twice = ParentLocator::relative(SOME, "a").pair("relative_path", "b");
    refused(&located(twice), ErrorKind::Corrupt, "twice");
    let upper = ParentLocator::new()
        .pair("PARENT_LINKAGE", &SOME.braced().to_string())
        .relative_path("a");
    refused(
        &located(upper),
        ErrorKind::Corrupt,
        "parent_linkage is missing",
    );
    // Another case is another key.
    let both = ParentLocator::relative(SOME, "a").pair("Relative_Path", "b");
    let image = built(&located(both)).unwrap();
    assert_eq!(
        image.parent_locator().unwrap().get("relative_path"),
        Some("a")
    );
    assert_eq!(
        image.parent_locator().unwrap().get("Relative_Path"),
        Some("b")
    );
    // A terminator is not part of the text; such a name leads nowhere rather than somewhere else.
    let terminated = located(ParentLocator::relative(SOME, "a\0"));
    assert_eq!(
        built(&terminated).unwrap().file_refs()[0].names[0].path,
        None
    );
    assert_eq!(strict(&terminated).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn rule_26_linkage_is_in_microsofts_field_order_and_compares_by_value() {
    // vhdx-rs swapped the bytes, so that no child made by Hyper-V ever found its parent.
    let parent = VhdxBuilder::new(4 * MIB);
    let id = built(&parent).unwrap().content_id().unwrap();
    let text = ids::DEFAULT_DATA_WRITE.braced().to_string();
    for linkage in [text.to_lowercase(), text.to_uppercase()] {
        let locator = ParentLocator::new()
            .pair("parent_linkage", &linkage)
            .relative_path("p");
        let image = built(&located(locator)).unwrap();
        assert_eq!(image.file_refs()[0].expected, [id], "{linkage}");
    }
    assert_eq!(format!("{{{id}}}"), text);
    for wrong in ["", "{}", "not a guid", "{DA7A0001-0000-4000-8000}"] {
        let locator = ParentLocator::new()
            .pair("parent_linkage", wrong)
            .relative_path("p");
        let (kind, _) = refusal(&located(locator));
        assert_eq!(kind, ErrorKind::Corrupt, "{wrong:?}");
    }
}

#[test]
fn rule_26_either_linkage_may_match_while_a_merge_is_under_way() {
    let two = ParentLocator::relative(SOME, "p").linkage2(Uuid::from_u128(9));
    let expected = built(&located(two)).unwrap().file_refs()[0]
        .expected
        .clone();
    let ids = [SOME, Uuid::from_u128(9)].map(|guid| ContentId(*guid.as_bytes()));
    assert_eq!(expected, ids);
    let nil = ParentLocator::relative(SOME, "p").linkage2(Uuid::nil());
    assert_eq!(
        built(&located(nil)).unwrap().file_refs()[0].expected,
        ids[..1]
    );
}

#[test]
fn rule_26_a_nil_parent_linkage_does_not_switch_the_comparison_off() {
    // It was left out like a nil parent_linkage2, and with nothing to compare any file would do: a
    // forged child could be laid over whatever disk bears the name.
    let image = built(&located(ParentLocator::relative(Uuid::nil(), "p"))).unwrap();
    assert_eq!(image.file_refs()[0].expected, [ContentId([0; 16])]);
}

#[test]
fn rule_26_names_are_tried_relative_then_volume_then_absolute() {
    let locator = ParentLocator::new()
        .absolute_win32_path(r"\\?\C:\disks\base.vhdx")
        .volume_path(r"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\disks\base.vhdx")
        .relative_path(r"..\disks\base.vhdx")
        .linkage(SOME);
    let image = built(&located(locator)).unwrap();
    let reference = &image.file_refs()[0];
    assert_eq!(reference.role, FileRole::Parent);
    assert_eq!(reference.format.as_deref(), Some("vhdx"));
    let kinds: Vec<_> = reference.names.iter().map(|name| name.kind).collect();
    assert_eq!(
        kinds,
        [NameKind::Relative, NameKind::Volume, NameKind::Absolute]
    );
    #[cfg(unix)]
    assert_eq!(
        reference.names[0].path.as_deref(),
        Some(std::path::Path::new("../disks/base.vhdx"))
    );
    // No path at all still opens: the caller may hand the parent over.
    let pathless = located(ParentLocator::new().linkage(SOME));
    assert!(built(&pathless).unwrap().file_refs()[0].names.is_empty());
    assert!(strict(&pathless).is_err());
}

#[test]
fn rule_27_virtual_sizes_are_checked_at_open() {
    for (bytes, words) in [
        (64 * TIB + 512, "64 TiB"),
        (((1 << 32) + 25) << 20, "64 TiB"),
        (u64::MAX, "64 TiB"),
        (u64::MAX - 511, "64 TiB"),
        (1 << 63, "64 TiB"),
        (4 * MIB + 1, "multiple of the logical sector"),
        (511, "multiple of the logical sector"),
    ] {
        refused(
            &VhdxBuilder::new(bytes).bat_length(1 << 20),
            ErrorKind::Corrupt,
            words,
        );
    }
    let unaligned = VhdxBuilder::new(4 * MIB + 512).logical_sector_size(4096);
    refused(
        &unaligned,
        ErrorKind::Corrupt,
        "multiple of the logical sector",
    );
    for size in [0, 512, MIB - 512, MIB, MIB + 512] {
        let builder = VhdxBuilder::new(size);
        shows_its_model(&builder);
    }
}

#[test]
fn rule_27_the_largest_disk_opens_for_every_block_size() {
    for shift in [20, 25, 28] {
        let last = ((64 * TIB) >> shift) - 1;
        let end = (1u64 << shift) - 512;
        let data = BlockData::Pieces(vec![(end, vec![9; 512])]);
        let builder = VhdxBuilder::new(64 * TIB)
            .block_size(1 << shift)
            .block(last, BlockContent::full(data));
        let image = built(&builder).unwrap();
        assert_eq!(size(&image), 64 * TIB);
        same_as_model(&image, &builder, 64 * TIB - 4096, 4096);
    }
}

#[test]
fn rule_27_a_bat_too_short_for_the_disk_is_refused_and_one_of_the_right_length_is_not() {
    // 131,072 entries fill 1 MiB. In a disk without parent the entry of the last block must fit, in
    // a child that of the last chunk's bitmap as well.
    let fits = |blocks: u64| VhdxBuilder::new(blocks * MIB).bat_length(1 << 20);
    let most = 131_072 - 31;
    assert!(built(&fits(most)).is_ok());
    refused(&fits(most + 1), ErrorKind::Corrupt, "at least");
    let of_child = |blocks: u64| child(blocks * MIB).bat_length(1 << 20);
    assert!(built(&of_child(31 * 4096)).is_ok());
    refused(&of_child(31 * 4096 + 1), ErrorKind::Corrupt, "at least");
    refused(
        &VhdxBuilder::new(512).bat_length(0),
        ErrorKind::Corrupt,
        "BAT",
    );
}

#[test]
fn rule_28_sector_sizes_are_512_or_4096_and_reach_the_parent_reference() {
    for sector in [0, 1, 511, 513, 1024, 2048, 8192, 1 << 31, u32::MAX] {
        let logical = VhdxBuilder::new(4 * MIB)
            .logical_sector_size(sector)
            .bat_length(1 << 20);
        refused(&logical, ErrorKind::Corrupt, "LogicalSectorSize");
        let physical = VhdxBuilder::new(4 * MIB).physical_sector_size(sector);
        refused(&physical, ErrorKind::Corrupt, "PhysicalSectorSize");
    }
    for (logical, physical) in [(512, 512), (512, 4096), (4096, 4096), (4096, 512)] {
        let builder = child(4 * MIB)
            .logical_sector_size(logical)
            .physical_sector_size(physical);
        let image = built(&builder).unwrap();
        assert_eq!(image.info().logical_sector_size, logical);
        assert_eq!(image.info().physical_sector_size, physical);
        assert_eq!(image.file_refs()[0].logical_sector_size, Some(logical));
    }
}

// What regions may not do.

fn with_regions(change: impl Fn(&mut Vec<RegionEntry>)) -> VhdxBuilder {
    let builder = VhdxBuilder::new(4 * MIB).extra_region(extra(false));
    let mut entries = builder.layout().region_entries;
    change(&mut entries);
    builder.region_table(entries)
}

#[test]
fn regions_that_overlap_each_other_or_the_log_are_refused() {
    let over_bat = with_regions(|entries| entries[1].file_offset = entries[0].file_offset);
    refused(&over_bat, ErrorKind::Corrupt, "overlaps");
    let over_log = with_regions(|entries| entries[2].file_offset = MIB);
    refused(&over_log, ErrorKind::Corrupt, "overlaps");
    let reaches = with_regions(|entries| {
        entries[2].file_offset = MIB;
        entries[2].length = 4 << 20;
    });
    refused(&reaches, ErrorKind::Corrupt, "overlaps");
}

#[test]
fn an_empty_log_between_two_regions_does_not_hide_that_they_overlap() {
    // The list is searched by neighbours; a log of no bytes stood between and overlapped neither.
    let builder = with_regions(|entries| {
        entries[2].file_offset = entries[1].file_offset;
        entries[2].length = 2 << 20;
    });
    let layout = builder.layout();
    let copy = HeaderCopy {
        log_length: Some(0),
        log_offset: Some(layout.metadata_offset),
        ..HeaderCopy::default()
    };
    let builder = builder
        .header(Slot::First, copy.clone())
        .header(Slot::Second, copy);
    refused(&builder, ErrorKind::Corrupt, "overlaps");
}

#[test]
fn region_entries_are_unique_known_by_guid_and_may_come_in_any_order() {
    let reversed = with_regions(|entries| entries.reverse());
    assert!(built(&reversed).is_ok());
    let twice = with_regions(|entries| {
        let mut again = entries[2].clone();
        again.file_offset += 2 * MIB;
        again.length = 0;
        entries.push(again);
    });
    refused(&twice, ErrorKind::Corrupt, "unique");
    for (missing, words) in [
        (0, "BAT region is missing"),
        (1, "Metadata region is missing"),
    ] {
        let builder = with_regions(|entries| {
            entries.remove(missing);
        });
        refused(&builder, ErrorKind::Corrupt, words);
    }
}

#[test]
fn the_identifiers_of_the_specification_are_stored_as_microsoft_stores_them() {
    // Written down a second time by the builder, and read here byte by byte.
    for (ours, theirs) in [
        (known::BAT_REGION, ids::BAT_REGION),
        (known::METADATA_REGION, ids::METADATA_REGION),
        (known::FILE_PARAMETERS, ids::FILE_PARAMETERS),
        (known::VIRTUAL_DISK_SIZE, ids::VIRTUAL_DISK_SIZE),
        (known::VIRTUAL_DISK_ID, ids::VIRTUAL_DISK_ID),
        (known::LOGICAL_SECTOR_SIZE, ids::LOGICAL_SECTOR_SIZE),
        (known::PHYSICAL_SECTOR_SIZE, ids::PHYSICAL_SECTOR_SIZE),
        (known::PARENT_LOCATOR, ids::PARENT_LOCATOR),
        (known::VHDX_PARENT_LOCATOR, ids::VHDX_LOCATOR_TYPE),
    ] {
        assert_eq!(ours, theirs);
    }
    let mut image = VhdxBuilder::new(4 * MIB).build();
    let stored = image.read(Slot::First.region_table_offset() + 16, 4);
    assert_eq!(stored, [0x66, 0x77, 0xC2, 0x2D]);
    image.write(0, b"VHDXFILE");
    refused_image(image, ErrorKind::NotRecognised, "vhdxfile");
}

#[test]
fn a_disk_of_a_size_that_is_no_multiple_of_its_block_ends_where_it_ends() {
    let builder = VhdxBuilder::new(5 * MIB + 1536)
        .block_size(4 << 20)
        .block(1, full(3));
    shows_its_model(&builder);
    assert_eq!(disk(&builder).size(), 5 * MIB + 1536);
    let huge = VhdxBuilder::new(5 * GIB + 512).block(5120, full(1));
    same_as_model(&built(&huge).unwrap(), &huge, 5 * GIB, 512);
}
