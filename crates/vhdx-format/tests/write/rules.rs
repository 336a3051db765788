//! The rules of writing that implementers get wrong, each by name. Most are held against every write and
//! every sync of every story; see [`audit`](crate::audit).

use std::sync::{Arc, OnceLock};

use blockdev_core::{BlockDevice, Layer, MemoryStorage, OpenOptions, Storage};
use testkit::crash::tell;
use testkit::stamp::stamped;
use testkit::vhdx_builder::{BlockContent, BlockData, ExtraRegion, Slot, VhdxBuilder};
use vhdx_format::{BatSlot, BitmapState, LogState, PayloadState, Uuid, VhdxImage, check};

use crate::audit::{Findings, audit};
use crate::random;
use crate::stories::{STORIES, UNMAP};
use crate::subject::{Disk, MIB, child, content, open};

/// What was found in every story, named and random.
fn findings() -> &'static [(String, Findings)] {
    static FINDINGS: OnceLock<Vec<(String, Findings)>> = OnceLock::new();
    FINDINGS.get_or_init(|| {
        let named = STORIES.iter().map(|(name, make)| {
            let (subject, mut scenario) = make();
            scenario.name = (*name).into();
            (subject, scenario)
        });
        // A repair is what mends what is found here.
        let named = named.filter(|(subject, _)| !subject.repairs);
        let random = (0..20).map(|seed| random::story(seed, 40));
        named
            .chain(random)
            .map(|(subject, scenario)| {
                let told = tell(&subject, &scenario);
                (scenario.name.clone(), audit(&told))
            })
            .collect()
    })
}

/// Fails where `rule` is broken, or was looked at less than `least` times.
fn holds(rule: u32, least: u64) {
    let mut looked = 0;
    for (story, findings) in findings() {
        looked += findings.looked.get(&rule).copied().unwrap_or(0);
        let broken = findings.broken.iter().filter(|(of, _)| *of == rule);
        let broken: Vec<&String> = broken.map(|(_, text)| text).take(5).collect();
        assert!(broken.is_empty(), "{story}: {broken:#?}");
    }
    println!("rule {rule}: looked at {looked} times");
    assert!(looked >= least, "rule {rule} was looked at {looked} times");
}

#[test]
fn rule_1_nothing_in_the_first_64_kib_is_ever_rewritten() {
    holds(1, 2000);
}

/// A BAT offset of 0 led a writer there: a block that is called present and has no place is damage, and
/// no write to it gets through.
#[test]
fn rule_1_a_present_block_at_offset_0_is_never_written_to() {
    for state in [6u64, 7] {
        let disk = child(3 * MIB).raw_bat(1, state).bitmap_block(0);
        let image = disk.build().to_vec();
        let storage = Arc::new(MemoryStorage::from(image.clone()));
        let disk = open(storage.clone(), true, &Arc::new(content(3000))).unwrap();
        assert!(disk.write_at(&[1; 512], MIB + 512).is_err());
        drop(disk);
        assert_eq!(storage.to_vec()[..64 << 10], image[..64 << 10]);
    }
}

#[test]
fn rule_3_file_write_guid_changes_before_the_first_modification_of_an_open() {
    holds(3, 1000);
}

/// Log replay included, and nothing else.
#[test]
fn rule_3_a_replay_alone_changes_file_write_guid_and_not_data_write_guid() {
    let full = BlockContent::full(BlockData::Pattern(1));
    let image = VhdxBuilder::new(3 * MIB).pending_block(1, full);
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let before = VhdxImage::open(storage.clone(), &OpenOptions::read_only()).unwrap();
    let (before, disk) = (
        before.header(),
        VhdxImage::open(storage.clone(), &OpenOptions::read_write()).unwrap(),
    );
    assert!(matches!(disk.log_state(), LogState::Replayed { .. }));
    Box::new(disk).close().unwrap();
    let after = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
    assert_ne!(before.file_write_guid, after.header().file_write_guid);
    assert_eq!(before.data_write_guid, after.header().data_write_guid);
}

