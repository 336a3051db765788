//! New differencing images: what they say of their parent, what they take over from it, and what they
//! hold of a disk that differs from it.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::io::Write;
use std::sync::Arc;

use blockdev_core::{
    BlockDevice, BulkOptions, ByteRange, ContentId, ErrorKind, FileOptions, FileStorage,
    FormatDriver, Holes, Layer, LoneLayer, MemoryStorage, NameKind, NoProgress, OpenOptions,
    RawDriver, RawLayer, Recovery, Storage, bulk_copy, file_fingerprint,
};
use common::{MIB, built, index, memory, open};
use proptest::prelude::*;
use testkit::oracle::Libvhdi;
use testkit::vhdx_builder::{
    BlockContent, BlockData, ItemPlacement, MetadataItem, ParentLocator, VhdxBuilder, ids,
};
use vhdx_format::{
    BatSlot, CreateOptions, DiskType, InheritedItem, MetadataEntry, ParentFormat, ParentLink,
    ParentPaths, PayloadState, Uuid, VhdxImage, VhdxWriter, check, inspect, known,
};

const SOME: Uuid = Uuid::from_u128(0x5EED_0002_0000_4000_8000_0000_0000_00AA);
const OTHER: Uuid = Uuid::from_u128(0x5EED_0002_0000_4000_8000_0000_0000_00BB);

fn base() -> VhdxBuilder {
    VhdxBuilder::new(8 * MIB)
        .block_size(2 << 20)
        .logical_sector_size(4096)
        .physical_sector_size(4096)
        .block(1, BlockContent::full(BlockData::Pattern(1)))
}

fn paths() -> ParentPaths {
    ParentPaths::relative("../images/base.vhdx").unwrap()
}

/// An empty image by `options`.
fn made(options: CreateOptions) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::default());
    let writer = VhdxWriter::create(storage.clone(), options).unwrap();
    writer.finish().unwrap();
    storage
}

fn strict(storage: Arc<MemoryStorage>) -> VhdxImage {
    VhdxImage::open(storage, &OpenOptions::read_only().with_strict(true)).unwrap()
}

fn entry(image: &VhdxImage, id: Uuid) -> MetadataEntry {
    *image.metadata_table().find(id).unwrap()
}

/// The bytes of an item as they lie in the file.
fn item(storage: &dyn Storage, image: &VhdxImage, entry: &MetadataEntry) -> Vec<u8> {
    inspect::metadata_item(storage, image.metadata_table(), entry).unwrap()
}

fn refused(options: CreateOptions, told: &str) {
    let storage = Arc::new(MemoryStorage::default());
    let refused = VhdxWriter::create(storage.clone(), options).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{told}");
    assert!(refused.to_string().contains(told), "{told}: {refused}");
    assert!(storage.to_vec().is_empty(), "{told}");
}

#[test]
fn rule_26_the_locator_is_byte_for_byte_what_the_specification_says() {
    let paths = paths()
        .with_absolute("/srv/images/base.vhdx")
        .unwrap()
        .with_volume(r"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx");
    let options = CreateOptions::child_of(&built(&base()).unwrap(), paths).unwrap();
    let storage = made(options);
    let image = strict(storage.clone());
    let expected = ParentLocator::new()
        .linkage(ids::DEFAULT_DATA_WRITE)
        .relative_path(r"..\images\base.vhdx")
        .volume_path(r"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx")
        .absolute_win32_path("/srv/images/base.vhdx");
    let at = entry(&image, known::PARENT_LOCATOR);
    assert_eq!(item(&*storage, &image, &at), expected.encode());
    assert_eq!(
        (at.is_required, at.is_virtual_disk, at.is_user),
        (true, false, false)
    );

    let reference = &image.file_refs()[0];
    let names: Vec<_> = reference.names.iter().map(|name| name.kind).collect();
    assert_eq!(
        names,
        [NameKind::Relative, NameKind::Volume, NameKind::Absolute]
    );
    assert_eq!(reference.format.as_deref(), Some("vhdx"));
    let parent = ContentId(ids::DEFAULT_DATA_WRITE.into_bytes());
    assert_eq!(reference.expected, [parent]);
    assert_eq!(reference.logical_sector_size, Some(4096));
}

