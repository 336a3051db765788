//! What a check says: each finding provoked, nothing said of clean images, nothing left out after
//! the first.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use blockdev_core::{CheckReport, ErrorKind, Limits, MemoryStorage, OpenOptions, Severity};
use common::{MIB, Sparse, codes, memory};
use testkit::counting::CountingStorage;
use testkit::vhdx_builder::{
    BlockContent, BlockData, Damage, ExtraRegion, HeaderCopy, LogEntry, MetadataEntry,
    MetadataItem, ParentLocator, RegionEntry, Slot, VhdxBuilder, ids,
};
use uuid::Uuid;
use vhdx_format::known;

const SOME: Uuid = Uuid::from_u128(0x5EED_0001_0000_4000_8000_0000_0000_00AA);

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

fn base() -> VhdxBuilder {
    VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .block(2, full(2))
}

fn child() -> VhdxBuilder {
    VhdxBuilder::child_of(&VhdxBuilder::new(4 * MIB), "p.vhdx")
        .block(0, full(1))
        .block(1, BlockContent::partial(BlockData::Pattern(2), 3..9))
}

/// A locator of a parent of another format, that declares `format`.
fn other_format(format: Option<&str>) -> ParentLocator {
    let locator = ParentLocator::relative(SOME, "p").locator_type(known::OTHER_PARENT_LOCATOR);
    match format {
        Some(format) => locator.pair("parent_format", format),
        None => locator,
    }
}

fn both(builder: VhdxBuilder, copy: HeaderCopy) -> VhdxBuilder {
    builder
        .header(Slot::First, copy.clone())
        .header(Slot::Second, copy)
}

fn regions(change: impl Fn(&mut Vec<RegionEntry>)) -> VhdxBuilder {
    let builder = base().extra_region(region(false));
    let mut entries = builder.layout().region_entries;
    change(&mut entries);
    builder.region_table(entries)
}

fn region(required: bool) -> ExtraRegion {
    ExtraRegion {
        guid: SOME,
        required,
        length_mib: 1,
        content: Vec::new(),
    }
}

fn entries(change: impl Fn(&mut Vec<MetadataEntry>)) -> VhdxBuilder {
    let builder = base().metadata_item(MetadataItem::user(SOME, vec![1; 16]));
    let mut entries = builder.layout().metadata_entries;
    change(&mut entries);
    builder.metadata_table(entries)
}

fn located(locator: ParentLocator) -> VhdxBuilder {
    VhdxBuilder::new(4 * MIB).differencing(locator)
}

fn report(builder: &VhdxBuilder) -> CheckReport {
    common::check(builder.build())
}

const CORRUPTION: Severity = Severity::Corruption;
const WARNING: Severity = Severity::Warning;
const NOTE: Severity = Severity::Note;

