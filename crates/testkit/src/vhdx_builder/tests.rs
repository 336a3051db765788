//! Whole images, read back with offsets written down here a second time.

use uuid::Uuid;

use super::bytes::seal;
use super::*;

const MIB: u64 = 1 << 20;

fn le64(image: &SparseImage, offset: u64) -> u64 {
    u64::from_le_bytes(image.read(offset, 8).try_into().expect("eight bytes"))
}

fn checksum_holds(image: &SparseImage, offset: u64, len: usize) -> bool {
    let bytes = image.read(offset, len);
    let mut sealed = bytes.clone();
    seal(&mut sealed);
    bytes == sealed
}

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

#[test]
fn an_image_has_its_fixed_parts() {
    let image = VhdxBuilder::new(8 * MIB).block(3, full(1)).build();
    assert_eq!(image.len(), 5 * MIB);
    for slot in Slot::BOTH {
        assert_eq!(image.read(slot.header_offset(), 4), b"head");
        assert!(checksum_holds(&image, slot.header_offset(), 4096));
        assert_eq!(image.read(slot.region_table_offset(), 4), b"regi");
        assert!(checksum_holds(&image, slot.region_table_offset(), 65536));
    }
    assert_eq!(image.read(2 * MIB, 8), b"metadata");
    assert_eq!(le64(&image, 3 * MIB + 3 * 8), (4 * MIB) | 6);
}

#[test]
fn damage_hits_one_copy_only() {
    let cases = [
        Damage::Checksum,
        Damage::Signature,
        Damage::Zeroed,
        Damage::TornAt(512),
    ];
    for damage in cases {
        let image = VhdxBuilder::new(MIB)
            .damage_header(Slot::First, damage)
            .damage_region_table(Slot::Second, damage)
            .build();
        let header_ok = |slot: Slot| {
            image.read(slot.header_offset(), 4) == b"head"
                && checksum_holds(&image, slot.header_offset(), 4096)
        };
        let table_ok = |slot: Slot| {
            image.read(slot.region_table_offset(), 4) == b"regi"
                && checksum_holds(&image, slot.region_table_offset(), 65536)
        };
        assert_eq!(Slot::BOTH.map(header_ok), [false, true], "{damage:?}");
        assert_eq!(Slot::BOTH.map(table_ok), [true, false], "{damage:?}");
    }
}

#[test]
fn a_resealed_header_is_intact() {
    let mut image = VhdxBuilder::new(MIB).build();
    image.write(Slot::First.header_offset() + 8, &[9]);
    assert!(!checksum_holds(&image, 64 << 10, 4096));
    image.reseal_header(Slot::First);
    assert!(checksum_holds(&image, 64 << 10, 4096));
}

#[test]
fn areas_follow_the_order_asked_for() {
    let order = [
        Area::Blocks,
        Area::Bat,
        Area::Gap(2),
        Area::Metadata,
        Area::Log,
    ];
    let layout = VhdxBuilder::new(8 * MIB)
        .block(0, full(1))
        .area_order(order)
        .layout();
    assert_eq!(layout.blocks[&0], MIB);
    assert_eq!(layout.bat_offset, 2 * MIB);
    assert_eq!(layout.metadata_offset, 5 * MIB);
    assert_eq!(layout.log_offset, 6 * MIB);
    assert_eq!(layout.end, 7 * MIB);
}

#[test]
fn bitmap_bits_are_numbered_over_the_chunk() {
    let parent = VhdxBuilder::new(8 << 30).block_size(256 << 20);
    let child = VhdxBuilder::child_of(&parent, "parent.vhdx")
        .block_size(2 << 20)
        .block(2049, BlockContent::partial(vec![1; 512], [0, 9, 10]))
        .block(2050, full(2))
        .stale_bitmap(2050, 0x5A);
    let image = child.build();
    let layout = child.layout();
    let bitmap = layout.bitmaps[&1];
    // Block 2049 is the second of chunk 1: its first sector is bit 4096, its bytes start at 512.
    assert_eq!(image.read(bitmap + 511, 4), [0, 1, 6, 0]);
    assert_eq!(image.read(bitmap + 1023, 2), [0, 0x5A]);
    assert_eq!(image.read(bitmap + 1535, 2), [0x5A, 0]);
    assert_eq!(
        le64(&image, layout.bat_entry_offset(2 * 2048 + 1)),
        bitmap | 6
    );
    assert_eq!(
        le64(&image, layout.bat_entry_offset(2050)),
        layout.blocks[&2049] | 7
    );
    assert_eq!(image.read(layout.blocks[&2049] + 512, 1), [ABSENT_BYTE]);
}

