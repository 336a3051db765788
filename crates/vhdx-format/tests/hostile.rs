//! Files made to harm: every number at its borders, every read failing, work and memory bounded.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::sync::Arc;
use std::time::Duration;

use blockdev_core::{
    BlockDevice, ErrorKind, Extents, Limits, LoneLayer, NameKind, OpenOptions, OverlayStorage,
    Storage,
};
use common::{KIB, MIB, Sparse, TIB, check, codes, index, memory, open, refused, replay, size};
use testkit::counting::{CountingStorage, Fault, FaultyStorage, Op};
use testkit::vhdx_builder::{
    BlockContent, BlockData, Damage, ExtraRegion, LogDamage, LogEntry, MetadataItem, ParentLocator,
    Slot, SparseImage, VhdxBuilder, chain_disk, ids,
};
use uuid::Uuid;
use vhdx_format::VhdxImage;

const SECOND: Duration = Duration::from_secs(1);

const SOME: Uuid = Uuid::from_u128(0x5EED_0001_0000_4000_8000_0000_0000_00AA);

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

/// A child with a bit of everything, its log dirty.
fn rich() -> VhdxBuilder {
    VhdxBuilder::child_of(&VhdxBuilder::new(6 * MIB), "p.vhdx")
        .block(0, full(1))
        .block(1, BlockContent::partial(BlockData::Pattern(2), 3..700))
        .block(2, BlockContent::Zero)
        .pending_block(3, full(3))
        .pending_block(
            4,
            BlockContent::partial(BlockData::Pattern(4), [0, 9, 2047]),
        )
        .metadata_item(MetadataItem::user(SOME, vec![7; 100]))
        .extra_region(ExtraRegion {
            guid: SOME,
            required: false,
            length_mib: 1,
            content: vec![1],
        })
}

/// Everything a reader can do with a file that may be refused at any point; nothing may panic, and
/// no run may take long or hold on to the storage.
fn use_it(image: SparseImage, what: &str) {
    let storage: Arc<dyn Storage> = Arc::new(Sparse(image));
    common::quickly(what, SECOND, || use_storage(&storage, what));
}

fn use_storage(storage: &Arc<dyn Storage>, what: &str) {
    match open(Arc::clone(storage)) {
        Ok(image) => {
            let disk = LoneLayer::new(Box::new(image));
            let mut buf = vec![0; 8192];
            let len = disk.size().min(8192);
            for at in [0, disk.size() / 2, disk.size() - len] {
                let len = len.min(disk.size() - at);
                let _ = disk.read_at(&mut buf[..index(len)], at);
            }
            for extent in Extents::new(&disk, 0, u64::MAX).take(100) {
                let Ok((at, run)) = extent else { break };
                assert!(run.len > 0 && at + run.len <= disk.size(), "{what}");
            }
        }
        Err(error) => {
            // A file's content is never the host's fault.
            assert_ne!(error.kind(), ErrorKind::Io, "{what}: {error}");
            assert!(
                error.location().is_some(),
                "{what}: {error} does not say where"
            );
        }
    }
    match vhdx_format::check(Arc::clone(storage), &OpenOptions::read_only()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotRecognised, "{what}: {error}"),
    }
    assert_eq!(Arc::strong_count(storage), 1, "{what}: leaked");
}

