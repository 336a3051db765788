//! Reading: every type of disk in requests of every shape, and what it costs the host.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use blockdev_core::{
    BlockDevice, ErrorKind, Extent, ExtentKind, FileOptions, FileStorage, Holes, HostExtent,
    HostFile, Layer, LoneLayer, OpenOptions, PAGE_BYTES, PageCache, Result, Storage,
};
use common::{
    GIB, MIB, Sparse, TIB, built, disk, index, memory, open, read_own, same_as_model, size,
};
use proptest::prelude::*;
use testkit::conformance::{self, Model};
use testkit::counting::{CountingStorage, Op};
use testkit::vhdx_builder::{
    BlockContent, BlockData, Placement, SectorTruth, VhdxBuilder, chain_disk,
};
use uuid::Uuid;
use vhdx_format::{ReadSemantics, VhdxImage};

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

fn partial(seed: u64, present: impl IntoIterator<Item = u64>) -> BlockContent {
    BlockContent::partial(BlockData::Pattern(seed), present)
}

fn child(size: u64) -> VhdxBuilder {
    VhdxBuilder::child_of(&VhdxBuilder::new(size), "parent.vhdx")
}

#[test]
fn disks_of_every_type_behave_as_block_devices_must() {
    let dynamic = VhdxBuilder::new(9 * MIB + 512)
        .block(1, full(1))
        .block(2, full(2))
        .block(4, BlockContent::Zero)
        .block(6, BlockContent::Unmapped { kept: None })
        .block(9, full(3));
    let fixed = VhdxBuilder::new(3 * MIB).block(1, full(4)).fixed();
    let large_sectors = VhdxBuilder::new(12 * MIB)
        .logical_sector_size(4096)
        .block_size(4 << 20)
        .block(2, full(5));
    let empty = VhdxBuilder::new(5 * MIB);
    let dirty = dynamic
        .clone()
        .pending_block(3, full(6))
        .pending_block(1, BlockContent::Zero);
    for builder in [dynamic, fixed, large_sectors, empty, dirty] {
        let disk = disk(&builder);
        conformance::readable(&disk, &chain_disk(&[&builder]));
        conformance::refuses_changes(&disk);
    }
}

#[test]
fn a_child_that_holds_everything_behaves_as_a_block_device_must() {
    // All sectors present, though most blocks are partial: no byte is the parent's.
    let builder = child(4 * MIB)
        .block(0, full(1))
        .block(1, partial(2, 0..2048))
        .block(2, BlockContent::Zero)
        .block(3, partial(3, 0..2048));
    conformance::readable(&disk(&builder), &chain_disk(&[&builder]));
}

#[test]
fn a_disk_of_several_chunks_behaves_as_a_block_device_must() {
    let ratio = 4096;
    let builder = VhdxBuilder::new(9 * GIB)
        .block(0, full(1))
        .block(ratio - 1, full(2))
        .block(ratio, full(3))
        .block(2 * ratio, full(4))
        .block(9 * 1024 - 1, full(5));
    let model = builder.clone();
    let fill = move |buf: &mut [u8], offset: u64| {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = index(at % 512);
            let len = (512 - within).min(rest.len());
            let (part, after) = rest.split_at_mut(len);
            match model.expected_sector(at / 512) {
                SectorTruth::Own(bytes) => part.copy_from_slice(&bytes[within..within + len]),
                _ => part.fill(0),
            }
            (rest, at) = (after, at + len as u64);
        }
    };
    conformance::readable(&disk(&builder), &Model::new(9 * GIB, fill));
}

#[test]
fn a_child_alone_is_detached() {
    let builder = child(8 * MIB)
        .block(0, partial(1, (0..2048).filter(|n| n % 7 < 3)))
        .block(1, full(2))
        .block(4, partial(3, 1000..1001));
    let lacking = conformance::detached(&disk(&builder));
    let model: u64 = (0..8 * 2048)
        .filter(|lba| builder.expected_sector(*lba) == SectorTruth::FromParent)
        .count() as u64;
    assert_eq!(lacking, model * 512);
}

