//! The rules of [MS-VHDX] §2.3 on the log: which entries count, and what replay does to the file.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::sync::Arc;

use blockdev_core::{
    BlockDevice, ErrorKind, FileOptions, FileStorage, LoneLayer, MemoryStorage, OpenOptions,
    Recovery, Storage,
};
use common::{
    Change, KIB, MIB, Recorder, built, index, le64, memory, open, refused, replay, same_as_model,
    with,
};
use testkit::counting::{CountingStorage, Op};
use testkit::vhdx_builder::{
    Area, BlockContent, BlockData, Damage, Descriptor, LogDamage, LogEntry, PendingLog, Slot,
    VhdxBuilder, chain_disk, ids, log_sequence,
};
use uuid::Uuid;
use vhdx_format::{LogState, VhdxImage, inspect};

const LOG: u32 = 1 << 20;

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

/// A dirty disk: block 0 is in place, the entries of blocks 1 and 2 are in the log only.
fn dirty() -> VhdxBuilder {
    VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .pending_block(1, full(2))
        .pending_block(2, BlockContent::Zero)
}

/// A dirty child, whose sector bitmap is born in the log.
fn dirty_child() -> VhdxBuilder {
    VhdxBuilder::child_of(&VhdxBuilder::new(4 * MIB), "p.vhdx")
        .block(0, full(1))
        .pending_block(1, BlockContent::partial(BlockData::Pattern(2), 3..700))
        .pending_block(2, full(4))
        .pending_block(3, BlockContent::partial(BlockData::Pattern(3), [0, 2047]))
}

/// Opened read-only and in a writable copy, the image shows what its builder says.
fn shows_its_model(builder: &VhdxBuilder) {
    let size = builder.geometry().virtual_size;
    let image = built(builder).unwrap();
    assert!(matches!(
        image.log_state(),
        LogState::ReplayedInMemory { .. }
    ));
    same_as_model(&image, builder, 0, size);
    let storage = memory(&builder.build());
    let image = replay(storage.clone()).unwrap();
    assert!(matches!(image.log_state(), LogState::Replayed { .. }));
    same_as_model(&image, builder, 0, size);
    drop(image);
    let again = VhdxImage::open(storage, &with(Recovery::Refuse)).unwrap();
    same_as_model(&again, builder, 0, size);
}

#[test]
fn rule_14_a_read_only_open_shows_what_is_in_the_log_and_writes_nothing() {
    // QEMU refuses such files read-only; vhdx-rs's overlay returned zeros.
    for builder in [dirty(), dirty_child()] {
        let storage = CountingStorage::new(memory(&builder.build()));
        let image = open(storage.clone()).unwrap();
        same_as_model(&image, &builder, 0, 4 * MIB);
        assert!(storage.changes().is_empty());
        let syncs = storage.count(Op::SyncData) + storage.count(Op::SyncFull);
        assert_eq!(syncs, 0);
    }
}

#[test]
fn rule_14_without_replay_the_file_shows_what_lies_in_place() {
    let image = VhdxImage::open(memory(&dirty().build()), &with(Recovery::Ignore)).unwrap();
    assert_eq!(image.log_state(), LogState::Ignored);
    let disk = LoneLayer::new(Box::new(image));
    let mut seen = vec![9; index(4 * MIB)];
    disk.read_at(&mut seen, 0).unwrap();
    let in_place = VhdxBuilder::new(4 * MIB).block(0, full(1));
    assert!(seen == chain_disk(&[&in_place]));
}