/// Values at which arithmetic goes wrong, for a field `width` bytes wide in a file of `len` bytes.
fn borders(width: usize, len: u64) -> Vec<u64> {
    let max = if width == 8 {
        u64::MAX
    } else {
        (1 << (8 * width)) - 1
    };
    let mut values = vec![
        0,
        1,
        2,
        3,
        7,
        8,
        511,
        512,
        513,
        4095,
        4096,
        4097,
        65_535,
        65_536,
        65_537,
        MIB - 1,
        MIB,
        MIB + 1,
        3 * MIB,
        256 * MIB,
        256 * MIB + 1,
        512 * MIB,
        len - 1,
        len,
        len + 1,
        len - MIB,
        len - 4096,
        u64::from(u32::MAX) - 4095,
        u64::from(u32::MAX) - (MIB - 1),
        u64::from(u32::MAX),
        1 << 32,
        64 * TIB,
        64 * TIB + 512,
        ((1 << 32) + 25) << 20,
        1 << 63,
        u64::MAX - 4095,
        u64::MAX - (MIB - 1),
        u64::MAX - 1,
        u64::MAX,
        max,
        max - 1,
        max / 2,
        max / 2 + 1,
        2047,
        2048,
        1024,
        1025,
    ];
    values.retain(|value| *value <= max);
    values.sort_unstable();
    values.dedup();
    values
}

/// Puts every border value into the field at `at`, lets `seal` make the checksums right, and uses
/// the image.
fn sweep(base: &SparseImage, fields: &[(&str, u64, usize)], seal: impl Fn(&mut SparseImage)) {
    for (name, at, width) in fields {
        for value in borders(*width, base.len()) {
            let mut image = base.clone();
            image.write(*at, &value.to_le_bytes()[..*width]);
            seal(&mut image);
            use_it(image, &format!("{name} = {value:#x}"));
        }
    }
}

#[test]
fn every_number_of_the_headers_at_its_borders() {
    let image = rich().build();
    let at = Slot::Second.header_offset();
    let fields = [
        ("Checksum", at + 4, 4),
        ("SequenceNumber", at + 8, 8),
        ("LogVersion", at + 64, 2),
        ("Version", at + 66, 2),
        ("LogLength", at + 68, 4),
        ("LogOffset", at + 72, 8),
    ];
    sweep(&image, &fields, |image| image.reseal_header(Slot::Second));
    // The same when the log is empty, so that what comes after it is reached.
    let clean = rich().log_guid(Uuid::nil()).build();
    sweep(&clean, &fields, |image| image.reseal_header(Slot::Second));
}

#[test]
fn every_number_of_the_region_table_at_its_borders() {
    let image = rich().build();
    let at = Slot::First.region_table_offset();
    let mut fields = vec![("EntryCount", at + 8, 4)];
    for entry in 0..3 {
        let entry = at + 16 + 32 * entry;
        fields.push(("FileOffset", entry + 16, 8));
        fields.push(("Length", entry + 24, 4));
        fields.push(("Required", entry + 28, 4));
    }
    sweep(&image, &fields, |image| {
        image.reseal_region_table(Slot::First)
    });
}

#[test]
fn every_number_of_the_metadata_table_and_its_items_at_its_borders() {
    let builder = rich();
    let (image, layout) = (builder.build(), builder.layout());
    let table = layout.metadata_offset;
    let mut fields = vec![("EntryCount", table + 10, 2)];
    for (n, entry) in layout.metadata_entries.iter().enumerate() {
        let at = table + 32 * (1 + n as u64);
        fields.push(("Offset", at + 16, 4));
        fields.push(("Length", at + 20, 4));
        fields.push(("Flags", at + 24, 4));
        let item = table + u64::from(entry.offset);
        match entry.id {
            ids::FILE_PARAMETERS => {
                fields.push(("BlockSize", item, 4));
                fields.push(("FileParameters flags", item + 4, 4));
            }
            ids::VIRTUAL_DISK_SIZE => fields.push(("VirtualDiskSize", item, 8)),
            ids::LOGICAL_SECTOR_SIZE => fields.push(("LogicalSectorSize", item, 4)),
            ids::PHYSICAL_SECTOR_SIZE => fields.push(("PhysicalSectorSize", item, 4)),
            ids::PARENT_LOCATOR => {
                fields.push(("KeyValueCount", item + 18, 2));
                for pair in 0..2 {
                    let pair = item + 20 + 12 * pair;
                    fields.push(("KeyOffset", pair, 4));
                    fields.push(("ValueOffset", pair + 4, 4));
                    fields.push(("KeyLength", pair + 8, 2));
                    fields.push(("ValueLength", pair + 10, 2));
                }
            }
            _ => {}
        }
    }
    sweep(&image, &fields, |_| {});
}