#[test]
fn runs_of_sectors_start_inside_bytes_and_cross_bytes_pages_and_blocks() {
    // Runs that a reader by whole bytes of the bitmap, or by whole blocks, gets wrong.
    let runs: [Range<u64>; 9] = [
        3..5,
        7..9,
        15..33,
        61..67,
        120..1300,
        1999..2048,
        0..1,
        2047..2048,
        8..16,
    ];
    for (n, run) in runs.iter().enumerate() {
        let builder = child(4 * MIB)
            .block(0, partial(1, run.clone()))
            .block(1, partial(2, (0..2048).filter(|s| !run.contains(s))))
            .block(2, partial(3, (0..2048).filter(|s| s % 2 == n as u64 % 2)));
        let image = built(&builder).unwrap();
        same_as_model(&image, &builder, 0, 4 * MIB);
        for border in [run.start, run.end, 2048 + run.start, 2048 + run.end] {
            for (back, len) in [(0, 1), (1, 2), (511, 1022), (513, 1025), (512, 512)] {
                let at = (border * 512).saturating_sub(back);
                same_as_model(&image, &builder, at, len);
            }
        }
    }
    // A block whose bits fill more than one page of the bitmap: 32 MiB are 65,536 sectors, 8 KiB.
    let wide = child(64 * MIB)
        .block_size(32 << 20)
        .block(0, partial(4, (30_000..40_000).chain(65_535..65_536)))
        .block(1, partial(5, (0..3).chain(32_768..32_769)));
    let image = built(&wide).unwrap();
    for lba in [
        29_999, 32_767, 32_768, 39_999, 65_535, 65_536, 65_538, 98_304,
    ] {
        same_as_model(&image, &wide, lba * 512 - 700, 2100);
    }
    let (_, holes) = read_own(&image, 30_000 * 512, 10_000 * 512);
    assert!(
        holes.is_empty(),
        "a run goes on from page to page of the bitmap"
    );
}

#[test]
fn raw_semantics_show_own_bytes_whatever_the_state_says_of_them() {
    let kept = |byte| Some(BlockData::Byte(byte));
    let builder = VhdxBuilder::new(6 * MIB)
        .block(0, full(1))
        .block(1, BlockContent::Undefined { kept: kept(0x11) })
        .block(2, BlockContent::Unmapped { kept: kept(0x33) })
        .block(3, BlockContent::Unmapped { kept: None })
        .block(4, BlockContent::Zero);
    let image = built(&builder).unwrap();
    let read = |semantics, block: u64| {
        let mut buf = [0xA7; 1000];
        let mut holes = Holes::new();
        image
            .read_own(&mut buf, block * MIB + 5, &mut holes, semantics)
            .unwrap();
        (buf, holes.is_empty())
    };
    for (block, effective, raw) in [(1, 0, 0x11), (2, 0, 0x33), (3, 0, 0), (4, 0, 0)] {
        assert_eq!(
            read(ReadSemantics::Effective, block),
            ([effective; 1000], true)
        );
        assert_eq!(read(ReadSemantics::Raw, block), ([raw; 1000], true));
    }
    assert_eq!(
        read(ReadSemantics::Raw, 0),
        read(ReadSemantics::Effective, 0)
    );
    assert!(
        !read(ReadSemantics::Raw, 5).1,
        "a block that was never there has no bytes"
    );
    let outside = image.read_own(
        &mut [0; 2],
        6 * MIB - 1,
        &mut Holes::new(),
        ReadSemantics::Raw,
    );
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::OutOfRange);

    // Of a partial block both views show the own sectors only.
    let child = child(2 * MIB).block(0, partial(1, 4..6));
    let image = built(&child).unwrap();
    let mut holes = Holes::new();
    image
        .read_own(&mut [0; 4096], 0, &mut holes, ReadSemantics::Raw)
        .unwrap();
    assert_eq!(holes.iter().map(|hole| hole.len()).sum::<u64>(), 6 * 512);
}

