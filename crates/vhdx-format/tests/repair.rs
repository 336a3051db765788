//! Damaged images: what a repair makes right, and what can be salvaged from the rest.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use blockdev_core::{BlockDevice, ErrorKind, LoneLayer, MemoryStorage, Salvage, Storage};
use testkit::vhdx_builder::{BlockContent, BlockData, Damage, Slot, VhdxBuilder};
use vhdx_format::{LogState, OpenOptions, VhdxImage, check, repair};

const MIB: u64 = 1 << 20;

fn builder() -> VhdxBuilder {
    let full = |seed| BlockContent::full(BlockData::Pattern(seed));
    VhdxBuilder::new(8 * MIB)
        .block_size(1 << 20)
        .block(0, full(1))
        .block(2, full(2))
        .block(5, full(3))
}

fn file(builder: &VhdxBuilder) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::from(builder.build().to_vec()))
}

fn content(storage: Arc<MemoryStorage>) -> Vec<u8> {
    let image = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
    let disk = LoneLayer::new(Box::new(image));
    let mut seen = vec![0xEE; usize::try_from(disk.size()).unwrap()];
    disk.read_at(&mut seen, 0).unwrap();
    seen
}

fn blocks_but(content: &[u8], lost: &[u64]) -> Vec<u8> {
    let mut content = content.to_vec();
    for block in lost {
        let start = usize::try_from(block * MIB).unwrap();
        content[start..start + usize::try_from(MIB).unwrap()].fill(0);
    }
    content
}

#[test]
fn an_image_without_fault_stays_as_it_is() {
    let file = file(&builder());
    let before = file.to_vec();
    let repaired = repair(file.clone(), &OpenOptions::read_only()).unwrap();
    assert!(repaired.before.is_clean() && repaired.after.is_clean());
    assert!(file.to_vec() == before);
}

/// One torn copy is made whole; nothing of it changes the content, so children find their parent.
#[test]
fn a_torn_copy_is_made_whole() {
    let whole = content(file(&builder()));
    for slot in [Slot::First, Slot::Second] {
        for of_region in [false, true] {
            let damaged = if of_region {
                builder().damage_region_table(slot, Damage::Checksum)
            } else {
                builder().damage_header(slot, Damage::Checksum)
            };
            let file = file(&damaged);
            let open = || VhdxImage::open(file.clone(), &OpenOptions::read_only()).unwrap();
            let identity = open().header().data_write_guid;
            repair(file.clone(), &OpenOptions::read_only()).unwrap();
            let image = open();
            assert!(image.headers().copies.iter().all(|copy| copy.is_valid()));
            assert!(
                image
                    .region_tables()
                    .copies
                    .iter()
                    .all(|copy| copy.is_valid())
            );
            assert_eq!(image.header().data_write_guid, identity);
            drop(image);
            assert!(content(file.clone()) == whole);
            let strict = OpenOptions::read_only().with_strict(true);
            VhdxImage::open(file, &strict).unwrap();
        }
    }
}

#[test]
fn a_log_is_replayed() {
    let pending = BlockContent::full(BlockData::Pattern(9));
    let dirty = builder().pending_block(3, pending);
    let file = file(&dirty);
    let right = content(file.clone());
    let repaired = repair(file.clone(), &OpenOptions::read_only()).unwrap();
    assert!(repaired.after.is_clean());
    let image = VhdxImage::open(file.clone(), &OpenOptions::read_only()).unwrap();
    assert_eq!(image.log_state(), LogState::Empty);
    drop(image);
    assert!(content(file) == right);
}

/// What is wrong with the entry of block 2, and what else it takes with it.
#[test]
fn entries_that_lead_nowhere_are_given_up_and_nothing_else() {
    let sound = builder();
    let right = content(file(&sound));
    let image = VhdxImage::open(file(&sound), &OpenOptions::read_only()).unwrap();
    let place = |block| image.bat_entry(block).unwrap().unwrap().1.file_offset();
    let (first, second) = (place(0), place(2));
    for (what, entry, lost) in [
        ("past the end", (500 * MIB) | 6, &[2][..]),
        ("in the header section", 6, &[2]),
        ("a reserved state", second | 4, &[2]),
        ("partial without a parent", second | 7, &[2]),
        ("where block 0 is", first | 6, &[2]),
        ("in the log", MIB | 6, &[2]),
        ("reserved bits", second | 6 | 8, &[]),
    ] {
        let file = file(&builder().raw_bat(2, entry));
        let repaired = repair(file.clone(), &OpenOptions::read_only()).unwrap();
        let (before, after) = (&repaired.before, &repaired.after);
        assert!(before.corruptions + before.warnings > 0, "{what}");
        assert_eq!(
            (after.corruptions, after.warnings),
            (0, 0),
            "{what}: {:?}",
            after.findings
        );
        assert_eq!(repaired.lost_blocks, lost, "{what}");
        assert_eq!(repaired.lost_count, lost.len() as u64, "{what}");
        assert!(content(file.clone()) == blocks_but(&right, lost), "{what}");
        // It can be written to, and then holds what was written.
        let image = VhdxImage::open(file.clone(), &OpenOptions::read_write()).unwrap();
        let disk = LoneLayer::new(Box::new(image));
        disk.write_at(&[7; 512], 2 * MIB).unwrap();
        disk.flush().unwrap();
        drop(disk);
        assert!(
            check(file, &OpenOptions::read_only()).unwrap().is_clean(),
            "{what}"
        );
    }
}