#[test]
fn rule_4_data_write_guid_changes_before_the_first_change_that_a_guest_can_see() {
    holds(4, 1000);
}

/// Also by changes of state alone, once for each open, and never by an open without a change.
#[test]
fn rule_4_every_kind_of_change_and_every_open_gives_a_data_write_guid_of_its_own() {
    let full = BlockContent::full(BlockData::Pattern(1));
    let image = child(4 * MIB).block(0, full.clone()).block(1, full);
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let base = Arc::new(content(4096));
    let guid = || {
        let image = VhdxImage::open(storage.clone(), &OpenOptions::read_only()).unwrap();
        (
            image.header().data_write_guid,
            image.header().file_write_guid,
        )
    };
    type Change<'a> = (bool, &'a dyn Fn(&Disk));
    let changes: [Change<'_>; 8] = [
        (true, &|disk| disk.write_at(&[1; 512], 0).unwrap()),
        (true, &|disk| disk.write_zeroes(0, MIB, UNMAP).unwrap()),
        (true, &|disk| disk.discard(MIB, MIB).unwrap()),
        (true, &|disk| disk.write_at(&[1; 512], MIB).unwrap()),
        (false, &|_| ()),
        (false, &|disk| disk.flush().unwrap()),
        (false, &|disk| disk.read_at(&mut [0; 512], MIB).unwrap()),
        (true, &|disk| {
            disk.write_zeroes(3 * MIB, 512, UNMAP).unwrap()
        }),
    ];
    for (n, (is_change, change)) in changes.into_iter().enumerate() {
        let before = guid();
        let disk = open(storage.clone(), true, &base).unwrap();
        change(&disk);
        let seen = disk.layer.content_id().unwrap();
        drop(disk);
        let after = guid();
        assert_eq!(before.0 != after.0, is_change, "change {n}");
        assert_eq!(before.1 != after.1, is_change, "change {n}");
        assert_eq!(*after.0.as_bytes(), seen.0, "what a child would link to");
    }
}

#[test]
fn rule_5_a_header_names_a_log_only_after_an_entry_of_it_is_stable() {
    holds(5, 100);
}

#[test]
fn rule_6_a_header_update_writes_the_other_copy_then_this_one_each_flushed() {
    holds(6, 300);
}

#[test]
fn rule_7_region_tables_are_not_touched_but_through_the_log() {
    let (_, unknown) = findings()
        .iter()
        .find(|(name, _)| name.starts_with("unknown regions"))
        .unwrap();
    assert!(unknown.broken.is_empty(), "{:?}", unknown.broken);
    let broken = findings().iter().flat_map(|(_, found)| &found.broken);
    assert_eq!(broken.filter(|(rule, _)| *rule == 7).count(), 0);
}

/// No block was ever put where an unknown region lies, though that is the only gap.
#[test]
fn rule_7_space_of_an_unknown_optional_region_is_not_used() {
    let region = ExtraRegion {
        guid: Uuid::from_u128(0xEE00_0000_0000_4000_8000_0000_0000_0001),
        required: false,
        length_mib: 3,
        content: content(3072),
    };
    let image = VhdxBuilder::new(4 * MIB).extra_region(region);
    let place = image.layout().region_entries[2].file_offset;
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let disk = open(storage.clone(), true, &Arc::default()).unwrap();
    for block in 0..4 {
        disk.write_at(&[9; 4096], block * MIB).unwrap();
    }
    drop(disk);
    let mut seen = vec![0; 3 << 20];
    storage.read_at(&mut seen, place).unwrap();
    assert!(seen == content(3072));
    let image = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
    let tables = image.region_tables();
    for table in &tables.copies {
        assert!(table.is_valid());
        assert_eq!(table.entries.len(), 3);
    }
}

#[test]
fn rule_8_bytes_then_the_entry_then_the_tables_in_place_then_the_entrys_space() {
    holds(8, 1000);
}

#[test]
fn rule_9_flushed_file_offset_is_stable_and_last_file_offset_covers_what_is_there_then() {
    holds(9, 500);
}