#[test]
fn a_window_of_sectors_reads_and_seeks_like_a_file() {
    for sector in [512u32, 4096] {
        let bytes = u64::from(sector);
        let builder = VhdxBuilder::new(4 * MIB)
            .logical_sector_size(sector)
            .block(1, full(1));
        let image = built(&builder).unwrap();
        let content = chain_disk(&[&builder]);
        let start = MIB / bytes - 2;
        let mut window = image.sector(start, 6).unwrap();
        assert_eq!((window.len(), window.is_empty()), (6 * bytes, false));
        let right = &content[index(start * bytes)..index((start + 6) * bytes)];
        let mut seen = Vec::new();
        assert_eq!(window.read_to_end(&mut seen).unwrap(), right.len());
        assert!(seen == right);
        assert_eq!(
            window.read(&mut [0; 10]).unwrap(),
            0,
            "at its end, not past it"
        );

        assert_eq!(window.seek(SeekFrom::Start(bytes + 3)).unwrap(), bytes + 3);
        let mut part = vec![0; index(2 * bytes)];
        window.read_exact(&mut part).unwrap();
        assert!(part == right[index(bytes + 3)..][..index(2 * bytes)]);
        assert_eq!(window.seek(SeekFrom::End(-5)).unwrap(), 6 * bytes - 5);
        assert_eq!(window.read(&mut [0; 10]).unwrap(), 5);
        assert_eq!(window.seek(SeekFrom::Current(-5)).unwrap(), 6 * bytes - 5);
        assert!(window.seek(SeekFrom::Current(i64::MIN)).is_err());
        assert_eq!(
            window.stream_position().unwrap(),
            6 * bytes - 5,
            "a failed seek moves nothing"
        );
        assert_eq!(window.seek(SeekFrom::Start(u64::MAX)).unwrap(), u64::MAX);
        assert_eq!(window.read(&mut [0; 10]).unwrap(), 0);

        let sectors = 4 * MIB / bytes;
        assert!(image.sector(sectors, 0).unwrap().is_empty());
        for (start, count) in [
            (sectors, 1),
            (0, sectors + 1),
            (u64::MAX, 1),
            (1, u64::MAX),
            (1 << 60, 1 << 60),
        ] {
            assert_eq!(
                image.sector(start, count).unwrap_err().kind(),
                ErrorKind::OutOfRange
            );
        }
    }
}

#[test]
fn a_window_over_what_the_parent_holds_says_so() {
    let builder = child(2 * MIB).block(0, partial(1, 0..4)).block(
        1,
        BlockContent::Unmapped {
            kept: Some(BlockData::Byte(5)),
        },
    );
    let image = built(&builder).unwrap();
    let mut buf = [0; 512];
    image.sector(3, 1).unwrap().read_exact(&mut buf).unwrap();
    let error = image.sector(4, 1).unwrap().read(&mut buf).unwrap_err();
    let inner = error
        .get_ref()
        .unwrap()
        .downcast_ref::<blockdev_core::Error>()
        .unwrap();
    assert_eq!(inner.kind(), ErrorKind::NeedsParent);
    let window = image.sector(2048, 1).unwrap();
    window
        .with_semantics(ReadSemantics::Raw)
        .read_exact(&mut buf)
        .unwrap();
    assert_eq!(buf, [5; 512]);
}

/// An image over a storage that counts, its counters at zero.
fn counted(builder: &VhdxBuilder) -> (Arc<CountingStorage>, VhdxImage) {
    let storage = CountingStorage::new(memory(&builder.build()));
    let image = open(storage.clone()).unwrap();
    storage.reset();
    (storage, image)
}

#[test]
fn a_read_of_1_mib_from_a_contiguous_block_is_one_host_read_and_one_page_the_first_time() {
    // vhdx-rs took 86 ms for it through one parent: each sector read its metadata anew.
    let builder = VhdxBuilder::new(8 * MIB).block(2, full(1));
    let (storage, image) = counted(&builder);
    let mut buf = vec![0; index(MIB)];
    for pages in [1, 0] {
        storage.reset();
        image.read_at(&mut buf, 2 * MIB, &mut Holes::new()).unwrap();
        let reads = storage.of(Op::Read);
        let data: Vec<_> = reads.iter().filter(|read| read.len == MIB).collect();
        assert_eq!(data.len(), 1);
        assert_eq!(data[0].offset, builder.layout().blocks[&2]);
        assert_eq!(reads.len(), 1 + pages, "{reads:?}");
    }
}

#[test]
fn a_run_over_physically_adjacent_blocks_is_one_host_read_and_over_others_one_for_each() {
    let blocks = VhdxBuilder::new(8 * MIB)
        .block(2, full(1))
        .block(3, full(2))
        .block(4, full(3));
    for (placement, runs) in [
        (Placement::Sequential, 1),
        (Placement::Reverse, 3),
        (Placement::Gaps(1), 3),
    ] {
        let builder = blocks.clone().placement(placement);
        let (storage, image) = counted(&builder);
        let mut buf = vec![0; index(2 * MIB)];
        for _ in 0..2 {
            storage.reset();
            image
                .read_at(&mut buf, 5 * MIB / 2, &mut Holes::new())
                .unwrap();
        }
        assert_eq!(storage.count(Op::Read), runs, "{placement:?}");
        assert_eq!(storage.bytes(Op::Read), 2 * MIB);
        let run = image.next_extent(2 * MIB, 6 * MIB).unwrap();
        assert_eq!(run.len, if runs == 1 { 3 * MIB } else { MIB });
    }
}