#[test]
fn every_kind_of_bat_entry_at_its_borders() {
    let builder = rich().log_guid(Uuid::nil());
    let (image, layout) = (builder.build(), builder.layout());
    let bitmap = layout.bat_entry_offset(builder.geometry().bitmap_bat_index(0));
    for entry in [
        layout.bat_entry_offset(0),
        layout.bat_entry_offset(1),
        bitmap,
    ] {
        for value in borders(8, image.len()) {
            for state in 0..8 {
                let mut image = image.clone();
                image.write(entry, &(value & !7 | state).to_le_bytes());
                use_it(image, &format!("BAT entry {value:#x} in state {state}"));
            }
        }
    }
}

#[test]
fn every_number_of_a_log_entry_at_its_borders() {
    let builder = rich();
    let (image, layout) = (builder.build(), builder.layout());
    let entry = layout.log_offset;
    let len = index(common::le64(&image.read(entry + 8, 8), 0) & 0xFFFF_FFFF);
    let mut fields = vec![
        ("Checksum", entry + 4, 4),
        ("EntryLength", entry + 8, 4),
        ("Tail", entry + 12, 4),
        ("SequenceNumber", entry + 16, 8),
        ("DescriptorCount", entry + 24, 4),
        ("FlushedFileOffset", entry + 48, 8),
        ("LastFileOffset", entry + 56, 8),
    ];
    for descriptor in 0..2 {
        let at = entry + 64 + 32 * descriptor;
        fields.push(("LeadingBytes or ZeroLength", at + 8, 8));
        fields.push(("descriptor's FileOffset", at + 16, 8));
        fields.push(("descriptor's SequenceNumber", at + 24, 8));
    }
    // The checksum over what the entry was long, and over what it now says.
    sweep(&image, &fields, |image| image.reseal(entry, len));
    sweep(&image, &fields, |image| {
        let says = index(common::le64(&image.read(entry + 8, 8), 0) & 0xFFFF_FFFF);
        if (64..=index(MIB)).contains(&says) {
            image.reseal(entry, says);
        }
    });
}

#[test]
fn a_file_cut_at_any_length_is_refused_or_read() {
    for builder in [rich(), rich().log_guid(Uuid::nil())] {
        let image = builder.build();
        let mut cuts: Vec<u64> = (0..=image.len() / MIB).map(|mib| mib * MIB).collect();
        cuts.extend([
            1,
            7,
            8,
            519,
            520,
            64 * KIB,
            68 * KIB,
            132 * KIB,
            193 * KIB,
            320 * KIB,
        ]);
        for cut in cuts.clone() {
            cuts.extend([
                cut.saturating_sub(1),
                cut + 1,
                cut + 4096,
                cut + 64 * KIB + 40,
            ]);
        }
        for cut in cuts.into_iter().filter(|cut| *cut < image.len()) {
            let mut cut_image = image.clone();
            cut_image.set_len(cut);
            use_it(cut_image, &format!("cut at {cut:#x}"));
        }
    }
}

#[test]
fn a_file_cut_inside_its_metadata_items_is_corrupt_and_checking_says_so() {
    // The check ended as if the host's disk had failed, and reported nothing.
    let builder = VhdxBuilder::new(4 * MIB);
    let builder = builder.area_order({
        use testkit::vhdx_builder::Area::{Bat, Blocks, Log, Metadata};
        [Log, Bat, Blocks, Metadata]
    });
    let mut image = builder.build();
    image.set_len(builder.layout().metadata_offset + 64 * KIB + 4);
    let report = check(image);
    assert!(
        codes(&report).contains(&"metadata-items"),
        "{:?}",
        report.findings
    );
    assert!(codes(&report).contains(&"region-outside-file"));
}