/// A damaged BAT is not written to: where two blocks share a place, a write to one is one to both.
#[test]
fn an_image_whose_blocks_overlap_is_not_written_to() {
    let image = VhdxImage::open(file(&builder()), &OpenOptions::read_only()).unwrap();
    let first = image.bat_entry(0).unwrap().unwrap().1;
    let file = file(&builder().raw_bat(2, first.0));
    let before = file.to_vec();
    let image = VhdxImage::open(file.clone(), &OpenOptions::read_write()).unwrap();
    let disk = LoneLayer::new(Box::new(image));
    let refused = disk.write_at(&[7; 512], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    drop(disk);
    assert!(file.to_vec() == before);
}

fn salvaged(file: Arc<MemoryStorage>) -> (Vec<u8>, u64) {
    let options = OpenOptions::read_only().with_salvage(true);
    let before = file.to_vec();
    let image = VhdxImage::open(file.clone(), &options).unwrap();
    let disk = LoneLayer::new(Box::new(image));
    let salvage = Salvage::new(&disk);
    let mut seen = vec![0xEE; usize::try_from(disk.size()).unwrap()];
    salvage.read_at(&mut seen, 0).unwrap();
    let lost = salvage.lost().bytes;
    assert!(file.to_vec() == before, "nothing is written");
    (seen, lost)
}

#[test]
fn what_is_left_of_a_damaged_file_is_read() {
    let right = content(file(&builder()));
    let both = |damage: fn(VhdxBuilder, Slot) -> VhdxBuilder| {
        damage(damage(builder(), Slot::First), Slot::Second)
    };
    let headers = both(|b, slot| b.damage_header(slot, Damage::Checksum));
    let no_headers = both(|b, slot| b.damage_header(slot, Damage::Zeroed));
    let tables = both(|b, slot| b.damage_region_table(slot, Damage::Checksum));
    let no_tables = both(|b, slot| b.damage_region_table(slot, Damage::Zeroed));
    for (what, damaged) in [
        ("headers", headers),
        ("no headers", no_headers),
        ("region tables", tables),
        ("no region tables", no_tables),
    ] {
        let file = file(&damaged);
        let refused = VhdxImage::open(file.clone(), &OpenOptions::read_only());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
        let (seen, lost) = salvaged(file);
        assert!(seen == right, "{what}");
        assert_eq!(lost, 0, "{what}");
    }
    let mut bytes = builder().build().to_vec();
    bytes[..1 << 20].fill(0);
    let (seen, lost) = salvaged(Arc::new(MemoryStorage::from(bytes)));
    assert!(seen == right, "the whole header section");
    assert_eq!(lost, 0);
}

#[test]
fn of_a_file_that_was_cut_short_the_rest_is_read() {
    let right = content(file(&builder()));
    let whole = builder().build().to_vec();
    let image = VhdxImage::open(file(&builder()), &OpenOptions::read_only()).unwrap();
    let last = image
        .bat_entries()
        .map(|found| found.unwrap().2.file_offset())
        .max()
        .unwrap();
    let cut = usize::try_from(last).unwrap() + 300_000;
    let (seen, lost) = salvaged(Arc::new(MemoryStorage::from(whole[..cut].to_vec())));
    let there = 300_000 / 512 * 512;
    assert_eq!(lost, MIB - there);
    let differs = seen.iter().zip(&right).filter(|(a, b)| a != b).count() as u64;
    assert!(differs > 0 && differs <= lost);
    let from = 5 * MIB + there;
    let (from, to) = (
        usize::try_from(from).unwrap(),
        usize::try_from(6 * MIB).unwrap(),
    );
    assert!(seen[..from] == right[..from] && seen[to..] == right[to..]);
}

/// A log that cannot be replayed is left out, where an ordinary open refuses.
#[test]
fn a_log_that_is_damaged_is_left_out() {
    let named = builder().log_guid(vhdx_format::Uuid::from_u128(7));
    let file = file(&named);
    assert!(VhdxImage::open(file.clone(), &OpenOptions::read_only()).is_err());
    let (seen, lost) = salvaged(file);
    assert_eq!(lost, 0);
    assert!(seen == content(self::file(&builder())));
}

#[test]
fn what_is_damaged_is_not_written_to() {
    let options = OpenOptions::read_write().with_salvage(true);
    let refused = VhdxImage::open(file(&builder()), &options).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let nothing = Arc::new(MemoryStorage::from(vec![0; 5 << 20]));
    assert!(nothing.len().is_ok());
    let options = OpenOptions::read_only().with_salvage(true);
    let refused = VhdxImage::open(nothing, &options).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
}