/// For each code an image that it is said of, and how bad it is.
fn provoked() -> Vec<(&'static str, Severity, VhdxBuilder)> {
    let copy = HeaderCopy::default;
    let bat = base().layout().bat_offset;
    let bitmap = child().geometry().bitmap_bat_index(0);
    let len = base().build().len();
    vec![
        (
            "header-none-valid",
            CORRUPTION,
            base()
                .damage_header(Slot::First, Damage::Zeroed)
                .damage_header(Slot::Second, Damage::Checksum),
        ),
        (
            "header-copy-invalid",
            NOTE,
            base().damage_header(Slot::First, Damage::Checksum),
        ),
        (
            "header-equal-sequence",
            WARNING,
            base().header_sequences(4, 4).header(
                Slot::First,
                HeaderCopy {
                    sequence: Some(4),
                    data_write_guid: Some(SOME),
                    ..copy()
                },
            ),
        ),
        ("header-version", CORRUPTION, base().version(2)),
        (
            "header-log-version",
            CORRUPTION,
            base().log_version(1).log_guid(SOME),
        ),
        (
            "header-log-length",
            CORRUPTION,
            both(
                base(),
                HeaderCopy {
                    log_length: Some(4096),
                    ..copy()
                },
            ),
        ),
        (
            "header-log-offset",
            CORRUPTION,
            both(
                base(),
                HeaderCopy {
                    log_offset: Some(MIB + 512),
                    ..copy()
                },
            ),
        ),
        (
            "header-log-outside-file",
            CORRUPTION,
            both(
                base(),
                HeaderCopy {
                    log_offset: Some(1 << 40),
                    ..copy()
                },
            ),
        ),
        (
            "header-log-empty",
            CORRUPTION,
            both(
                base(),
                HeaderCopy {
                    log_length: Some(0),
                    log_guid: Some(SOME),
                    ..copy()
                },
            ),
        ),
        (
            "log-unreadable",
            CORRUPTION,
            base().log_length_mib(512).log_guid(SOME),
        ),
        ("log-not-replayable", CORRUPTION, base().log_guid(SOME)),
        ("log-not-empty", NOTE, base().pending_block(1, full(3))),
        (
            "log-file-offset",
            WARNING,
            base().log_entry(LogEntry::new(1).file_offsets(len, len - 512)),
        ),
        (
            "region-none-valid",
            CORRUPTION,
            base()
                .damage_region_table(Slot::First, Damage::Zeroed)
                .damage_region_table(Slot::Second, Damage::Checksum),
        ),
        (
            "region-copy-invalid",
            WARNING,
            base().damage_region_table(Slot::Second, Damage::Zeroed),
        ),
        (
            "region-copies-differ",
            WARNING,
            // The second copy is changed by the log alone.
            {
                let other = regions(|entries| entries[2].length = 0).build();
                let at = Slot::Second.region_table_offset();
                base()
                    .extra_region(region(false))
                    .log_entry(LogEntry::new(1).data(at, other.read(at, 4096)))
            },
        ),
        (
            "region-missing",
            CORRUPTION,
            regions(|entries| entries.retain(|entry| entry.guid != ids::BAT_REGION)),
        ),
        (
            "region-required-unknown",
            CORRUPTION,
            base().extra_region(region(true)),
        ),
        (
            "region-optional-unknown",
            NOTE,
            base().extra_region(region(false)),
        ),
        (
            "region-offset",
            CORRUPTION,
            regions(|entries| entries[2].file_offset += 4096),
        ),
        (
            "region-length",
            CORRUPTION,
            regions(|entries| entries[2].length = 4096),
        ),
        (
            "region-outside-file",
            CORRUPTION,
            regions(|entries| entries[0].file_offset = 1 << 40),
        ),
        (
            "region-duplicate",
            CORRUPTION,
            regions(|entries| entries[2].guid = ids::BAT_REGION),
        ),
        (
            "region-overlap",
            CORRUPTION,
            regions(|entries| entries[2].file_offset = MIB),
        ),
        (
            "metadata-signature",
            CORRUPTION,
            regions(|entries| entries[1].file_offset = bat + MIB),
        ),
        (
            "metadata-entry-count",
            CORRUPTION,
            entries(|entries| entries.resize(2048, entries[5].clone())),
        ),
        (
            "metadata-user-count",
            CORRUPTION,
            entries(|entries| {
                for n in 0..1024 {
                    entries.push(MetadataEntry {
                        id: Uuid::from_u128(n),
                        offset: 0,
                        length: 0,
                        flags: 1,
                    });
                }
            }),
        ),
        (
            "metadata-required-unknown",
            CORRUPTION,
            entries(|entries| entries[5].flags = 4),
        ),
        (
            "metadata-optional-unknown",
            NOTE,
            entries(|entries| entries[5].flags = 0),
        ),
        (
            "metadata-flags",
            WARNING,
            entries(|entries| entries[0].flags = 0),
        ),
        (
            "metadata-item-length",
            CORRUPTION,
            entries(|entries| entries[5].length = (1 << 20) + 1),
        ),
        (
            "metadata-empty-offset",
            WARNING,
            entries(|entries| entries[5].length = 0),
        ),
        (
            "metadata-item-offset",
            CORRUPTION,
            entries(|entries| entries[5].offset = 4096),
        ),
        (
            "metadata-overlap",
            CORRUPTION,
            entries(|entries| entries[5].offset = entries[0].offset),
        ),
        (
            "metadata-duplicate",
            CORRUPTION,
            entries(|entries| (entries[5].id, entries[5].flags) = (ids::VIRTUAL_DISK_ID, 6)),
        ),
        (
            "metadata-items",
            CORRUPTION,
            base().without_metadata_item(ids::VIRTUAL_DISK_ID),
        ),
        (
            "metadata-values",
            CORRUPTION,
            base().physical_sector_size(1000),
        ),
        (
            "locator-type",
            CORRUPTION,
            located(ParentLocator::relative(SOME, "p").locator_type(SOME)),
        ),
        (
            "locator-extension",
            NOTE,
            located(other_format(Some("raw"))),
        ),
        (
            "locator-format",
            CORRUPTION,
            located(other_format(Some("vhdx"))),
        ),
        ("locator-format", CORRUPTION, located(other_format(None))),
        (
            "locator-parent-changing",
            WARNING,
            located(other_format(Some("raw")).pair("parent_changing", "merge")),
        ),
        (
            "locator-duplicate-key",
            CORRUPTION,
            located(ParentLocator::relative(SOME, "p").pair("relative_path", "q")),
        ),
        (
            "locator-nul",
            WARNING,
            located(ParentLocator::relative(SOME, "p\0")),
        ),
        (
            "locator-linkage",
            CORRUPTION,
            located(ParentLocator::new().relative_path("p")),
        ),
        (
            "locator-no-path",
            WARNING,
            located(ParentLocator::new().linkage(SOME)),
        ),
        (
            "bat-too-short",
            CORRUPTION,
            base().virtual_size(1 << 40).bat_length(1 << 20),
        ),
        ("bat-reserved", WARNING, base().raw_bat(1, 8)),
        ("bat-payload", CORRUPTION, base().raw_bat(1, 5)),
        (
            "bat-overlap",
            CORRUPTION,
            base().raw_bat(1, base().layout().blocks[&0] | 6),
        ),
        (
            "bat-beyond-disk",
            WARNING,
            child().raw_bat(9, child().layout().blocks[&0] | 6),
        ),
        ("bat-bitmap-missing", CORRUPTION, child().raw_bat(bitmap, 0)),
        (
            "bat-bitmap-unused",
            WARNING,
            base().virtual_size(5 << 30).bitmap_block(0),
        ),
        ("bat-bitmap", CORRUPTION, child().raw_bat(bitmap, 1)),
    ]
}