#[test]
fn rule_12_every_entry_heads_a_sequence_as_soon_as_it_is_stable() {
    holds(12, 300);
}

#[test]
fn rule_13_the_log_is_given_up_when_its_pages_are_in_their_place() {
    holds(13, 100);
}

/// A log that was replayed, or written and given up, is not replayed again over what came after.
#[test]
fn rule_13_a_stale_log_is_never_replayed() {
    let full = BlockContent::full(BlockData::Pattern(1));
    let image = child(3 * MIB).pending_block(1, full);
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let base = Arc::new(content(3072));
    let mut right = vec![0; 3 << 20];
    let disk = open(storage.clone(), true, &base).unwrap();
    disk.read_at(&mut right, 0).unwrap();
    drop(disk);
    for round in 0..5 {
        let disk = open(storage.clone(), true, &base).unwrap();
        assert_eq!(disk.layer.log_state(), LogState::Empty, "round {round}");
        let at = (round * 300_000) as u64;
        let bytes = stamped(at, 5000, round);
        disk.write_at(&bytes, at).unwrap();
        right[round as usize * 300_000..][..5000].copy_from_slice(&bytes);
        if round % 2 == 0 {
            disk.flush().unwrap();
        }
        drop(disk);
    }
    let disk = open(storage, false, &base).unwrap();
    let mut seen = vec![0; 3 << 20];
    disk.read_at(&mut seen, 0).unwrap();
    assert!(seen == right);
}

#[test]
fn rule_17_blocks_do_not_overlap_in_any_entry() {
    holds(17, 500);
}

fn states(image: &VhdxImage) -> Vec<PayloadState> {
    let payload = image.bat_entries().map(Result::unwrap);
    let blocks = image.geometry().payload_blocks();
    let mut states = vec![PayloadState::NotPresent; usize::try_from(blocks).unwrap()];
    for (_, slot, entry) in payload {
        if let BatSlot::Payload { block } = slot {
            states[usize::try_from(block).unwrap()] = entry.payload_state().unwrap();
        }
    }
    states
}

/// Discarded, zeroed or written and discarded again: a child never shows its parent where it had
/// content, nor where it was to be zeros.
#[test]
fn rule_18_what_a_child_gives_up_does_not_show_the_parent() {
    let full = BlockContent::full(BlockData::Pattern(1));
    let part = BlockContent::partial(BlockData::Pattern(2), 0..2048);
    let image = child(5 * MIB).block(0, full).block(1, part);
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let base = Arc::new(content(5 << 10));
    let disk = open(storage.clone(), true, &base).unwrap();
    disk.discard(0, 2 * MIB).unwrap();
    disk.write_zeroes(2 * MIB, MIB, UNMAP).unwrap();
    disk.write_at(&[7; 4096], 3 * MIB).unwrap();
    disk.write_zeroes(3 * MIB, MIB, UNMAP).unwrap();
    let judge = |disk: &Disk| {
        let mut seen = vec![1; 5 << 20];
        disk.read_at(&mut seen, 0).unwrap();
        assert!(seen[..4 << 20].iter().all(|byte| *byte == 0));
        assert!(seen[4 << 20..] == base[4 << 20..]);
    };
    judge(&disk);
    disk.flush().unwrap();
    judge(&disk);
    drop(disk);
    let disk = open(storage, false, &base).unwrap();
    judge(&disk);
    let found = states(&disk.layer);
    assert_eq!(found[0], PayloadState::Unmapped);
    assert_eq!(found[2], PayloadState::Zero);
    assert_eq!(found[3], PayloadState::Zero);
    assert_eq!(found[4], PayloadState::NotPresent);
    assert!(!found.contains(&PayloadState::PartiallyPresent));
}

