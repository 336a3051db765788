//! Harm that an earlier version did, told as it happened.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use blockdev_core::{
    Below, DiscardMode, ErrorKind, FileOptions, FileStorage, Holes, Layer, MemoryStorage,
    NoProgress, OpenOptions, Progress, Result, Storage, ZerosBelow,
};
use testkit::counting::{CountingStorage, Fault, FaultyStorage, Op};
use testkit::vhdx_builder::{BlockContent, BlockData, ExtraRegion, Slot, VhdxBuilder};
use vhdx_format::{
    DiskType, ParentFormat, ParentLink, ParentPaths, Uuid, VhdxImage, check, repair,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn disk(size: u64) -> VhdxBuilder {
    VhdxBuilder::new(size).block_size(1 << 20)
}

fn child(size: u64) -> VhdxBuilder {
    VhdxBuilder::child_of(&disk(size), "parent.vhdx").block_size(1 << 20)
}

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

fn file(builder: &VhdxBuilder) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::from(builder.build().to_vec()))
}

fn open(file: &Arc<MemoryStorage>) -> VhdxImage {
    VhdxImage::open(file.clone(), &OpenOptions::read_write()).unwrap()
}

fn again(file: &Arc<MemoryStorage>) -> VhdxImage {
    VhdxImage::open(file.clone(), &OpenOptions::read_only()).unwrap()
}

/// A sector's bytes, which are this file's own.
fn sector(image: &VhdxImage, at: u64) -> Result<Vec<u8>> {
    let mut seen = vec![0xEE; 512];
    let mut holes = Holes::new();
    image.read_at(&mut seen, at, &mut holes)?;
    assert!(holes.is_empty(), "{at:#x} is the parent's");
    Ok(seen)
}

fn mebibytes(count: usize) -> Vec<u8> {
    vec![7; count << 20]
}

/// A bitmap block was moved and the file cut; the next one came to lie where the first had been, of
/// which the pages were still known: bits that looked set already were not logged, and sectors that
/// had been flushed were the parent's again.
#[test]
fn a_bitmap_block_where_another_one_was_is_a_new_one() {
    let file = file(&child(5 * GIB));
    let mut image = open(&file);
    image.write_at(&mebibytes(2), MIB, &ZerosBelow).unwrap();
    image.write_at(&[8; 512], 0, &ZerosBelow).unwrap();
    image.flush().unwrap();
    image.discard(MIB, 2 * MIB, DiscardMode::ToParent).unwrap();
    image.flush().unwrap();
    image.compact(&NoProgress).unwrap();
    image.write_at(&[9; 512], 4 * GIB, &ZerosBelow).unwrap();
    image.flush().unwrap();
    assert_eq!(sector(&image, 4 * GIB).unwrap(), [9; 512]);
    drop(image);
    assert_eq!(sector(&again(&file), 4 * GIB).unwrap(), [9; 512]);
}

/// The same with a BAT that moved there: its entries were taken for what the old pages said.
#[test]
fn a_bat_where_a_bitmap_block_was_is_what_was_copied_there() {
    let file = file(&child(5 * GIB));
    let mut image = open(&file);
    image.write_at(&mebibytes(1), MIB, &ZerosBelow).unwrap();
    image.write_at(&[8; 512], 0, &ZerosBelow).unwrap();
    image.write_at(&mebibytes(1), 9 * MIB, &ZerosBelow).unwrap();
    image.flush().unwrap();
    for block in [1, 9] {
        image
            .discard(block * MIB, MIB, DiscardMode::ToParent)
            .unwrap();
    }
    image.flush().unwrap();
    image.compact(&NoProgress).unwrap();
    image.resize(200 * GIB, 0).unwrap();
    assert_eq!(sector(&image, 0).unwrap(), [8; 512]);
    image.write_at(&[9; 512], 100 * MIB, &ZerosBelow).unwrap();
    image.flush().unwrap();
    drop(image);
    assert_eq!(sector(&again(&file), 0).unwrap(), [8; 512]);
}

struct Cancelled;

impl Progress for Cancelled {
    fn is_cancelled(&self) -> bool {
        true
    }
}

/// And with a BAT that moved into a gap which was found, not cut off.
#[test]
fn a_bat_in_a_gap_is_what_was_copied_there() {
    let file = file(&child(64 * MIB));
    let mut image = open(&file);
    image.write_at(&[8; 512], 0, &ZerosBelow).unwrap();
    image.write_at(&mebibytes(2), 9 * MIB, &ZerosBelow).unwrap();
    image.flush().unwrap();
    image.make_standalone(&ZerosBelow).unwrap();
    image.discard(9 * MIB, MIB, DiscardMode::Best).unwrap();
    image.flush().unwrap();
    let cancelled = image.compact(&Cancelled).unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::InvalidInput);
    image.resize(200 * GIB, 0).unwrap();
    assert_eq!(sector(&image, 10 * MIB).unwrap(), [7; 512]);
    image.write_at(&[9; 512], 100 * MIB, &ZerosBelow).unwrap();
    image.flush().unwrap();
    drop(image);
    assert_eq!(sector(&again(&file), 10 * MIB).unwrap(), [7; 512]);
}