#[test]
fn every_finding_is_made_of_an_image_that_deserves_it_and_says_where_and_why() {
    for (code, severity, builder) in provoked() {
        let report = report(&builder);
        let found = report.findings.iter().find(|finding| finding.code == code);
        let found = found.unwrap_or_else(|| panic!("{code}: {:#?}", report.findings));
        assert_eq!(found.severity, severity, "{code}");
        assert!(found.offset.is_some(), "{code}: where?");
        assert!(found.reference.starts_with("[MS-VHDX] 2."), "{code}");
        assert!(found.message.len() > 10, "{code}: {}", found.message);
        let worst = report.findings.iter().map(|finding| finding.severity).max();
        assert_eq!(report.corruptions > 0, worst == Some(CORRUPTION), "{code}");
        // What a check calls damage and what keeps an image from being read go together.
        let opens = common::built(&builder).is_ok();
        let of_one_block = code.starts_with("bat-") && code != "bat-too-short";
        assert_eq!(opens, severity != CORRUPTION || of_one_block, "{code}");
    }
}

/// Codes that need more than an image of the builder's; provoked elsewhere, in the test named.
const ELSEWHERE: [(&str, &str); 2] = [
    (
        "does-not-open",
        "what_only_a_strict_reader_refuses_is_still_said",
    ),
    (
        "bat-overlap-unchecked",
        "hostile.rs: blocks_spread_over_more_file_than_can_be_accounted_for_are_said_to_be_unchecked",
    ),
];