#[test]
fn rule_23_a_child_is_of_its_parents_disk_and_nothing_in_it_is_present() {
    let parent = built(&base()).unwrap();
    let storage = made(CreateOptions::child_of(&parent, paths()).unwrap());
    let image = strict(storage.clone());
    assert_eq!(image.disk_type(), DiskType::Differencing);
    let (own, parents) = (image.items(), parent.items());
    assert!(own.file_parameters.has_parent && !own.file_parameters.leave_block_allocated);
    assert_eq!(own.file_parameters.block_size, 2 << 20);
    assert_eq!(own.virtual_disk_size, 8 * MIB);
    assert_eq!(own.virtual_disk_id, parents.virtual_disk_id);
    assert_eq!(
        (own.logical_sector_size, own.physical_sector_size),
        (4096, 4096)
    );
    // The content is another file's, and may become another disk's.
    assert_ne!(
        image.header().file_write_guid,
        parent.header().file_write_guid
    );
    assert_ne!(
        image.header().data_write_guid,
        parent.header().data_write_guid
    );
    assert_eq!(image.bat_entries().count(), 0);
    assert_eq!(
        check(storage, &OpenOptions::read_only()).unwrap().findings,
        []
    );
}

#[test]
fn rule_23_unknown_items_of_the_virtual_disk_go_along_and_those_of_the_file_do_not() {
    let along = [
        MetadataItem::user(SOME, vec![7; 33]).virtual_disk(),
        // The same id as the user's is another item.
        MetadataItem::system(SOME, vec![8, 0, 9]).virtual_disk(),
        MetadataItem::user(OTHER, Vec::new()).virtual_disk(),
        // A user's item by the id of a known one is none of those.
        MetadataItem::user(ids::VIRTUAL_DISK_SIZE, vec![1, 2]).virtual_disk(),
    ];
    let stays = [
        MetadataItem::user(Uuid::from_u128(1), vec![1; 5]),
        MetadataItem::system(OTHER, vec![2; 5]),
    ];
    let parent = along
        .iter()
        .chain(&stays)
        .cloned()
        .fold(base(), VhdxBuilder::metadata_item);
    for placement in [
        ItemPlacement::Packed,
        ItemPlacement::Unaligned,
        ItemPlacement::Reversed,
    ] {
        let parent = built(&parent.clone().item_placement(placement)).unwrap();
        let options = CreateOptions::child_of(&parent, paths()).unwrap();
        let storage = made(options);
        let image = open(storage.clone()).unwrap();
        let entries = &image.metadata_table().entries;
        assert_eq!(entries.len(), 6 + along.len());
        for wanted in &along {
            let found = entries
                .iter()
                .find(|entry| (entry.item_id, entry.is_user) == (wanted.id, wanted.is_user))
                .unwrap();
            assert!(found.is_virtual_disk && !found.is_required);
            assert_eq!(item(&*storage, &image, found), wanted.data);
            assert_eq!(found.offset == 0, wanted.data.is_empty());
        }
        let report = check(storage, &OpenOptions::read_only()).unwrap();
        // That there are items it does not know is all there is to say.
        assert!(
            report
                .findings
                .iter()
                .all(|f| f.code == "metadata-optional-unknown")
        );
        // And from there to a grandchild, with a locator of its own.
        let grandchild = CreateOptions::child_of(&image, paths()).unwrap();
        assert_eq!(grandchild.inherited.len(), along.len());
        let grandchild = open(made(grandchild)).unwrap();
        let linkages = grandchild.parent_locator().unwrap().linkages();
        assert_eq!(linkages, [image.header().data_write_guid]);
        assert_eq!(grandchild.metadata_table().entries.len(), 6 + along.len());
    }
}