/// Blocks of which every sector was there stayed partially present in a disk that had no parent any
/// more, where that state is forbidden: they could not be read.
#[test]
fn a_block_that_is_all_there_survives_the_parent() {
    let first = file(&child(4 * MIB));
    let mut image = open(&first);
    image
        .write_at(&mebibytes(1)[..512 << 10], 0, &ZerosBelow)
        .unwrap();
    image.resize(512 << 10, 0).unwrap();
    image.make_standalone(&ZerosBelow).unwrap();
    assert_eq!(sector(&image, 0).unwrap(), [7; 512]);

    let partial = BlockContent::partial(BlockData::Pattern(3), 0..2048);
    let second = file(&child(4 * MIB).block(1, partial));
    let mut image = open(&second);
    let before = sector(&image, MIB).unwrap();
    image.make_standalone(&ZerosBelow).unwrap();
    assert_eq!(image.disk_type(), DiskType::Dynamic);
    drop(image);
    assert_eq!(sector(&again(&second), MIB).unwrap(), before);
    assert!(check(second, &OpenOptions::read_only()).unwrap().is_clean());
}

/// A file was cut short, and a block lost. A write elsewhere made the file grow over its place: it
/// read as zeros, and the check found nothing.
#[test]
fn a_lost_block_does_not_become_zeros() {
    let builder = disk(8 * MIB).block(0, full(1)).block(1, full(2));
    for cut in [MIB, MIB / 2] {
        let mut bytes = builder.build().to_vec();
        bytes.truncate(bytes.len() - usize::try_from(cut).unwrap());
        let file = Arc::new(MemoryStorage::from(bytes));
        let before = file.to_vec();
        let mut image = open(&file);
        assert_eq!(sector(&image, MIB).unwrap_err().kind(), ErrorKind::Corrupt);
        let refused = image.write_at(&[5; 512], 5 * MIB, &ZerosBelow).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        let refused = image.compact(&NoProgress).unwrap_err();
        assert!(matches!(
            refused.kind(),
            ErrorKind::Corrupt | ErrorKind::Poisoned
        ));
        drop(image);
        assert!(file.to_vec() == before, "nothing is changed");
        // A repair gives it up by name; then the rest can be written to.
        let repaired = repair(file.clone(), &OpenOptions::read_only()).unwrap();
        assert_eq!(repaired.lost_blocks, [1]);
        let image = open(&file);
        image.write_at(&[5; 512], 5 * MIB, &ZerosBelow).unwrap();
    }
}

/// One entry, or one region that nobody knows, lay far behind the end of the file: it grew to there.
#[test]
fn a_file_grows_by_what_is_written_and_not_to_where_a_stranger_points() {
    let far = file(&disk(8 * MIB).raw_bat(3, (5 << 40) | 6));
    let image = open(&far);
    let refused = image.write_at(&[5; 512], 0, &ZerosBelow).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);

    let guid = Uuid::from_u128(77);
    let mut region = disk(8 * MIB)
        .extra_region(ExtraRegion {
            guid,
            required: false,
            length_mib: 1,
            content: vec![1],
        })
        .build();
    for slot in [Slot::First, Slot::Second] {
        let at = slot.region_table_offset();
        let table = region.read(at, 64 << 10);
        let entry = table
            .windows(16)
            .position(|bytes| bytes == guid.to_bytes_le());
        region.write(at + entry.unwrap() as u64 + 16, &(3u64 << 40).to_le_bytes());
        region.reseal_region_table(slot);
    }
    let region = Arc::new(MemoryStorage::from(region.to_vec()));
    let before = region.len().unwrap();
    let image = open(&region);
    image.write_at(&[5; 512], 0, &ZerosBelow).unwrap();
    drop(image);
    assert!(region.len().unwrap() <= before + MIB);
}

/// Behind many gaps that were too small, a block at the very end of what 64 bits count made the place
/// of the next one 0, and a guest's bytes were written over the file type identifier.
#[test]
fn no_block_makes_the_end_of_the_file_its_beginning() {
    let count = 65_536;
    let mut builder = VhdxBuilder::new((count + 8) * 2 * MIB).block_size(2 << 20);
    let geometry = builder.geometry();
    let first = builder.build().len().div_ceil(MIB) + 1;
    for block in 0..count {
        let entry = ((first + 3 * block) << 20) | 6;
        builder = builder.raw_bat(geometry.payload_bat_index(block), entry);
    }
    let last = (((1 << 44) - 4) << 20) | 6;
    let file = file(&builder.raw_bat(geometry.payload_bat_index(count), last));
    let before = file.to_vec();
    let image = open(&file);
    let refused = image.write_at(&mebibytes(4), (count + 2) * 2 * MIB, &ZerosBelow);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
    drop(image);
    assert!(file.to_vec() == before);
}