#[test]
fn no_code_in_the_sources_is_without_its_image() {
    // A finding that nothing provokes may never be made, or be made of everything.
    let mut in_sources = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in [
        "io/check.rs",
        "meta/headers.rs",
        "meta/regions.rs",
        "meta/metadata.rs",
        "meta/locator.rs",
    ] {
        let text = std::fs::read_to_string(sources.join(file)).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for word in text.split('"').skip(1).step_by(2) {
            let code =
                word.contains('-') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            if code && word != "parent-locator" {
                in_sources.insert(word.to_owned());
            }
        }
    }
    assert!(in_sources.len() > 45, "{in_sources:?}");
    let provoked: BTreeSet<_> = provoked()
        .iter()
        .map(|(code, ..)| (*code).to_owned())
        .chain(ELSEWHERE.map(|(code, _)| code.to_owned()))
        .collect();
    assert_eq!(in_sources, provoked);
}

#[test]
fn nothing_is_said_of_clean_images() {
    let images = [
        base(),
        child(),
        base().fixed(),
        VhdxBuilder::new(0),
        VhdxBuilder::new(5 << 30)
            .block_size(32 << 20)
            .block(159, BlockContent::Zero),
        child().stale_bitmap(0, 0xFF),
        base().block(
            3,
            BlockContent::Unmapped {
                kept: Some(BlockData::Byte(1)),
            },
        ),
        base().metadata_item(MetadataItem::user(SOME, vec![1])),
        base().logical_sector_size(4096).header_sequences(9, 9),
    ];
    for builder in images {
        let report = report(&builder);
        assert_eq!(report.findings, [], "{builder:?}");
        assert!(report.is_clean());
    }
}

#[test]
fn blocks_and_the_end_of_the_image_are_counted() {
    let counted = report(&child());
    assert_eq!((counted.total_blocks, counted.allocated_blocks), (4, 2));
    assert_eq!(counted.image_end_offset, child().layout().end);
    let padded = report(&child().file_len(child().layout().end + 7 * MIB));
    assert_eq!(padded.image_end_offset, child().layout().end);
}

#[test]
fn findings_are_collected_and_not_stopped_at_the_first() {
    let place = base().layout().blocks[&0];
    let builder = base()
        .damage_header(Slot::First, Damage::TornAt(512))
        .damage_region_table(Slot::Second, Damage::Zeroed)
        .extra_region(region(false))
        .metadata_item(MetadataItem::system(SOME, vec![1]))
        .raw_bat(1, 4)
        .raw_bat(2, place | 6)
        .raw_bat(3, place | 0xF8 | 6)
        .virtual_size(5 << 30)
        .bitmap_block(0);
    let report = report(&builder);
    let expected = [
        "bat-bitmap-unused",
        "bat-overlap",
        "bat-payload",
        "bat-reserved",
        "header-copy-invalid",
        "metadata-optional-unknown",
        "region-copy-invalid",
        "region-optional-unknown",
    ];
    assert_eq!(codes(&report), expected);
    assert_eq!(report.corruptions, 3, "one reserved state, two overlaps");
    // Several structures broken at once, each with its finding, though the image does not open.
    let broken = both(
        base(),
        HeaderCopy {
            version: Some(9),
            log_length: Some(7),
            ..Default::default()
        },
    );
    let broken = codes(&common::check(broken.build()));
    assert_eq!(broken, ["header-log-length", "header-version"]);
    let tables = regions(|entries| {
        entries[2].file_offset = 512;
        entries[2].length = 3;
        entries[2].guid = ids::BAT_REGION;
    });
    let found = codes(&common::check(tables.physical_sector_size(9).build()));
    for code in [
        "region-offset",
        "region-length",
        "region-duplicate",
        "metadata-values",
    ] {
        assert!(found.contains(&code), "{code} is not in {found:?}");
    }
}