#[test]
fn the_model_knows_each_state() {
    let kept = || Some(BlockData::Byte(9));
    let disk = VhdxBuilder::new(8 * MIB)
        .block(1, BlockContent::Undefined { kept: kept() })
        .block(2, BlockContent::Zero)
        .block(3, BlockContent::Unmapped { kept: kept() })
        .block(4, BlockContent::full(vec![4; 100]))
        .block(5, BlockContent::partial(BlockData::Byte(5), 1..2))
        .has_parent(true);
    let truth = |block: u64, sector: u64| disk.expected_sector(block * 2048 + sector);
    let own = |byte, len| SectorTruth::Own([vec![byte; len], vec![0; 512 - len]].concat());
    assert_eq!(truth(0, 0), SectorTruth::FromParent);
    for block in 1..4 {
        assert_eq!(truth(block, 0), SectorTruth::Zero);
    }
    assert_eq!(truth(4, 0), own(4, 100));
    assert_eq!(truth(5, 0), SectorTruth::FromParent);
    assert_eq!(truth(5, 1), own(5, 512));
    assert_eq!(
        disk.clone().has_parent(false).expected_sector(0),
        SectorTruth::Zero
    );
    assert_eq!(disk.expected_sector(1 << 30), SectorTruth::Zero);
}

#[test]
fn a_chain_is_walked_from_the_top() {
    let base = VhdxBuilder::new(2 * MIB)
        .block(0, full(1))
        .block(1, full(2));
    let middle = VhdxBuilder::child_of(&base, "base.vhdx").block(1, BlockContent::Zero);
    let top = VhdxBuilder::child_of(&middle, "middle.vhdx")
        .virtual_size(3 * MIB)
        .block(0, BlockContent::partial(BlockData::Byte(7), 0..1));
    let chain = [&top, &middle, &base];
    let SectorTruth::Own(below) = base.expected_sector(1) else {
        panic!("the base holds sector 1")
    };
    assert_eq!(chain_sector(&chain, 0), [7; 512]);
    assert_eq!(chain_sector(&chain, 1), below);
    assert_eq!(chain_sector(&chain, 2048), [0; 512]);
    assert_eq!(chain_sector(&chain, 4096), [0; 512]);
    assert_eq!(chain_disk(&chain).len() as u64, 3 * MIB);
}

#[test]
fn a_pending_block_is_only_in_the_log() {
    let dirty = VhdxBuilder::new(8 * MIB)
        .block(1, full(1))
        .pending_block(1, full(2));
    let (image, layout) = (dirty.build(), dirty.layout());
    assert_eq!(
        le64(&image, layout.bat_entry_offset(1)),
        layout.blocks[&1] | 6
    );
    assert_eq!(image.read(layout.log_offset, 4), b"loge");
    assert!(checksum_holds(&image, layout.log_offset, 8192));
    // Entry 1 of the logged BAT page is at bytes 8 to 15, the first that stay in the data sector.
    assert_eq!(
        le64(&image, layout.log_offset + 4096 + 8),
        layout.pending[&1] | 6
    );
    let log_guid = image.read(Slot::Second.header_offset() + 48, 16);
    assert_eq!(log_guid, ids::DEFAULT_LOG.to_bytes_le());
    assert_eq!(image.read(layout.log_offset + 32, 16), log_guid);
}

#[test]
fn a_bitmap_block_born_in_the_log_is_zeroed_first() {
    let dirty = VhdxBuilder::new(8 * MIB)
        .has_parent(true)
        .pending_block(0, BlockContent::partial(vec![1; 512], 0..1));
    let entries = dirty.pending_log_entries();
    let bitmap = dirty.layout().bitmaps[&0];
    let [entry] = &entries[..] else {
        panic!("all updates share one entry")
    };
    assert!(matches!(entry.descriptors[0],
        Descriptor::Zero { file_offset, length: MIB } if file_offset == bitmap));
    assert_eq!(
        entry.descriptors.len(),
        4,
        "zeros, a bitmap page, the BAT pages of both entries"
    );
}

#[test]
fn hostile_settings_do_not_stop_the_builder() {
    let guid = Uuid::from_u128(5);
    for (virtual_size, block_size, sector_size) in [
        (0, 0, 0),
        (MIB, 3, 7),
        (65 << 40, 1 << 20, 512),
        (u64::MAX, 512, 1),
        (MIB, u32::MAX, 4096),
    ] {
        let image = VhdxBuilder::new(virtual_size)
            .block_size(block_size)
            .logical_sector_size(sector_size)
            .raw_bat(0, u64::MAX)
            .extra_region(ExtraRegion {
                guid,
                required: true,
                length_mib: 1,
                content: vec![1],
            })
            .metadata_item(MetadataItem::user(guid, Vec::new()))
            .log_entry(
                LogEntry::new(0)
                    .at(3)
                    .tail(1)
                    .damage(LogDamage::Truncated(9)),
            )
            .file_len(3 * MIB + 5)
            .build();
        assert_eq!(image.len(), 3 * MIB + 5);
    }
}