#[test]
fn a_locator_whose_pairs_share_their_text_does_not_fill_the_memory() {
    // 65,535 pairs that all point at the same 64 KiB: an item of 1 MiB made 12 GiB of strings.
    let pairs = 65_535usize;
    let text_at = 20 + 12 * pairs;
    let mut item = vec![b'a'; text_at + 65_534];
    item[..16].copy_from_slice(&ids::VHDX_LOCATOR_TYPE.to_bytes_le());
    item[16..18].fill(0);
    item[18..20].copy_from_slice(&u16::MAX.to_le_bytes());
    for pair in item[20..text_at].chunks_exact_mut(12) {
        let at = u32::try_from(text_at).unwrap().to_le_bytes();
        pair[..4].copy_from_slice(&at);
        pair[4..8].copy_from_slice(&at);
        pair[8..10].copy_from_slice(&65_534u16.to_le_bytes());
        pair[10..12].copy_from_slice(&65_534u16.to_le_bytes());
    }
    assert!(item.len() <= index(MIB));
    let builder = VhdxBuilder::new(4 * MIB).differencing(ParentLocator::from_raw(item));
    refused(&builder, ErrorKind::Corrupt, "more text");
}

#[test]
fn hostile_names_in_a_locator_lead_nowhere_and_are_kept_as_they_are() {
    let names = [
        "a\0b.vhdx",
        "a\nb",
        "\u{1b}[2J",
        "",
        "..\\..\\..\\etc\\passwd",
        "json:{\"driver\":\"nbd\"}",
        "nbd://host/export",
        "//server/share/x",
        "\u{202e}xdhv",
        "C:\\x",
        "\\\\?\\",
        "\\\\?\\UNC\\s\\x",
    ];
    for name in names {
        for key in ["relative_path", "volume_path", "absolute_win32_path"] {
            let locator = ParentLocator::new().linkage(SOME).pair(key, name);
            let builder = VhdxBuilder::new(4 * MIB).differencing(locator);
            let image = match common::built(&builder) {
                Ok(image) => image,
                Err(error) => {
                    assert!(
                        name.is_empty() && error.kind() == ErrorKind::Corrupt,
                        "{error}"
                    );
                    continue;
                }
            };
            let found = &blockdev_core::Layer::file_refs(&image)[0].names[0];
            assert_eq!(found.stored, name);
            if let Some(path) = &found.path {
                let path = path.to_str().unwrap();
                assert!(!path.contains(char::is_control), "{path:?}");
                assert!(
                    found.kind == NameKind::Relative || !path.starts_with("//"),
                    "{path:?}"
                );
            }
        }
    }
}

#[test]
fn text_that_is_not_utf_16_is_refused() {
    let lone = ParentLocator::new()
        .linkage(SOME)
        .pair_utf16("relative_path".encode_utf16().collect(), vec![0xD800, 0x41]);
    refused(
        &VhdxBuilder::new(4 * MIB).differencing(lone),
        ErrorKind::Corrupt,
        "UTF-16",
    );
    // The creator's name is for information only: nothing may depend on it.
    let mut image = VhdxBuilder::new(4 * MIB).build();
    image.write(8, &[0x00, 0xD8, 0x41, 0x00]);
    let image = open(Arc::new(Sparse(image))).unwrap();
    assert!(image.file_identifier().creator.starts_with("\u{FFFD}A"));
}

/// A log of `mib` MiB in which every sector begins an entry as long as the log, with the right
/// checksum, so that each must be read whole to be found wrong.
fn overlapping(mib: u32) -> SparseImage {
    let builder = VhdxBuilder::new(4 * MIB)
        .log_length_mib(mib)
        .log_entry(LogEntry::new(1));
    let (mut image, layout) = (builder.build(), builder.layout());
    let length = u64::from(mib) * MIB;
    for n in 0..length / 4096 {
        let mut header = image.read(layout.log_offset, 64);
        header[8..12].copy_from_slice(&(mib << 20).to_le_bytes());
        header[16..24].copy_from_slice(&(n + 1).to_le_bytes());
        // The body is never right: a descriptor is missing.
        header[24..28].copy_from_slice(&1u32.to_le_bytes());
        image.write(layout.log_offset + n * 4096, &header);
    }
    image
}