#[test]
fn contradictory_options_are_refused_before_anything_is_read() {
    let storage = CountingStorage::new(memory(&dirty().build()));
    for recovery in [Recovery::InMemory, Recovery::Ignore] {
        let options = OpenOptions::read_write().with_recovery(recovery);
        let error = VhdxImage::open(storage.clone(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let shielded = blockdev_core::ReadOnlyStorage::new(memory(&dirty().build()));
    let error = replay(Arc::new(shielded)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    for options in [
        with(Recovery::Refuse),
        OpenOptions::read_write().with_recovery(Recovery::Refuse),
    ] {
        let error = VhdxImage::open(storage.clone(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsRecovery);
    }
    assert!(storage.changes().is_empty());
}

#[test]
fn rule_12_a_log_wraps_between_entries_and_inside_an_entry_at_every_sector() {
    // vhdx-rs lost the newest entry of a log that had gone round; QEMU's own tests have none that
    // wraps inside an entry.
    for per_entry in [1, 2, usize::MAX] {
        for back in 0..8 {
            let log = PendingLog {
                start: (LOG - back * 4096) % LOG,
                descriptors_per_entry: per_entry,
                first_sequence: u64::MAX - 100,
                ..PendingLog::default()
            };
            shows_its_model(&dirty_child().pending_log(log));
        }
    }
}

#[test]
fn rule_12_an_entry_may_begin_with_hundreds_of_descriptors_and_wrap_among_them() {
    let mut entry = LogEntry::new(3);
    for n in 0..200u64 {
        entry = entry.data(
            3 * MIB + 4096 * (n % 250),
            vec![u8::try_from(n).unwrap(); 4096],
        );
    }
    for back in [1, 2, 3, 50, 201] {
        let builder = VhdxBuilder::new(4 * MIB)
            .area_order([
                Area::Log,
                Area::Metadata,
                Area::Gap(1),
                Area::Bat,
                Area::Blocks,
            ])
            .log_entry(entry.clone().at(LOG - back * 4096));
        let storage = memory(&builder.build());
        drop(replay(storage.clone()).unwrap());
        let bytes = storage.to_vec();
        for n in 0..200 {
            assert_eq!(
                bytes[index(3 * MIB) + 4096 * n..][..4096],
                [u8::try_from(n).unwrap(); 4096]
            );
        }
    }
}

/// An entry that makes all of block 1's BAT entry say "zero", in an image where it is present.
fn zeroing(sequence: u64) -> (VhdxBuilder, LogEntry) {
    let builder = VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .block(1, full(2));
    let (image, layout) = (builder.build(), builder.layout());
    let mut page = image.read(layout.bat_offset, 4096);
    page[8..16].copy_from_slice(&2u64.to_le_bytes());
    (
        builder,
        LogEntry::new(sequence).data(layout.bat_offset, page),
    )
}

fn block_1_is_zero(builder: &VhdxBuilder) -> bool {
    let image = built(builder).unwrap();
    let (seen, _) = common::read_own(&image, MIB, 4096);
    seen == [0; 4096]
}

#[test]
fn rule_12_only_entries_that_bear_the_headers_guid_count() {
    let (builder, entry) = zeroing(1);
    assert!(block_1_is_zero(&builder.clone().log_entry(entry.clone())));
    let strange = builder
        .clone()
        .log_entry(entry.clone().guid(Uuid::from_u128(1)));
    refused(&strange, ErrorKind::Corrupt, "no valid sequence");
    // A later entry of another log does not extend the sequence.
    let other = LogEntry::new(2).at(8192).tail(0).guid(Uuid::from_u128(1));
    assert!(block_1_is_zero(&builder.log_entry(entry).log_entry(other)));
}

#[test]
fn rule_12_the_newest_complete_sequence_wins_and_older_ones_are_not_replayed() {
    let (builder, zero) = zeroing(10);
    let page = |byte| vec![byte; 4096];
    let scratch = builder.layout().bat_offset + 64 * KIB;
    // An older sequence that would break the BAT; a newer one; a newest one that is incomplete, for
    // its tail is gone.
    let old = LogEntry::new(3)
        .at(100 * 4096)
        .data(builder.layout().bat_offset, page(0xFF));
    let gone = LogEntry::new(50)
        .at(200 * 4096)
        .tail(60 * 4096)
        .data(scratch, page(7));
    let builder = builder.log_entries([old, zero.at(10 * 4096), gone]);
    assert!(block_1_is_zero(&builder));
    let storage = memory(&builder.build());
    drop(replay(storage.clone()).unwrap());
    assert_eq!(
        storage.to_vec()[index(scratch)],
        0,
        "the incomplete one was left alone"
    );
}

#[test]
fn rule_12_a_damaged_head_ends_the_sequence_before_it() {
    // The newest entry was being written when the power went; what went before is complete.
    let (builder, zero) = zeroing(10);
    let scratch = builder.layout().bat_offset + 64 * KIB;
    let second = LogEntry::new(11)
        .at(8192)
        .tail(0)
        .data(scratch, vec![7; 4096]);
    let damages = [
        LogDamage::Checksum,
        LogDamage::Signature,
        LogDamage::EntryLength(0),
        LogDamage::EntryLength(4096),
        LogDamage::EntryLength(8191),
        LogDamage::EntryLength(LOG + 4096),
        LogDamage::EntryLength(u32::MAX),
        LogDamage::DescriptorCount(0x0FFF_FFFF),
        LogDamage::DescriptorCount(u32::MAX),
        LogDamage::DescriptorCount(2),
        LogDamage::DescriptorSignature(0),
        LogDamage::DescriptorSequence(0),
        LogDamage::DataSignature(0),
        LogDamage::DataSequenceHigh(0),
        LogDamage::DataSequenceLow(0),
        LogDamage::Truncated(4096),
        LogDamage::Truncated(4200),
    ];
    let whole = builder.clone().log_entries([zero.clone(), second.clone()]);
    let replayed = |builder: &VhdxBuilder| {
        let storage = memory(&builder.build());
        let image = replay(storage.clone()).unwrap();
        (image.log_state(), storage.to_vec()[index(scratch)])
    };
    assert_eq!(replayed(&whole), (LogState::Replayed { entries: 2 }, 7));
    for damage in damages {
        let torn = builder
            .clone()
            .log_entries([zero.clone(), second.clone().damage(damage)]);
        assert_eq!(
            replayed(&torn),
            (LogState::Replayed { entries: 1 }, 0),
            "{damage:?}"
        );
        assert!(block_1_is_zero(&torn), "{damage:?}");
        let alone = builder.clone().log_entry(zero.clone().damage(damage));
        refused(&alone, ErrorKind::Corrupt, "no valid sequence");
    }
}

#[test]
fn rule_12_an_entry_longer_than_its_parts_is_valid() {
    // On hosts with large sectors the next entry begins in a sector of its own (§2.3.1, note 3): the
    // length covers the padding. Such entries were taken for damaged and the file was refused.
    let (builder, mut entry) = zeroing(1);
    for padded in [12 * 1024, 64 * 1024] {
        entry.damage = vec![LogDamage::EntryLength(padded)];
        let mut image = builder.clone().log_entry(entry.clone()).build();
        // The checksum is over all of it.
        image.reseal(builder.layout().log_offset, index(padded.into()));
        let image = open(memory(&image)).unwrap();
        assert_eq!(image.log_state(), LogState::ReplayedInMemory { entries: 1 });
        assert_eq!(common::read_own(&image, MIB, 512).0, [0; 512]);
    }
}

#[test]
fn rule_10_a_tail_that_is_unaligned_or_outside_and_a_sequence_of_zero_end_in_an_error_not_a_loop() {
    // vhdx-rs walked from an unaligned tail for ever.
    let (builder, entry) = zeroing(1);
    for tail in [1, 512, 4095, LOG, LOG + 4096, u32::MAX, u32::MAX - 4095] {
        let bad = builder.clone().log_entry(entry.clone().tail(tail));
        refused(&bad, ErrorKind::Corrupt, "no valid sequence");
    }
    let (builder, zero_number) = zeroing(0);
    refused(
        &builder.log_entry(zero_number),
        ErrorKind::Corrupt,
        "no valid sequence",
    );
}

#[test]
fn rule_11_the_edges_of_a_page_come_from_its_descriptor() {
    let page: Vec<u8> = (0..4096u32).map(|n| (n % 251) as u8 ^ 0x5A).collect();
    let builder = VhdxBuilder::new(4 * MIB);
    let scratch = builder.layout().bat_offset + 64 * KIB;
    let builder =
        builder.log_entry(LogEntry::new(0x0102_0304_0506_0708).data(scratch, page.clone()));
    let storage = memory(&builder.build());
    drop(replay(storage.clone()).unwrap());
    assert_eq!(storage.to_vec()[index(scratch)..][..4096], page);
}

#[test]
fn rule_13_a_file_shorter_than_flushed_file_offset_was_cut_and_is_refused() {
    let (builder, entry) = zeroing(1);
    let len = builder.build().len();
    let exact = builder
        .clone()
        .log_entry(entry.clone().file_offsets(len, len));
    assert!(block_1_is_zero(&exact));
    for flushed in [len + MIB, 1 << 40, u64::MAX, 1 << 63] {
        let cut = builder
            .clone()
            .log_entry(entry.clone().file_offsets(flushed, len));
        refused(&cut, ErrorKind::Corrupt, "bytes long");
        let storage = CountingStorage::new(memory(&cut.build()));
        assert_eq!(
            replay(storage.clone()).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert!(
            storage.changes().is_empty(),
            "refused before anything is written"
        );
    }
    // Only the head's word counts: the file may have been made shorter on purpose later.
    let head = LogEntry::new(2).at(8192).tail(0).file_offsets(len, len);
    let shrunk = builder.log_entries([entry.file_offsets(1 << 40, len), head]);
    assert!(block_1_is_zero(&shrunk));
}

#[test]
fn rule_13_last_file_offset_below_the_blocks_never_cuts_the_file() {
    // vhdx-rs set the file to that length and lost every block behind it.
    let (builder, entry) = zeroing(1);
    let len = builder.build().len();
    for last in [0, MIB, len - MIB, 512] {
        let builder = builder
            .clone()
            .log_entry(entry.clone().file_offsets(len, last));
        let storage = memory(&builder.build());
        drop(replay(storage.clone()).unwrap());
        assert_eq!(storage.len().unwrap(), len, "{last:#x}");
        assert!(block_1_is_zero(&builder));
    }
}

#[test]
fn rule_13_the_file_grows_to_last_file_offset_in_memory_and_on_disk() {
    let (builder, entry) = zeroing(1);
    let len = builder.build().len();
    let builder = builder.log_entry(entry.file_offsets(len, len + 5 * MIB));
    let storage = memory(&builder.build());
    drop(replay(storage.clone()).unwrap());
    assert_eq!(storage.len().unwrap(), len + 5 * MIB);
    // A block that the log allocates past the old end reads as zeros, not as an error.
    let base = VhdxBuilder::new(4 * MIB).block(0, full(1));
    let (image, layout) = (base.build(), base.layout());
    let mut page = image.read(layout.bat_offset, 4096);
    page[8..16].copy_from_slice(&(layout.end | 6).to_le_bytes());
    let entry = LogEntry::new(1).data(layout.bat_offset, page);
    let grown = base.log_entry(entry.file_offsets(layout.end, layout.end + MIB));
    let image = built(&grown).unwrap();
    assert_eq!(
        common::read_own(&image, MIB, index(MIB)).0,
        vec![0; index(MIB)]
    );
}

#[test]
fn rule_13_descriptors_past_the_end_of_the_file_extend_it() {
    let builder = VhdxBuilder::new(4 * MIB);
    let len = builder.build().len();
    let entry = LogEntry::new(1)
        .data(len + 2 * MIB, vec![7; 4096])
        .zero(len + 8 * MIB, MIB)
        .file_offsets(len, len);
    let storage = memory(&builder.log_entry(entry).build());
    drop(replay(storage.clone()).unwrap());
    let bytes = storage.to_vec();
    assert_eq!(bytes.len() as u64, len + 9 * MIB);
    assert_eq!(bytes[index(len + 2 * MIB)..][..4096], [7; 4096]);
}

#[test]
fn rule_13_a_replayed_log_is_stale_and_never_replays_again() {
    // vhdx-rs replayed it once more and took back everything written since.
    let builder = dirty();
    let storage = memory(&builder.build());
    drop(replay(storage.clone()).unwrap());
    let log = builder.layout().log_offset;
    assert_eq!(
        storage.to_vec()[index(log)..][..4],
        *b"loge",
        "the entries are still there"
    );
    // Block 1 is changed by somebody else, who leaves the log alone.
    let mut page = vec![0; 8];
    storage
        .read_at(&mut page, builder.layout().bat_entry_offset(0))
        .unwrap();
    storage
        .write_at(&page, builder.layout().bat_entry_offset(1))
        .unwrap();
    for image in [
        open(storage.clone()).unwrap(),
        replay(storage.clone()).unwrap(),
    ] {
        assert_eq!(image.log_state(), LogState::Empty);
        let (first, second) = (
            common::read_own(&image, 0, 4096).0,
            common::read_own(&image, MIB, 4096).0,
        );
        assert_eq!(first, second);
    }
    // A nil LogGuid hides entries of any GUID, nil ones too.
    let hidden = dirty().log_guid(Uuid::nil());
    assert_eq!(built(&hidden).unwrap().log_state(), LogState::Empty);
}

#[test]
fn rule_5_a_header_that_names_a_log_without_a_valid_sequence_is_corrupt() {
    let builder = VhdxBuilder::new(4 * MIB).log_guid(Uuid::from_u128(5));
    refused(&builder, ErrorKind::Corrupt, "no valid sequence");
    // Also for those who only ask whether recovery is needed.
    let error = VhdxImage::open(memory(&builder.build()), &with(Recovery::Refuse)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(VhdxImage::open(memory(&builder.build()), &with(Recovery::Ignore)).is_ok());
}

#[test]
fn rule_1_and_8_the_log_never_writes_to_the_identifier_the_headers_or_itself() {
    let (builder, entry) = zeroing(1);
    let log = builder.layout().log_offset;
    for (at, len) in [
        (0, 4096),
        (4096, 4096),
        (64 * KIB, 4096),
        (128 * KIB, 4096),
        (188 * KIB, 4096),
        (188 * KIB, 8192),
        (log, 4096),
        (log + MIB - 4096, 4096),
        (log - 4096, 8192),
        (log - 4096, 1 << 46),
    ] {
        let mut bad = vec![entry.clone().zero(at, len)];
        if len == 4096 {
            bad.push(entry.clone().data(at, vec![1; 4096]));
        }
        for bad in bad {
            let builder = builder.clone().log_entry(bad);
            refused(&builder, ErrorKind::Corrupt, "FileOffset");
            let storage = CountingStorage::new(memory(&builder.build()));
            assert!(replay(storage.clone()).is_err());
            assert!(
                storage.changes().is_empty(),
                "{at:#x}: refused before anything is written"
            );
        }
    }
}

#[test]
fn rule_7_the_region_tables_change_through_the_log() {
    // Both copies torn in place, both whole in the log: only after replay there is a file.
    let builder = VhdxBuilder::new(4 * MIB).block(0, full(1));
    let image = builder.build();
    let mut entry = LogEntry::new(1);
    for slot in Slot::BOTH {
        for page in 0..16 {
            let at = slot.region_table_offset() + page * 4096;
            entry = entry.data(at, image.read(at, 4096));
        }
    }
    let torn = builder
        .damage_region_table(Slot::First, Damage::Zeroed)
        .damage_region_table(Slot::Second, Damage::TornAt(512))
        .log_entry(entry);
    let image = built(&torn).unwrap();
    same_as_model(&image, &torn, 0, 4 * MIB);
    assert!(replay(memory(&torn.build())).is_ok());
}

#[test]
fn later_descriptors_overwrite_earlier_ones_within_and_across_entries() {
    let builder = VhdxBuilder::new(4 * MIB);
    let scratch = builder.layout().bat_offset + 64 * KIB;
    let data = |byte| Descriptor::Data {
        file_offset: scratch,
        bytes: vec![byte; 4096],
    };
    let zero = || Descriptor::Zero {
        file_offset: scratch,
        length: 8192,
    };
    for (updates, expected) in [
        (vec![vec![data(1), data(2)]], 2),
        (vec![vec![data(1)], vec![data(3)]], 3),
        (vec![vec![data(1), zero()]], 0),
        (vec![vec![zero()], vec![data(4)]], 4),
        (vec![vec![data(1)], vec![], vec![zero(), data(5)]], 5),
    ] {
        let builder = builder
            .clone()
            .log_entries(log_sequence(LOG - 8192, 9, LOG, updates));
        let storage = memory(&builder.build());
        drop(replay(storage.clone()).unwrap());
        assert_eq!(storage.to_vec()[index(scratch)..][..4096], [expected; 4096]);
    }
}

#[test]
fn rules_3_4_6_8_replay_in_the_file_goes_header_header_pages_header_header_with_a_flush_after_each()
{
    let builder = dirty_child();
    let storage = CountingStorage::new(memory(&builder.build()));
    let before = *inspect::headers(&*storage).unwrap().current().unwrap();
    storage.reset();
    let image = replay(storage.clone()).unwrap();
    let steps: Vec<_> = storage
        .calls()
        .into_iter()
        .filter(|call| call.op.changes() || matches!(call.op, Op::SyncData | Op::SyncFull))
        .map(|call| match (call.op, call.offset) {
            (Op::SyncFull, _) => "sync",
            (Op::Write, at) if at == 64 * KIB => "header 1",
            (Op::Write, at) if at == 128 * KIB => "header 2",
            (Op::Write | Op::Punch, at) if at >= 192 * KIB => "page",
            other => panic!("{other:?} has no business here"),
        })
        .collect();
    let pages = steps.iter().filter(|step| **step == "page").count();
    assert!(pages >= 4, "a zeroed bitmap block and three pages at least");
    // Header 2 is current in the builder's images, so header 1 goes first.
    let start = ["header 1", "sync", "header 2", "sync"];
    assert_eq!(steps[..4], start);
    assert!(steps[4..4 + pages].iter().all(|step| *step == "page"));
    let end = ["sync", "header 1", "sync", "header 2", "sync"];
    assert_eq!(steps[4 + pages..], end);

    let [first, second] = &image.headers().copies;
    for header in [first, second] {
        assert!(header.is_valid());
        assert!(header.sequence_number > before.sequence_number);
        assert!(header.log_guid.is_nil());
        assert_ne!(header.file_write_guid, before.file_write_guid);
        assert_eq!(header.data_write_guid, before.data_write_guid);
        assert_eq!(header.log_offset, before.log_offset);
        assert_eq!(header.log_length, before.log_length);
    }
    assert_eq!(first.file_write_guid, second.file_write_guid);
    assert_ne!(first.sequence_number, second.sequence_number);
}

#[test]
fn a_clean_image_opened_for_writing_is_not_touched() {
    let storage = CountingStorage::new(memory(&VhdxBuilder::new(4 * MIB).build()));
    let image = replay(storage.clone()).unwrap();
    assert_eq!(image.log_state(), LogState::Empty);
    assert!(storage.changes().is_empty());
}

/// What can be on disk when the power goes: any prefix of the changes, its last one torn, and of
/// those after the last flush also each one alone, and all of them torn.
fn crashes(start: &[u8], changes: &[Change]) -> Vec<(String, Vec<u8>)> {
    let mut durable = start.to_vec();
    let mut since: Vec<&Change> = Vec::new();
    let mut states = vec![("before anything".into(), durable.clone())];
    for (n, change) in changes.iter().enumerate() {
        if let Change::Sync = change {
            since
                .drain(..)
                .for_each(|change| change.apply(&mut durable));
            states.push((format!("after flush {n}"), durable.clone()));
            continue;
        }
        let mut prefix = durable.clone();
        since.iter().for_each(|change| change.apply(&mut prefix));
        if let Some(torn) = change.torn() {
            let mut state = prefix.clone();
            torn.apply(&mut state);
            states.push((format!("change {n} torn"), state));
        }
        change.apply(&mut prefix);
        states.push((format!("after change {n}"), prefix));
        let mut alone = durable.clone();
        change.apply(&mut alone);
        states.push((format!("change {n} alone"), alone));
        since.push(change);
        let mut torn = durable.clone();
        let halves = since.iter().filter_map(|change| change.torn());
        halves.for_each(|half| half.apply(&mut torn));
        states.push((format!("everything up to change {n} torn"), torn));
    }
    states
}

#[test]
fn a_crash_at_every_step_of_a_replay_reopens_with_the_same_content() {
    let wrapped = PendingLog {
        start: LOG - 4096,
        descriptors_per_entry: 2,
        ..PendingLog::default()
    };
    for builder in [
        dirty(),
        dirty_child().pending_log(wrapped),
        dirty().header_sequences(7, 3),
        dirty().header_sequences(u64::MAX, u64::MAX - 1),
        dirty().header_sequences(4, 4),
        dirty().damage_header(Slot::First, Damage::TornAt(512)),
    ] {
        let start = builder.build().to_vec();
        let recorder = Recorder::new(start.clone());
        drop(replay(recorder.clone()).unwrap());
        let changes = recorder.changes.lock().unwrap().clone();
        let states = crashes(&start, &changes);
        assert!(states.len() > 15);
        for (when, bytes) in states {
            let storage = Arc::new(MemoryStorage::from(bytes));
            let image = open(storage.clone()).unwrap_or_else(|error| panic!("{when}: {error}"));
            same_as_model(&image, &builder, 0, 4 * MIB);
            let image = replay(storage.clone()).unwrap_or_else(|error| panic!("{when}: {error}"));
            same_as_model(&image, &builder, 0, 4 * MIB);
            drop(image);
            VhdxImage::open(storage, &with(Recovery::Refuse))
                .unwrap_or_else(|e| panic!("{when}: {e}"));
        }
    }
}

#[test]
fn a_zero_descriptor_over_terabytes_costs_nothing_in_memory_or_on_disk() {
    // The target ends far past every structure; a writer of zeros would fill the host's disk.
    let builder = VhdxBuilder::new(4 * MIB).block(0, full(1));
    let len = builder.build().len();
    let builder = builder.log_entry(LogEntry::new(1).zero(len, 1 << 40).file_offsets(len, len));
    let image = built(&builder).unwrap();
    same_as_model(&image, &builder, 0, 4 * MIB);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vhdx");
    builder.build().save(&path).unwrap();
    let file = || Arc::new(FileStorage::open(&path, FileOptions::read_write()).unwrap());
    let storage = file();
    drop(replay(storage.clone()).unwrap());
    assert_eq!(storage.len().unwrap(), len + (1 << 40));
    assert!(storage.allocated_len().unwrap() < 16 * MIB);
}

#[test]
fn the_log_shown_for_inspection_is_the_log_in_the_file() {
    let (builder, entry) = zeroing(7);
    let layout = builder.layout();
    let builder = builder.log_entries([
        entry
            .at(LOG - 4096)
            .file_offsets(5 * MIB, 6 * MIB)
            .zero(layout.bat_offset + 64 * KIB, 8192),
        LogEntry::new(99).at(40_960).damage(LogDamage::Checksum),
    ]);
    let image = builder.build();
    let storage = memory(&image);
    let headers = inspect::headers(&*storage).unwrap();
    let log = inspect::log_contents(&*storage, headers.current().unwrap(), &Default::default());
    let log = log.unwrap();
    let [damaged, entry] = &log.found[..] else {
        panic!("{:?}", log.found)
    };
    assert_eq!((damaged.log_offset, damaged.active), (40_960, false));
    assert!(
        damaged
            .entry
            .as_ref()
            .is_err_and(|why| why.contains("Checksum"))
    );
    assert_eq!(log.active, [1]);
    assert!(entry.active);
    let h = &entry.header;
    assert_eq!((entry.log_offset, h.signature), (LOG - 4096, *b"loge"));
    assert_eq!(
        (h.entry_length, h.tail, h.sequence_number),
        (8192, LOG - 4096, 7)
    );
    assert_eq!((h.descriptor_count, h.log_guid), (2, ids::DEFAULT_LOG));
    assert_eq!(
        (h.flushed_file_offset, h.last_file_offset),
        (5 * MIB, 6 * MIB)
    );
    let stored = image.read(layout.log_offset + MIB - 4096 + 4, 4);
    assert_eq!(h.checksum.to_le_bytes(), stored[..]);
    let decoded = entry.entry.as_ref().unwrap();
    let page = image.read(layout.bat_offset, 8);
    let vhdx_format::LogDescriptor::Data {
        file_offset,
        leading,
        trailing,
        data_sector,
    } = decoded.descriptors[0]
    else {
        panic!("{:?}", decoded.descriptors)
    };
    assert_eq!(
        (file_offset, data_sector, trailing),
        (layout.bat_offset, 0, [0; 4])
    );
    assert_eq!(u64::from_le_bytes(leading), le64(&page, 0));
    let zero = vhdx_format::LogDescriptor::Zero {
        file_offset: layout.bat_offset + 64 * KIB,
        length: 8192,
    };
    assert_eq!(decoded.descriptors[1], zero);
}