/// The bits of the whole block are those of what was written, whatever they said before: those of the
/// neighbours in the same page stay.
#[test]
fn rule_19_who_makes_a_block_partial_resets_its_bits() {
    let image = child(4 * MIB)
        .block(0, BlockContent::partial(BlockData::Pattern(1), [5, 2047]))
        .block(2, BlockContent::partial(BlockData::Pattern(2), [0, 9]))
        .stale_bitmap(1, 0xFF)
        .stale_bitmap(3, 0xFF);
    let place = *image.layout().bitmaps.get(&0).unwrap();
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let disk = open(storage.clone(), true, &Arc::new(content(4096))).unwrap();
    disk.write_at(&[7; 1024], MIB + 512 * 100).unwrap();
    drop(disk);
    let mut bits = vec![0; 1024];
    storage.read_at(&mut bits, place).unwrap();
    let set = |bit: usize| bits[bit / 8] >> (bit % 8) & 1 == 1;
    let found: Vec<usize> = (0..3 * 2048).filter(|bit| set(*bit)).collect();
    assert_eq!(found, [5, 2047, 2048 + 100, 2048 + 101, 4096, 4096 + 9]);
    let bitmap = bits[768..].iter().all(|byte| *byte == 0xFF);
    assert!(bitmap, "block 3 was not touched");
}

#[test]
fn rule_20_a_partial_block_and_its_bitmap_block_come_in_one_entry() {
    holds(20, 500);
}

/// In each chunk, by the first partial write to it.
#[test]
fn rule_20_each_chunk_gets_its_bitmap_block_with_its_first_partial_block() {
    let image = child(2 * 4096 * MIB + MIB);
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    let disk = open(storage.clone(), true, &Arc::default()).unwrap();
    for chunk in [0, 2] {
        disk.write_at(&[1; 512], chunk * 4096 * MIB).unwrap();
    }
    drop(disk);
    let image = VhdxImage::open(storage.clone(), &OpenOptions::read_only()).unwrap();
    let bitmaps: Vec<u64> = image
        .bat_entries()
        .map(Result::unwrap)
        .filter_map(|(_, slot, entry)| match slot {
            BatSlot::Bitmap { chunk } => {
                assert_eq!(entry.bitmap_state(), Some(BitmapState::Present));
                Some(chunk)
            }
            BatSlot::Payload { .. } => None,
        })
        .collect();
    assert_eq!(bitmaps, [0, 2]);
    let report = check(storage, &OpenOptions::read_only()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn rule_21_a_block_is_not_given_back_before_the_change_is_stable() {
    holds(21, 20);
}

/// A promoted block is one of which every sector is there, and none less.
#[test]
fn a_block_is_promoted_by_its_last_sector_and_not_before() {
    for missing in [0usize, 7, 1000, 2047] {
        let present = (0..2048).filter(|n| *n != missing as u64);
        let image = child(2 * MIB).block(1, BlockContent::partial(BlockData::Pattern(1), present));
        let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
        let disk = open(storage, true, &Arc::new(content(2048))).unwrap();
        let at = |sector: usize| MIB + sector as u64 * 512;
        disk.write_at(&[1; 512], at((missing + 1) % 2048)).unwrap();
        assert_eq!(states(&disk.layer)[1], PayloadState::PartiallyPresent);
        disk.write_at(&[1; 100], at(missing) + 200).unwrap();
        assert_eq!(states(&disk.layer)[1], PayloadState::FullyPresent);
        let mut seen = vec![0; 512];
        disk.read_at(&mut seen, at(missing)).unwrap();
        let from = usize::try_from(at(missing)).unwrap();
        let mut right = content(2048)[from..from + 512].to_vec();
        right[200..300].fill(1);
        assert!(seen == right, "what completes the sector is the parent's");
    }
}

/// A torn copy of a header is whole again after the first change, whichever it was.
#[test]
fn a_torn_header_copy_is_mended_by_writing() {
    for slot in Slot::BOTH {
        let damage = testkit::vhdx_builder::Damage::TornAt(700);
        let image = VhdxBuilder::new(2 * MIB).damage_header(slot, damage);
        let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
        let disk = open(storage.clone(), true, &Arc::default()).unwrap();
        disk.write_at(&[1; 512], 0).unwrap();
        drop(disk);
        let image = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
        assert!(image.headers().copies.iter().all(|copy| copy.is_valid()));
    }
}