#[test]
fn a_partially_present_block_is_read_run_by_run_not_sector_by_sector() {
    let builder = child(4 * MIB).block(1, partial(1, (100..900).chain(1000..1001)));
    let (storage, image) = counted(&builder);
    let mut buf = vec![0; index(MIB)];
    for _ in 0..2 {
        storage.reset();
        let mut holes = Holes::new();
        image.read_at(&mut buf, MIB, &mut holes).unwrap();
        assert_eq!(holes.iter().count(), 3);
    }
    let reads: Vec<_> = storage.of(Op::Read).iter().map(|read| read.len).collect();
    assert_eq!(reads, [800 * 512, 512]);
}

#[test]
fn zeros_and_holes_cost_no_host_read_once_their_page_is_known() {
    let builder = child(8 * MIB).block(1, BlockContent::Zero);
    let (storage, image) = counted(&builder);
    let mut buf = vec![0; index(8 * MIB)];
    image.read_at(&mut buf, 0, &mut Holes::new()).unwrap();
    storage.reset();
    image.read_at(&mut buf, 0, &mut Holes::new()).unwrap();
    assert_eq!(storage.count(Op::Read), 0);
}

#[test]
fn an_empty_disk_of_64_tib_is_mapped_in_a_few_host_reads_and_a_few_pages() {
    // 512 MiB of BAT that is all hole: read page by page it would be 131,072 reads.
    let builder = VhdxBuilder::new(64 * TIB).block(40_000_000, full(1));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vhdx");
    builder.build().save(&path).unwrap();
    let file = Arc::new(FileStorage::open(&path, FileOptions::read_only()).unwrap());
    let storage = CountingStorage::new(file);
    let cache = PageCache::new(1 << 20);
    let options = OpenOptions::read_only().with_cache(Arc::clone(&cache));
    let image = VhdxImage::open(storage.clone(), &options).unwrap();
    let used: Vec<_> = image.bat_entries().map(|entry| entry.unwrap().0).collect();
    assert_eq!(used, [builder.geometry().payload_bat_index(40_000_000)]);
    let disk = LoneLayer::new(Box::new(image));
    let runs: Vec<_> = disk.extents(0, u64::MAX).map(|run| run.unwrap()).collect();
    let kinds: Vec<_> = runs.iter().map(|(start, run)| (*start, run.kind)).collect();
    let at = 40_000_000 * MIB;
    let expected = [
        (0, ExtentKind::Absent),
        (at, ExtentKind::Data),
        (at + MIB, ExtentKind::Absent),
    ];
    assert_eq!(kinds, expected);
    drop(vhdx_format::check(storage.clone(), &options).unwrap());
    let reads = storage.count(Op::Read);
    assert!(reads < 200, "{reads} host reads");
    assert!(cache.pages() * PAGE_BYTES <= 1 << 20);
}

/// A file whose host stores units of `unit` bytes and nothing for those that are zeros.
#[derive(Debug)]
struct Holey {
    bytes: Vec<u8>,
    unit: usize,
}

impl Storage for Holey {
    fn len(&self) -> Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        buf.copy_from_slice(&self.bytes[index(offset)..][..buf.len()]);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        let first = index(offset) / self.unit;
        let mut units = self.bytes[first * self.unit..].chunks(self.unit);
        let zeros = |unit: &[u8]| unit.iter().all(|byte| *byte == 0);
        let allocated = !zeros(units.next().unwrap());
        let more = units.take_while(|unit| zeros(unit) != allocated).count();
        let end = ((first + 1 + more) * self.unit).min(self.bytes.len());
        let len = end as u64 - offset;
        Ok(HostExtent { len, allocated })
    }
}