#[test]
fn an_overlap_names_what_is_overlapped() {
    let layout = base().layout();
    for (place, name) in [
        (layout.log_offset, "the log"),
        (layout.metadata_offset, "the Metadata region"),
        (layout.bat_offset, "the BAT region"),
        (layout.blocks[&0], "another block"),
    ] {
        let report = report(&base().raw_bat(1, place | 6));
        let [finding] = &report.findings[..] else {
            panic!("{:#?}", report.findings)
        };
        assert!(finding.message.contains(name), "{}", finding.message);
        assert_eq!(finding.code, "bat-overlap");
    }
    let over_bitmap = report(&child().raw_bat(2, child().layout().bitmaps[&0] | 6));
    assert_eq!(codes(&over_bitmap), ["bat-overlap"]);
}

#[test]
fn entries_past_the_end_of_a_childs_disk_are_no_blocks() {
    // The table of a child goes on to the end of its last chunk; the check subtracted the place of
    // such an entry from the size of the disk, and ended in a panic.
    for (entry, code) in [
        (2, "bat-beyond-disk"),
        (4, "bat-beyond-disk"),
        (1 << 50 | 6, "bat-beyond-disk"),
        (1 << 50 | 7, "bat-beyond-disk"),
    ] {
        for index in [4, 5, 4095] {
            let report = report(&child().raw_bat(index, entry));
            assert_eq!(codes(&report), [code], "{index}: {entry:#x}");
            assert!(report.is_clean(), "nothing reads it");
        }
    }
    assert_eq!(
        report(&child().raw_bat(4, 5 * MIB)).findings,
        [],
        "a stale place means nothing"
    );
    common::same_as_model(
        &common::built(&child().raw_bat(4, 1 << 50 | 6)).unwrap(),
        &child(),
        0,
        4 * MIB,
    );
}

#[test]
fn what_only_a_strict_reader_refuses_is_still_said() {
    let storage = memory(&base().extra_region(region(false)).build());
    let strict = OpenOptions::read_only().with_strict(true);
    let report = vhdx_format::check(storage, &strict).unwrap();
    assert_eq!(codes(&report), ["does-not-open", "region-optional-unknown"]);
}

#[test]
fn a_limit_on_findings_hides_texts_but_not_counts() {
    let mut builder = VhdxBuilder::new(64 * MIB);
    for block in 0..64 {
        builder = builder.raw_bat(block, 5);
    }
    let mut limits = Limits::default();
    limits.check_findings = 10;
    let options = OpenOptions::read_only().with_limits(limits);
    let report = vhdx_format::check(Arc::new(Sparse(builder.build())), &options).unwrap();
    assert_eq!(
        (report.findings.len(), report.corruptions, report.suppressed),
        (10, 64, 54)
    );
}

#[test]
fn a_check_changes_nothing_and_ignores_how_the_caller_would_open() {
    let builder = base().pending_block(1, full(3));
    for options in [
        OpenOptions::read_only(),
        OpenOptions::read_write(),
        OpenOptions::read_only().with_recovery(blockdev_core::Recovery::Refuse),
        OpenOptions::read_only().with_recovery(blockdev_core::Recovery::Ignore),
    ] {
        let storage = CountingStorage::new(memory(&builder.build()));
        let report = vhdx_format::check(storage.clone(), &options).unwrap();
        assert_eq!(codes(&report), ["log-not-empty"]);
        assert_eq!(
            report.allocated_blocks, 3,
            "the blocks are those after replay"
        );
        assert!(storage.changes().is_empty());
    }
}

#[test]
fn another_format_is_no_finding_but_an_error() {
    for bytes in [
        vec![],
        b"vhdxfil".to_vec(),
        vec![0; 1 << 20],
        b"QFI\xfb".to_vec(),
    ] {
        let storage = Arc::new(MemoryStorage::from(bytes));
        let error = vhdx_format::check(storage, &OpenOptions::read_only()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRecognised);
    }
}