/// What an entry behind the end of the disk referred to was given up when the disk got shorter, though
/// it was another block's.
#[test]
fn shrinking_gives_up_only_what_was_of_the_disk() {
    let builder = child(4 * MIB).block(1, full(1));
    let (_, entry) = again(&file(&builder)).bat_entry(1).unwrap().unwrap();
    let file = file(&builder.raw_bat(10, entry.0));
    let mut image = open(&file);
    let before = sector(&image, MIB).unwrap();
    image.resize(3 * MIB, 0).unwrap();
    image.flush().unwrap();
    assert_eq!(sector(&image, MIB).unwrap(), before);
}

/// A version of the log that nobody knows does not matter while there is no log. One was begun, and a
/// crash left a file that every reader refuses.
#[test]
fn a_log_that_is_begun_is_of_a_known_version() {
    let file = file(&disk(8 * MIB).log_version(7));
    let image = open(&file);
    image.write_at(&[5; 512], 0, &ZerosBelow).unwrap();
    image.flush().unwrap();
    let crashed = Arc::new(MemoryStorage::from(file.to_vec()));
    assert_eq!(sector(&again(&crashed), 0).unwrap(), [5; 512]);
}

/// One failed read of a BAT page made a repair give up a block of which nothing was lost.
#[test]
fn a_repair_gives_nothing_up_for_a_failed_read() {
    let builder = child(5 * GIB)
        .block(0, BlockContent::partial(BlockData::Pattern(3), 0..8))
        .raw_bat(6, (5 << 20) | 4);
    let right = sector(&again(&file(&builder)), 0).unwrap();
    let mut failed = 0;
    for nth in 1.. {
        let file = file(&builder);
        let faulty = FaultyStorage::new(file.clone());
        faulty.fail(Op::Read, nth, Fault::Io);
        let outcome = repair(faulty.clone(), &OpenOptions::read_only());
        assert_eq!(
            sector(&again(&file), 0).unwrap(),
            right,
            "read {nth}: {outcome:?}"
        );
        if !faulty.hit() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 5, "{failed}");
}

/// Each block of a discard looked at everything behind it: 32 GiB took 17 seconds.
#[test]
fn a_discard_costs_by_the_block() {
    let reads = |count: u64| {
        let mut builder = disk(count * MIB);
        let geometry = builder.geometry();
        let first = builder.build().len().div_ceil(MIB);
        for block in 0..count {
            let entry = ((first + block) << 20) | 6;
            builder = builder.raw_bat(geometry.payload_bat_index(block), entry);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let image = builder.file_len((first + count) * MIB).build();
        image.save(&path).unwrap();
        let file = FileStorage::open(&path, FileOptions::read_write()).unwrap();
        let storage = CountingStorage::new(Arc::new(file));
        let mut options = OpenOptions::read_write();
        // With room for few pages, each look at one is a read.
        options.limits.metadata_cache_bytes = 1;
        let image = VhdxImage::open(storage.clone(), &options).unwrap();
        image.discard(0, count * MIB, DiscardMode::Best).unwrap();
        storage.of(Op::Read).len()
    };
    assert!(reads(16_384) < 6 * reads(4096));
}

struct Panics;

impl Below for Panics {
    fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
        panic!("the parent's reader fails as a program")
    }
}

/// Whoever wanted a block that another request had come to grief over waited for ever.
#[test]
fn a_panic_below_keeps_nobody_waiting() {
    let file = file(&child(4 * MIB));
    let image = Arc::new(open(&file));
    let other = Arc::clone(&image);
    let outcome = thread::spawn(move || other.write_at(&[1; 100], 10, &Panics)).join();
    assert!(outcome.is_err());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(image.write_at(&[1; 100], 10, &ZerosBelow));
    });
    let outcome = told.recv_timeout(Duration::from_secs(20));
    outcome.expect("the block is free again").unwrap();
}

/// A parent's name that could not be written was refused, and written all the same with the next
/// flush, while the image went on as if it had not been.
#[test]
fn a_name_that_was_refused_does_not_come_true_later() {
    let builder = child(5 * GIB);
    let mut failed = 0;
    for nth in 1.. {
        let file = file(&builder);
        let faulty = FaultyStorage::new(file.clone());
        let mut image = VhdxImage::open(faulty.clone(), &OpenOptions::read_write()).unwrap();
        let linkage = image.parent_locator().unwrap().linkages()[0];
        image.write_at(&[1; 512], 0, &ZerosBelow).unwrap();
        faulty.fail(Op::Write, nth, Fault::NoSpace);
        let paths = ParentPaths::relative("other.vhdx").unwrap();
        let _ = image.relink(&ParentLink::new(ParentFormat::Vhdx, linkage, paths));
        let hit = faulty.hit();
        faulty.heal();
        let name = |image: &VhdxImage| {
            let locator = image.parent_locator().unwrap();
            locator.get("relative_path").map(str::to_owned)
        };
        let known = name(&image);
        let flushed = image.flush();
        drop(image);
        let there = name(&again(&file));
        match flushed {
            Ok(()) => assert_eq!(there, known, "write {nth}"),
            // The handle says that it does not know, and either may be.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Poisoned, "write {nth}"),
        }
        if !hit {
            break;
        }
        failed += 1;
    }
    assert!(failed > 1, "{failed}");
}