#[test]
fn host_holes_of_any_alignment_hide_no_entry_of_the_bat() {
    // What is skipped is skipped by whole pages; an entry lost at the edge of a hole would be a
    // block that reads as zeros.
    let blocks = 1u64 << 17;
    let mut rng = testkit::Rng::new(4);
    let mut edges = vec![0, 1, 511, 512, 513, 8191, 8192, 16_383, 65_536, blocks - 1];
    edges.extend((0..40).map(|_| rng.below(blocks)));
    edges.extend((0..40).map(|_| rng.below(blocks) / 512 * 512));
    edges.sort_unstable();
    edges.dedup();
    let mut builder = VhdxBuilder::new(blocks * MIB);
    for block in &edges {
        builder = builder.block(*block, BlockContent::Zero);
    }
    let right: Vec<_> = edges
        .iter()
        .map(|b| builder.geometry().payload_bat_index(*b))
        .collect();
    let bytes = builder.build().to_vec();
    for unit in [512, 1000, 4096, 4097, 65_536] {
        let bytes = bytes.clone();
        let image = open(Arc::new(Holey { bytes, unit })).unwrap();
        let seen: Vec<_> = image.bat_entries().map(|entry| entry.unwrap().0).collect();
        assert_eq!(seen, right, "bat_entries, units of {unit}");
        let disk = LoneLayer::new(Box::new(image));
        let zeros: Vec<_> = disk
            .extents(0, u64::MAX)
            .map(|run| run.unwrap())
            .filter(|(_, run)| run.kind == ExtentKind::Zero)
            .flat_map(|(start, run)| start / MIB..(start + run.len) / MIB)
            .collect();
        assert_eq!(zeros, edges, "extents, units of {unit}");
    }
}

#[test]
fn a_tiny_page_cache_slows_reading_down_and_changes_nothing() {
    let builder = child(64 * MIB)
        .block(0, partial(1, 0..1000))
        .block(20, partial(2, 7..70))
        .block(63, partial(3, 2000..2048));
    let cache = PageCache::new(0);
    let options = OpenOptions::read_only().with_cache(Arc::clone(&cache));
    let image = VhdxImage::open(Arc::new(Sparse(builder.build())), &options).unwrap();
    for block in [0, 20, 63, 0, 63, 20] {
        same_as_model(&image, &builder, block * MIB, MIB);
    }
    assert!(cache.pages() <= 16);
    drop(image);
    assert_eq!(cache.pages(), 0, "a closed image keeps no page");
}

#[test]
fn many_threads_read_one_image_at_once() {
    let builder = child(16 * MIB)
        .block(0, full(1))
        .block(1, partial(2, (0..2048).filter(|n| n % 5 == 0)))
        .block(3, BlockContent::Zero)
        .block(9, partial(3, 17..1999))
        .pending_block(11, full(4));
    let options = OpenOptions::read_only().with_cache(PageCache::new(0));
    let image = VhdxImage::open(memory(&builder.build()), &options).unwrap();
    let (image, builder) = (&image, &builder);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                let mut rng = testkit::Rng::new(thread);
                for _ in 0..200 {
                    let at = rng.below(16 * MIB - 9000);
                    same_as_model(image, builder, at, rng.below(9000));
                }
            });
        }
    });
}