#[test]
fn many_inherited_bytes_get_a_longer_region_and_too_many_are_refused() {
    let long = |count: u8| {
        (0..count).fold(base(), |image, n| {
            let item = MetadataItem::user(Uuid::from_u128(n.into()), vec![n + 1; 900 << 10]);
            image.metadata_item(item.virtual_disk())
        })
    };
    let options = CreateOptions::child_of(&built(&long(3)).unwrap(), paths()).unwrap();
    let storage = made(options.clone());
    let image = strict(storage.clone());
    let entries = image.metadata_table().entries.iter();
    let inherited: Vec<_> = entries.filter(|entry| entry.is_user).collect();
    assert_eq!(inherited.len(), 3);
    for (n, entry) in inherited.into_iter().enumerate() {
        let bytes = item(&*storage, &image, entry);
        assert_eq!(bytes, vec![u8::try_from(n).unwrap() + 1; 900 << 10]);
    }
    assert_eq!(
        check(storage.clone(), &OpenOptions::read_only())
            .unwrap()
            .findings,
        []
    );
    assert_eq!(options.measure(0).unwrap().required, storage.len().unwrap());
    // What is allowed is 16 MiB.
    CreateOptions::child_of(&built(&long(18)).unwrap(), paths()).unwrap();
    let refused = CreateOptions::child_of(&built(&long(19)).unwrap(), paths()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_child_may_have_another_size_and_other_blocks() {
    let parent = built(&base()).unwrap();
    for (size, block) in [
        (4 * MIB, 1 << 20),
        (64 * MIB, 32 << 20),
        (8 * MIB, 256 << 20),
    ] {
        let mut options = CreateOptions::child_of(&parent, paths()).unwrap();
        options.virtual_size = size;
        options.block_size = block;
        let storage = made(options);
        let image = strict(storage.clone());
        assert_eq!(image.info().size, size);
        assert_eq!(image.info().block_size, Some(block));
        assert_eq!(
            check(storage, &OpenOptions::read_only()).unwrap().findings,
            []
        );
    }
}

#[test]
fn rule_28_sector_sizes_are_the_parents() {
    let parent = built(&base()).unwrap();
    let options = CreateOptions::child_of(&parent, paths()).unwrap();
    let mut logical = options.clone();
    logical.logical_sector_size = 512;
    refused(logical, "LogicalSectorSize is 512 over a parent of 4096");
    let mut physical = options.clone();
    physical.physical_sector_size = 512;
    refused(physical, "PhysicalSectorSize is 512 over a parent of 4096");
    made(options);
}

#[test]
fn what_a_child_cannot_be_is_refused_before_anything_is_written() {
    let parent = built(&base()).unwrap();
    let options = || CreateOptions::child_of(&parent, paths()).unwrap();
    let with = |change: &dyn Fn(&mut CreateOptions)| {
        let mut options = options();
        change(&mut options);
        options
    };
    let link = |change: &dyn Fn(&mut ParentLink)| {
        with(&|options| change(options.parent.as_mut().unwrap()))
    };
    let item = |item_id, is_user, len| InheritedItem {
        item_id,
        is_user,
        bytes: vec![1; len],
    };
    refused(with(&|o| o.fixed = true), "LeaveBlockAllocated");
    refused(link(&|l| l.paths = ParentPaths::default()), "every path");
    refused(
        link(&|l| l.paths.relative = Some(String::new())),
        "relative_path",
    );
    refused(link(&|l| l.paths.relative = Some("a\0b".into())), "NUL");
    let long = "x".repeat(32_768);
    refused(
        link(&|l| l.paths.absolute = Some(long.clone())),
        "32768 units",
    );
    let other = ParentFormat::Other("vhdx".into());
    refused(link(&|l| l.format = other.clone()), "parent_format");
    let empty = ParentFormat::Other(String::new());
    refused(link(&|l| l.format = empty.clone()), "parent_format");
    refused(
        link(&|l| {
            l.format = ParentFormat::Other("raw".into());
            l.paths.volume = Some(r"\\?\Volume{1}\base".into());
        }),
        "volume_path",
    );
    for items in [
        vec![item(SOME, true, 1), item(SOME, true, 2)],
        vec![item(known::VIRTUAL_DISK_ID, false, 16)],
    ] {
        refused(with(&|o| o.inherited.clone_from(&items)), "ItemID");
    }
    let many = |count: u128, is_user| {
        let ids = (0..count).map(Uuid::from_u128);
        let items: Vec<_> = ids.map(|id| item(id, is_user, 1)).collect();
        with(&|o| o.inherited.clone_from(&items))
    };
    refused(many(1025, true), "IsUser");
    refused(many(2042, false), "EntryCount");
    refused(
        with(&|o| o.inherited = vec![item(SOME, true, (1 << 20) + 1)]),
        "Length",
    );
    // The most that is allowed of each opens.
    for most in [
        many(1024, true),
        many(2041, false),
        link(&|l| l.paths.absolute = Some("x".repeat(32_767))),
        with(&|o| o.inherited = vec![item(SOME, true, 1 << 20), item(SOME, false, 1 << 20)]),
    ] {
        open(made(most)).unwrap();
    }
}

#[test]
fn a_parent_that_may_change_or_is_out_of_date_gets_no_child() {
    let storage = memory(&base().build());
    let writable = VhdxImage::open(storage, &OpenOptions::read_write()).unwrap();
    let refused = CreateOptions::child_of(&writable, paths()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");

    let dirty = base().pending_block(0, BlockContent::full(BlockData::Pattern(2)));
    let storage = memory(&dirty.build());
    let ignoring = OpenOptions::read_only().with_recovery(Recovery::Ignore);
    let ignored = VhdxImage::open(storage.clone(), &ignoring).unwrap();
    let refused = CreateOptions::child_of(&ignored, paths()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsRecovery, "{refused}");
    // Replayed in memory it is what it will be once it is replayed in the file.
    let replayed = open(storage.clone()).unwrap();
    let options = CreateOptions::child_of(&replayed, paths()).unwrap();
    let after = VhdxImage::open(storage, &OpenOptions::read_write()).unwrap();
    assert_eq!(
        options.parent.unwrap().linkage,
        after.header().data_write_guid
    );
}

#[test]
fn paths_that_a_locator_cannot_say_are_refused() {
    for bad in ["/srv/base", "", "a\nb"] {
        let refused = ParentPaths::relative(bad).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{bad:?}");
    }
    for bad in ["base", "", "/a\0b"] {
        let refused = paths().with_absolute(bad).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{bad:?}");
    }
    #[cfg(unix)]
    {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        ParentPaths::relative(r"a\b").unwrap_err();
        ParentPaths::relative(OsStr::from_bytes(b"a\xff")).unwrap_err();
    }
}

/// A raw file and its layer, opened for reading.
fn raw_file(bytes: &[u8]) -> (tempfile::NamedTempFile, Box<dyn Layer>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
    let storage = FileStorage::open(file.path(), FileOptions::read_only()).unwrap();
    let layer = open_raw(Arc::new(storage));
    (file, layer)
}

fn open_raw(storage: Arc<dyn Storage>) -> Box<dyn Layer> {
    RawDriver.open(storage, &OpenOptions::read_only()).unwrap()
}

#[test]
fn a_parent_of_another_format_has_a_locator_type_that_no_other_reader_knows() {
    let (_file, raw) = raw_file(&[5; 3000]);
    let paths = ParentPaths::relative("base.raw").unwrap();
    let paths = paths.with_absolute("/srv/base.raw").unwrap();
    let options = CreateOptions::child_of_other(&*raw, paths).unwrap();
    assert_eq!(options.virtual_size, 3072, "whole sectors");
    let storage = made(options);
    let image = open(storage.clone()).unwrap();
    let fingerprint = file_fingerprint(&*raw).unwrap().unwrap();
    let expected = ParentLocator::new()
        .locator_type(known::OTHER_PARENT_LOCATOR)
        .linkage(Uuid::from_bytes(fingerprint.0))
        .pair("parent_format", "raw")
        .relative_path("base.raw")
        .pair("absolute_path", "/srv/base.raw");
    let at = entry(&image, known::PARENT_LOCATOR);
    assert_eq!(item(&*storage, &image, &at), expected.encode());
    assert!(at.is_required);
    let reference = &image.file_refs()[0];
    assert_eq!(reference.format.as_deref(), Some("raw"));
    assert_eq!(reference.expected, [fingerprint]);
    let names: Vec<_> = reference
        .names
        .iter()
        .map(|name| (name.kind, &*name.stored))
        .collect();
    assert_eq!(
        names,
        [
            (NameKind::Relative, "base.raw"),
            (NameKind::Absolute, "/srv/base.raw")
        ]
    );

    let strict = OpenOptions::read_only().with_strict(true);
    let refused = VhdxImage::open(storage.clone(), &strict).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("extension"), "{refused}");
    let report = check(storage, &OpenOptions::read_only()).unwrap();
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["locator-extension"]);
    assert!(report.is_clean());
}

#[test]
fn a_parent_whose_changes_nobody_would_notice_gets_no_child() {
    let paths = || ParentPaths::relative("base").unwrap();
    let bytes = MemoryStorage::from(vec![0; 4096]);
    let memory = open_raw(Arc::new(bytes));
    let refused = CreateOptions::child_of_other(&*memory, paths()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    let (file, _) = raw_file(&[0; 4096]);
    let writable = FileStorage::open(file.path(), FileOptions::read_write()).unwrap();
    let writable = RawLayer::open(Arc::new(writable)).unwrap();
    let refused = CreateOptions::child_of_other(&writable, paths()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    let vhdx = built(&base()).unwrap();
    let refused = CreateOptions::child_of_other(&vhdx, paths()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    // Who answers for it says so.
    let mut options = CreateOptions::new(4096);
    let format = ParentFormat::Other("raw".into());
    options.parent = Some(ParentLink::new(format, SOME, paths()));
    let image = open(made(options)).unwrap();
    assert_eq!(
        image.file_refs()[0].expected,
        [ContentId(SOME.into_bytes())]
    );
}

// What is written over a disk below.

fn raw(bytes: &[u8]) -> LoneLayer {
    let storage = Arc::new(MemoryStorage::from(bytes.to_vec()));
    LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
}

/// Options of a child of anything.
fn over(size: u64, block_size: u32, sector: u32) -> CreateOptions {
    let mut options = CreateOptions::new(size.next_multiple_of(u64::from(sector)));
    options.block_size = block_size;
    options.logical_sector_size = sector;
    options.parent = Some(ParentLink::new(ParentFormat::Vhdx, SOME, paths()));
    options
}

fn written_over(source: &[u8], below: &[u8], options: CreateOptions) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::default());
    let below = raw(below);
    let writer = VhdxWriter::create_over(storage.clone(), options, &below).unwrap();
    let mut bulk = BulkOptions::default();
    bulk.workers = std::num::NonZeroUsize::new(3).unwrap();
    bulk_copy(&raw(source), &writer, &bulk, &NoProgress).unwrap();
    writer.finish().unwrap();
    storage
}

/// Bytes `range` of a disk, zeros past its end.
fn part(disk: &[u8], from: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let end = disk.len().min(from + len);
    if from < end {
        out[..end - from].copy_from_slice(&disk[from..end]);
    }
    out
}

/// What `image` holds, and from `below` what it does not.
fn merged(image: &VhdxImage, below: &[u8]) -> (Vec<u8>, Vec<ByteRange>) {
    let mut bytes = vec![0xEE; index(image.info().size)];
    let mut holes = Holes::new();
    image.read_at(&mut bytes, 0, &mut holes).unwrap();
    let holes: Vec<_> = holes.iter().collect();
    for hole in &holes {
        let (from, len) = (index(hole.start()), index(hole.len()));
        bytes[from..from + len].copy_from_slice(&part(below, from, len));
    }
    (bytes, holes)
}

/// The child of `source` over `below` is right, and as small as can be.
fn judge(source: &[u8], below: &[u8], block_size: u32, sector: u32) -> Vec<PayloadState> {
    let options = over(source.len() as u64, block_size, sector);
    let size = index(options.virtual_size);
    let storage = written_over(source, below, options);
    let image = strict(storage.clone());
    let (bytes, holes) = merged(&image, below);
    assert!(bytes == part(source, 0, size), "it reads as the source");
    assert_eq!(
        check(storage, &OpenOptions::read_only()).unwrap().findings,
        []
    );

    let mut states = Vec::new();
    for block in 0..image.geometry().payload_blocks() {
        let from = index(block) * block_size as usize;
        let len = (size - from).min(block_size as usize);
        let (own, parents) = (part(source, from, len), part(below, from, len));
        let sectors = own
            .chunks(sector as usize)
            .zip(parents.chunks(sector as usize));
        let differ: Vec<bool> = sectors.map(|(a, b)| a != b).collect();
        let expected = if !differ.contains(&true) {
            PayloadState::NotPresent
        } else if own.iter().all(|byte| *byte == 0) {
            PayloadState::Zero
        } else if !differ.contains(&false) {
            PayloadState::FullyPresent
        } else {
            PayloadState::PartiallyPresent
        };
        let (slot, entry) = image
            .bat_entry(image.geometry().payload_index(block))
            .unwrap()
            .unwrap();
        assert_eq!(slot, BatSlot::Payload { block });
        assert_eq!(entry.payload_state(), Some(expected), "block {block}");
        assert_eq!(
            entry.file_offset() != 0,
            matches!(
                expected,
                PayloadState::FullyPresent | PayloadState::PartiallyPresent
            )
        );
        if expected == PayloadState::PartiallyPresent {
            for (n, differs) in differ.iter().enumerate() {
                let at = (from + n * sector as usize) as u64;
                let hole = holes
                    .iter()
                    .any(|hole| hole.start() <= at && at < hole.end());
                assert_eq!(hole, !differs, "sector {n} of block {block}");
            }
        }
        states.push(expected);
    }
    states
}

/// A disk of `sectors` sectors that changes where `places` says: data, other data or zeros.
fn changed(from: &[u8], places: &[(usize, usize, u8)]) -> Vec<u8> {
    let mut bytes = from.to_vec();
    for (at, len, byte) in places {
        let end = (at + len).min(bytes.len());
        if *at < end {
            bytes[*at..end].fill(*byte);
        }
    }
    bytes
}

fn places() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    let len = prop_oneof![1usize..9000, (1usize..5).prop_map(|mib| mib << 20)];
    let at = prop_oneof![0usize..(6 << 20), (0usize..6).prop_map(|mib| mib << 20)];
    prop::collection::vec((at, len, prop_oneof![Just(0u8), 1u8..4]), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_child_holds_what_differs_and_nothing_else(
        below_len in 0usize..(6 << 20),
        source_len in 0usize..(6 << 20),
        first in places(),
        second in places(),
        block_shift in 20u32..23,
        large_sectors in any::<bool>(),
    ) {
        let below = changed(&vec![0; below_len], &first);
        let mut source = changed(&below, &second);
        source.resize(source_len, 0);
        let sector = if large_sectors { 4096 } else { 512 };
        judge(&source, &below, 1 << block_shift, sector);
    }
}

#[test]
fn every_state_comes_about() {
    let mib = 1usize << 20;
    let below = changed(&vec![0; 6 * mib], &[(0, 4 * mib, 1)]);
    let source = changed(
        &below,
        &[
            (mib, mib, 0),
            (2 * mib, mib, 2),
            (3 * mib + 512, 512, 0),
            (4 * mib + 700, 1, 3),
        ],
    );
    let states = judge(&source, &below, 1 << 20, 512);
    use PayloadState::{FullyPresent, NotPresent, PartiallyPresent, Zero};
    let expected = [
        NotPresent,
        Zero,
        FullyPresent,
        PartiallyPresent,
        PartiallyPresent,
        NotPresent,
    ];
    assert_eq!(states, expected);
    // The same in one block that is larger than a piece.
    assert_eq!(judge(&source, &below, 8 << 20, 512), [PartiallyPresent]);
    // Zeros over data, where the disk ends inside block and sector.
    assert_eq!(
        judge(&vec![0; mib + 700], &below, 1 << 20, 4096),
        [Zero, Zero]
    );
    assert_eq!(judge(&[2; 700], &below, 1 << 20, 512), [FullyPresent]);
}

#[test]
fn the_same_difference_gives_the_same_bytes_whatever_the_workers() {
    let below = changed(&vec![0; 24 << 20], &[(0, 20 << 20, 1)]);
    let source = changed(
        &below,
        &[(5000, 9000, 2), (7 << 20, 3 << 20, 0), (12 << 20, 1, 3)],
    );
    let mut options = over(24 * MIB, 2 << 20, 512);
    options.virtual_disk_id = Some(Uuid::from_u128(1));
    options.file_write_guid = Some(Uuid::from_u128(2));
    options.data_write_guid = Some(Uuid::from_u128(3));
    let written = |workers| {
        let storage = Arc::new(MemoryStorage::default());
        let below = raw(&below);
        let writer = VhdxWriter::create_over(storage.clone(), options.clone(), &below).unwrap();
        let mut bulk = BulkOptions::default();
        bulk.workers = std::num::NonZeroUsize::new(workers).unwrap();
        bulk_copy(&raw(&source), &writer, &bulk, &NoProgress).unwrap();
        writer.finish().unwrap();
        storage.to_vec()
    };
    let one = written(1);
    for workers in [2, 8] {
        assert!(written(workers) == one, "{workers} workers");
    }
}

#[test]
fn a_child_written_over_nothing_named_is_refused() {
    let storage = Arc::new(MemoryStorage::default());
    let below = raw(&[1; 4096]);
    let refused = VhdxWriter::create_over(storage, CreateOptions::new(4096), &below).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[test]
fn differences_are_stored_in_as_much_as_was_measured() {
    let below = changed(&vec![0; 6 << 20], &[(0, 6 << 20, 1)]);
    let source = changed(&below, &[(0, 1, 2), (2 << 20, 1 << 20, 2)]);
    let options = over(6 * MIB, 1 << 20, 512);
    let storage = written_over(&source, &below, options.clone());
    assert_eq!(options.measure(2).unwrap().required, storage.len().unwrap());
    let all = options.measure(u64::MAX).unwrap();
    assert_eq!(all.required, all.fully_allocated);
    assert_eq!(all.required, options.measure(0).unwrap().required + 7 * MIB);
}

/// libvhdi reads zero blocks of a child from its parent, so there are none.
#[test]
fn libvhdi_reads_a_child_that_holds_differences_as_the_disk_it_was_made_from() {
    let Some(vhdi) = Libvhdi::find() else { return };
    for sector in [512, 4096] {
        let parent = VhdxBuilder::new(6 * MIB)
            .logical_sector_size(sector)
            .physical_sector_size(4096);
        let parent = (0..5).fold(parent, |image, n| {
            image.block(n, BlockContent::full(BlockData::Pattern(n)))
        });
        let below = testkit::vhdx_builder::chain_disk(&[&parent]);
        let source = changed(
            &below,
            &[
                (10_000, 9_000, 2),
                ((1 << 20) + 4096, 4096, 0),
                (3 << 20, 1 << 20, 9),
            ],
        );
        let dir = tempfile::tempdir().unwrap();
        let (base, child) = (dir.path().join("base.vhdx"), dir.path().join("child.vhdx"));
        parent.build().save(&base).unwrap();
        let image = built(&parent).unwrap();
        let options = CreateOptions::child_of(&image, ParentPaths::relative("base.vhdx").unwrap());
        let storage = written_over(&source, &below, options.unwrap());
        std::fs::write(&child, storage.to_vec()).unwrap();
        let dump = dir.path().join("dump");
        let (size, _) = vhdi.dump(&[&child, &base], &dump).unwrap();
        assert_eq!(size, 6 * MIB);
        assert!(
            std::fs::read(&dump).unwrap() == source,
            "{sector}-byte sectors"
        );
    }
}

/// A disk above one chunk: the bitmap blocks lie where the interleaved BAT has room for them.
#[test]
fn differences_in_several_chunks_have_a_bitmap_block_each() {
    // A chunk is 4 GiB.
    let size = 9 << 30;
    let storage = Arc::new(MemoryStorage::default());
    let places = [0u64, (4 << 30) - MIB, 4 << 30, (8 << 30) + 5 * MIB];
    let source = Patches::new(size, &places, 512);
    let below = Patches::new(size, &[0], 0);
    let options = over(size, 1 << 20, 512);
    let writer = VhdxWriter::create_over(storage.clone(), options, &below).unwrap();
    bulk_copy(&source, &writer, &BulkOptions::default(), &NoProgress).unwrap();
    writer.finish().unwrap();
    assert_eq!(
        check(storage.clone(), &OpenOptions::read_only())
            .unwrap()
            .findings,
        []
    );
    let image = strict(storage);
    let bitmaps = image
        .bat_entries()
        .filter_map(|entry| match entry.unwrap() {
            (_, BatSlot::Bitmap { chunk }, _) => Some(chunk),
            _ => None,
        });
    assert_eq!(bitmaps.collect::<Vec<_>>(), [0, 1, 2]);
    for place in places {
        let mut bytes = vec![0xEE; 8192];
        let mut holes = Holes::new();
        image.read_at(&mut bytes, place, &mut holes).unwrap();
        let held = holes.iter().fold(vec![true; 16], |mut held, hole| {
            for sector in (hole.start() - place) / 512..(hole.end() - place) / 512 {
                held[index(sector)] = false;
            }
            held
        });
        let expected: Vec<bool> = (0..16).map(|n| n == 1 || place == 0 && n == 0).collect();
        assert_eq!(held, expected, "at {place:#x}");
        assert_eq!(bytes[512..1024], [7; 512]);
    }
}

/// A disk of zeros but for 512 bytes at some distance behind each of its places, and says so.
struct Patches {
    info: blockdev_core::DeviceInfo,
    places: Vec<u64>,
}

impl Patches {
    fn new(size: u64, places: &[u64], behind: u64) -> Self {
        let info = blockdev_core::DeviceInfo {
            size,
            read_only: true,
            ..raw(&[]).info().clone()
        };
        let places = places.iter().map(|place| place + behind).collect();
        Self { info, places }
    }
}

impl BlockDevice for Patches {
    fn info(&self) -> &blockdev_core::DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> blockdev_core::Result<()> {
        buf.fill(0);
        for place in &self.places {
            for at in *place..place + 512 {
                if let Some(within) = at.checked_sub(offset)
                    && let Some(byte) = buf.get_mut(index(within))
                {
                    *byte = 7;
                }
            }
        }
        Ok(())
    }

    fn block_status(&self, offset: u64, len: u64) -> blockdev_core::Result<blockdev_core::Extent> {
        use blockdev_core::{Extent, ExtentKind};
        let inside = self
            .places
            .iter()
            .find(|p| (**p..**p + 512).contains(&offset));
        if let Some(place) = inside {
            return Ok(Extent::new(ExtentKind::Data, len.min(place + 512 - offset)));
        }
        let next = self.places.iter().filter(|place| **place > offset).min();
        let run = next.map_or(len, |next| len.min(next - offset));
        Ok(Extent::new(ExtentKind::Zero, run))
    }

    fn write_at(&self, _: &[u8], _: u64) -> blockdev_core::Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn write_zeroes(
        &self,
        _: u64,
        _: u64,
        _: blockdev_core::ZeroFlags,
    ) -> blockdev_core::Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn discard(&self, _: u64, _: u64) -> blockdev_core::Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn flush(&self) -> blockdev_core::Result<()> {
        Ok(())
    }
}