#[test]
fn a_log_of_overlapping_entries_is_read_a_few_times_and_not_once_for_each_sector() {
    // Work that grows with the square of the log: at 64 MiB, a terabyte of checksums.
    for mib in [1, 4, 64] {
        let storage = CountingStorage::new(memory(&overlapping(mib)));
        let error = common::quickly("opening", 2 * SECOND, || {
            storage.reset();
            open(storage.clone()).unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        let read = storage.bytes(Op::Read);
        assert!(
            read < u64::from(mib + 1) * 6 * MIB,
            "{read} bytes of {mib} MiB"
        );
    }
}

#[test]
fn a_log_of_thousands_of_valid_entries_is_searched_in_linear_time() {
    // Each entry is a start to search from; 16,384 of them in a row, and as many loose ones.
    for loose in [false, true] {
        let entries = (0..16_384u32).map(|n| {
            let entry = LogEntry::new(if loose {
                3 * u64::from(n) + 1
            } else {
                u64::from(n) + 1
            });
            entry.at(n * 4096).tail(0)
        });
        let builder = VhdxBuilder::new(4 * MIB)
            .log_length_mib(64)
            .log_entries(entries);
        let storage = memory(&builder.build());
        let image = common::quickly("opening", SECOND, || open(storage.clone()).unwrap());
        let entries = if loose { 1 } else { 16_384 };
        let expected = vhdx_format::LogState::ReplayedInMemory { entries };
        assert_eq!(image.log_state(), expected);
    }
}

#[test]
fn a_log_longer_than_the_limit_is_refused_before_it_is_read() {
    let builder = VhdxBuilder::new(4 * MIB)
        .log_length_mib(8)
        .log_entry(LogEntry::new(1));
    let mut limits = Limits::default();
    limits.log_bytes = 8 * MIB - 1;
    let options = OpenOptions::read_only().with_limits(limits);
    let error = VhdxImage::open(memory(&builder.build()), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    // A log of any length that is not to be replayed costs nothing.
    let clean = VhdxBuilder::new(4 * MIB).log_length_mib(512);
    assert!(VhdxImage::open(Arc::new(Sparse(clean.build())), &options).is_ok());
}

#[test]
fn file_lengths_that_a_log_claims_are_bounded() {
    let builder = VhdxBuilder::new(4 * MIB).block(0, full(1));
    let len = builder.build().len();
    for last in [1 << 63, u64::MAX, u64::MAX - (MIB - 1), 129 * TIB] {
        let claimed = builder
            .clone()
            .log_entry(LogEntry::new(1).file_offsets(len, last));
        refused(&claimed, ErrorKind::Corrupt, "LastFileOffset");
        let storage = memory(&claimed.build());
        assert_eq!(
            replay(storage.clone()).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(storage.len().unwrap(), len);
    }
    for (at, zeros) in [
        (len, u64::MAX),
        (u64::MAX - 4095, 4096),
        (1 << 63, 1 << 63),
        (len, 1 << 62),
    ] {
        let zeros = zeros & !4095;
        let huge = builder.clone().log_entry(LogEntry::new(1).zero(at, zeros));
        refused(&huge, ErrorKind::Corrupt, "128 TiB");
    }
}

#[test]
fn checking_an_image_whose_blocks_all_share_one_place_is_quick() {
    // Each of the blocks covers 256 units of the account: unit by unit that is 16 million steps
    // that a file of a few KiB on disk asks for. Two thousand regions were searched for each.
    let blocks = 65_536u64;
    let mut builder = VhdxBuilder::new(blocks * 256 * MIB).block_size(256 << 20);
    for n in 0..2000u128 {
        builder = builder.extra_region(ExtraRegion {
            guid: Uuid::from_u128(n + 1),
            required: false,
            length_mib: 1,
            content: Vec::new(),
        });
    }
    builder = builder.block(0, BlockContent::full(BlockData::Byte(0)));
    let place = builder.layout().blocks[&0];
    let geometry = builder.geometry();
    for block in 0..blocks {
        builder = builder.raw_bat(geometry.payload_bat_index(block), place | 6);
    }
    let image = builder.build();
    let report = common::quickly("checking", 2 * SECOND, || check(image.clone()));
    assert_eq!(report.corruptions, blocks - 1);
    assert_eq!(report.findings.len(), 10_000);
    // Each of the regions has its note.
    assert_eq!(report.suppressed, blocks - 1 + 2000 - 10_000);
}

#[test]
fn a_million_bad_entries_are_counted_quickly_though_few_are_told() {
    // A BAT of 8 MiB is small; what is said of it must not take longer than a second or two.
    let blocks = 1u64 << 20;
    let builder = VhdxBuilder::new(blocks * MIB);
    let (mut image, layout) = (builder.build(), builder.layout());
    let bad = 5u64.to_le_bytes().repeat(1 << 17);
    for mib in 0..8 {
        image.write(layout.bat_offset + mib * MIB, &bad);
    }
    let report = common::quickly("checking", 3 * SECOND, || check(image.clone()));
    assert!(report.corruptions > blocks / 2, "{}", report.corruptions);
    assert_eq!(report.findings.len(), 10_000);
}

#[test]
fn a_bat_with_one_entry_in_each_page_is_walked_in_linear_time() {
    // For each of its 512 entries a page was searched anew for a byte that is not 0.
    let blocks = 4u64 << 20;
    let builder = VhdxBuilder::new(blocks * MIB);
    let (mut image, layout) = (builder.build(), builder.layout());
    let pages = blocks / 512;
    for page in 0..pages {
        image.write(layout.bat_offset + page * 4096 + 4088, &[2]);
    }
    let image = open(Arc::new(Sparse(image))).unwrap();
    common::quickly("walking", SECOND, || {
        let indexes = image.bat_entries().map(|entry| entry.unwrap().0);
        assert!(indexes.eq((0..pages).map(|page| page * 512 + 511)));
    });
}

#[test]
fn blocks_spread_over_more_file_than_can_be_accounted_for_are_said_to_be_unchecked() {
    // The account is bounded; what it does not cover must not pass for checked.
    let spread = 131_074u64;
    let mut builder = VhdxBuilder::new(spread * MIB);
    for block in 0..spread {
        let index = builder.geometry().payload_bat_index(block);
        builder = builder.raw_bat(index, (block + 1) << 32 | 6);
    }
    let overlay = OverlayStorage::new(memory(&builder.build()), 0).unwrap();
    overlay.set_len((spread + 2) << 32).unwrap();
    let report = vhdx_format::check(Arc::new(overlay), &OpenOptions::read_only()).unwrap();
    assert_eq!(codes(&report), ["bat-overlap-unchecked"]);
    assert_eq!((report.warnings, report.allocated_blocks), (1, spread));
}

#[test]
fn a_failing_host_is_an_io_error_at_every_call_and_never_a_wrong_answer() {
    let clean = VhdxBuilder::new(6 * MIB)
        .block(0, full(1))
        .block(1, full(2))
        .block(4, full(3));
    let dirty = clean.clone().pending_block(2, full(4));
    for builder in [clean, dirty] {
        let image = memory(&builder.build());
        let right = chain_disk(&[&builder]);
        for op in [Op::Read, Op::Len, Op::Extent] {
            for (fault, from_then_on) in
                [(Fault::Io, false), (Fault::Short, false), (Fault::Io, true)]
            {
                for nth in 1.. {
                    let storage = FaultyStorage::new(image.clone());
                    if from_then_on {
                        storage.fail_from(op, nth, fault);
                    } else {
                        storage.fail(op, nth, fault);
                    }
                    read_everything(&storage, &right);
                    if !storage.hit() {
                        break;
                    }
                    assert_eq!(Arc::strong_count(&storage), 1);
                    assert!(nth < 1000);
                }
            }
        }
    }
}

fn read_everything(storage: &Arc<FaultyStorage>, right: &[u8]) {
    let io = |error: blockdev_core::Error| assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    match open(storage.clone()) {
        Ok(image) => {
            assert_eq!(size(&image), right.len() as u64);
            let disk = LoneLayer::new(Box::new(image));
            for (n, right) in right.chunks(700_000).enumerate() {
                let mut seen = vec![0xEE; right.len()];
                match disk.read_at(&mut seen, n as u64 * 700_000) {
                    Ok(()) => assert!(seen == right, "wrong bytes after a failure"),
                    Err(error) => io(error),
                }
            }
            Extents::new(&disk, 0, u64::MAX)
                .filter_map(Result::err)
                .for_each(io);
        }
        Err(error) => io(error),
    }
    match vhdx_format::check(storage.clone(), &OpenOptions::read_only()) {
        Ok(report) => assert!(report.is_clean(), "{:?}", report.findings),
        Err(error) => io(error),
    }
}

#[test]
fn a_failing_host_in_the_middle_of_a_replay_leaves_a_file_that_replays() {
    let builder = VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .pending_block(1, full(2))
        .pending_block(2, full(3));
    for op in [Op::Write, Op::SyncFull, Op::Read, Op::SetLen] {
        for fault in [Fault::Io, Fault::Short, Fault::NoSpace] {
            for nth in 1..100 {
                let image = memory(&builder.build());
                let storage = FaultyStorage::new(image.clone());
                storage.fail_from(op, nth, fault);
                let result = replay(storage.clone());
                if !storage.hit() {
                    break;
                }
                let error = result.map(drop).expect_err("a replay that failed says so");
                assert!(
                    matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace),
                    "{error}"
                );
                let image = open(image).unwrap_or_else(|e| panic!("{op:?} {nth}: {e}"));
                common::same_as_model(&image, &builder, 0, 4 * MIB);
            }
        }
    }
}

#[test]
fn a_failed_open_leaks_nothing_wherever_it_fails() {
    let failing = [
        VhdxBuilder::new(MIB)
            .damage_header(Slot::First, Damage::Zeroed)
            .damage_header(Slot::Second, Damage::Zeroed),
        VhdxBuilder::new(MIB).version(9),
        VhdxBuilder::new(MIB).log_guid(SOME),
        VhdxBuilder::new(MIB).log_entry(LogEntry::new(1).damage(LogDamage::Checksum)),
        VhdxBuilder::new(MIB).log_entry(LogEntry::new(1).zero(0, 4096)),
        VhdxBuilder::new(MIB).region_table(Vec::new()),
        VhdxBuilder::new(MIB).metadata_table(Vec::new()),
        VhdxBuilder::new(MIB).block_size(5),
        VhdxBuilder::new(MIB).bat_length(0),
        VhdxBuilder::new(MIB).has_parent(true),
        VhdxBuilder::new(MIB).differencing(ParentLocator::new()),
        VhdxBuilder::new(MIB)
            .pending_block(0, full(1))
            .virtual_size(513),
    ];
    for (n, builder) in failing.iter().enumerate() {
        let image = builder.build();
        let storage: Arc<dyn Storage> = memory(&image);
        assert!(open(Arc::clone(&storage)).is_err(), "{n}");
        assert!(replay(Arc::clone(&storage)).is_err(), "{n}");
        assert_eq!(Arc::strong_count(&storage), 1, "{n}");
        use_it(image, &format!("failing image {n}"));
    }
}