#[test]
fn the_host_file_of_a_read_only_image_cannot_be_changed_through_it() {
    // Whoever copies from it by place gets the file with it, and the file itself may be writable.
    for builder in [
        VhdxBuilder::new(MIB),
        VhdxBuilder::new(MIB).pending_block(0, full(1)),
    ] {
        let storage = memory(&builder.build());
        let before = storage.to_vec();
        let image = open(storage.clone()).unwrap();
        let host = image.host(HostFile::Image).unwrap();
        assert!(host.is_read_only());
        for change in [
            host.write_at(&[1], 0),
            host.set_len(0),
            host.punch_hole(0, MIB),
            host.zero_range(0, 1),
        ] {
            assert_eq!(change.unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        assert!(image.host(HostFile::Data).is_none());
        assert!(storage.to_vec() == before);
    }
}

#[test]
fn the_medium_is_given_back_as_it_was_given() {
    let storage = memory(&VhdxBuilder::new(4 * MIB).pending_block(0, full(1)).build());
    let before = storage.to_vec();
    let image = open(storage.clone()).unwrap();
    let medium: Arc<dyn Storage> = image.into_medium();
    drop(storage);
    assert_eq!(Arc::strong_count(&medium), 1);
    let mut after = vec![0; before.len()];
    medium.read_at(&mut after, 0).unwrap();
    assert!(after == before);
    assert!(!medium.is_read_only(), "the shield stays behind");
}

/// What a random block is.
fn content(sectors: u64) -> impl Strategy<Value = BlockContent> {
    let data = || any::<u64>().prop_map(BlockData::Pattern);
    let kept = || proptest::option::of(data());
    let runs = prop::collection::vec((0..sectors, 1..sectors / 2), 0..6);
    prop_oneof![
        Just(BlockContent::Zero),
        Just(BlockContent::NotPresent),
        kept().prop_map(|kept| BlockContent::Undefined { kept }),
        kept().prop_map(|kept| BlockContent::Unmapped { kept }),
        data().prop_map(BlockContent::FullyPresent),
        (data(), runs).prop_map(move |(data, runs)| {
            let present = runs
                .into_iter()
                .flat_map(|(start, len)| start..(start + len).min(sectors));
            BlockContent::partial(data, present)
        }),
    ]
}

fn image() -> impl Strategy<Value = VhdxBuilder> {
    let shape = (
        any::<bool>(),
        any::<bool>(),
        20u32..23,
        1u64..40,
        0u64..3000,
    );
    shape.prop_flat_map(|(is_child, large, shift, blocks, sectors)| {
        let sector = if large { 4096u32 } else { 512 };
        let per_block = (1u64 << shift) / u64::from(sector);
        // Some disks end inside a block, some lie around the end of the first chunk.
        let size = (blocks << shift) - sectors.min(per_block - 1) * u64::from(sector);
        let places = [
            Placement::Sequential,
            Placement::Reverse,
            Placement::Gaps(1),
        ];
        let filled = prop::collection::vec((0..blocks, content(per_block)), 0..8);
        (filled, prop::sample::select(places.to_vec()), any::<bool>()).prop_map(
            move |(filled, placement, dirty)| {
                let parent = VhdxBuilder::new(size);
                let mut builder = if is_child {
                    VhdxBuilder::child_of(&parent, "p.vhdx")
                } else {
                    parent
                };
                builder = builder
                    .logical_sector_size(sector)
                    .block_size(1 << shift)
                    .placement(placement);
                for (n, (block, content)) in filled.into_iter().enumerate() {
                    if !is_child && matches!(content, BlockContent::PartiallyPresent { .. }) {
                        continue;
                    }
                    builder = if dirty && n % 2 == 1 {
                        builder.pending_block(block, content)
                    } else {
                        builder.block(block, content)
                    };
                }
                // A pending block that is what it was before leaves a log with nothing in it.
                if builder.pending_log_entries().is_empty() {
                    builder = builder.log_guid(Uuid::nil());
                }
                builder
            },
        )
    })
}

fn kind_of(builder: &VhdxBuilder, lba: u64) -> ExtentKind {
    match builder.expected_sector(lba) {
        SectorTruth::Own(_) => ExtentKind::Data,
        SectorTruth::FromParent => ExtentKind::Absent,
        SectorTruth::Zero => ExtentKind::Zero,
    }
}

/// The runs of the image cover it, agree with the model, and with what short questions are told.
fn extents_agree(image: &VhdxImage, builder: &VhdxBuilder) {
    let sector = builder.geometry().sector_size;
    let has_parent = image.items().file_parameters.has_parent;
    let mut at = 0;
    let mut last: Option<Extent> = None;
    while at < size(image) {
        let run = image.next_extent(at, size(image) - at).unwrap();
        assert!(run.len > 0 && at + run.len <= size(image));
        if let Some(last) = last {
            assert!(!last.joins(&run), "two runs at {at:#x} are one");
        }
        let step = (run.len / sector / 64).max(1);
        let sectors = (at / sector..(at + run.len).div_ceil(sector)).step_by(index(step));
        for lba in sectors.chain([(at + run.len - 1) / sector]) {
            let kind = kind_of(builder, lba);
            // What is not present reads as zeros where there is no parent.
            let same = run.kind == kind
                || !has_parent && run.kind == ExtentKind::Absent && kind == ExtentKind::Zero;
            assert!(same, "{:?} at sector {lba}, expected {kind:?}", run.kind);
            let short = image
                .next_extent(lba * sector, sector.min(size(image) - lba * sector))
                .unwrap();
            assert_eq!(short.kind, run.kind);
            if let (Some(short), Some(run)) = (short.host, run.host) {
                assert_eq!(short.offset - run.offset, lba * sector - at);
            }
        }
        (at, last) = (at + run.len, Some(run));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_images_read_as_their_model_says(
        builder in image(),
        requests in prop::collection::vec((any::<u64>(), 0u64..200_000), 20),
    ) {
        let image = built(&builder).unwrap();
        let size = size(&image);
        for (at, len) in requests {
            let at = at % (size + 1);
            same_as_model(&image, &builder, at, len.min(size - at));
        }
        extents_agree(&image, &builder);
        let report = common::check(builder.build());
        prop_assert!(report.is_clean() && report.warnings == 0, "{:#?}", report.findings);
    }
}
