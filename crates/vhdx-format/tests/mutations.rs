//! Thousands of damaged images: no panic, no run longer than a second.
//!
//! `DISKWEAVE_MUTATIONS` multiplies the number of runs; the seed of a failing one is in its message.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::MIB;
use testkit::corpus::corpus;
use testkit::mutate::{Mutator, fix_vhdx_log_checksums, vhdx_log_range, vhdx_metadata_ranges};
use testkit::vhdx_builder::{
    BlockContent, BlockData, ExtraRegion, MetadataItem, PendingLog, VhdxBuilder,
};
use uuid::Uuid;
use vhdx_format::fuzz;

fn scale() -> u64 {
    let text = std::env::var("DISKWEAVE_MUTATIONS").unwrap_or_default();
    text.parse().unwrap_or(1)
}

fn full(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

fn built() -> Vec<(String, Vec<u8>)> {
    let plain = VhdxBuilder::new(4 * MIB)
        .block(0, full(1))
        .block(3, full(2));
    let child = VhdxBuilder::child_of(&plain, "p.vhdx")
        .block(0, BlockContent::partial(BlockData::Pattern(3), 3..900))
        .block(1, BlockContent::Zero)
        .metadata_item(MetadataItem::user(Uuid::from_u128(1), vec![5; 64]))
        .extra_region(ExtraRegion {
            guid: Uuid::from_u128(2),
            required: false,
            length_mib: 1,
            content: vec![1],
        });
    let dirty = child
        .clone()
        .pending_block(2, BlockContent::partial(BlockData::Pattern(4), 8..16))
        .pending_block(3, full(5))
        .pending_log(PendingLog {
            start: (1 << 20) - 4096,
            descriptors_per_entry: 2,
            ..PendingLog::default()
        });
    let large = VhdxBuilder::new(9 << 30)
        .block_size(1 << 20)
        .logical_sector_size(4096)
        .block(5, full(6));
    [
        ("plain", plain),
        ("child", child),
        ("dirty", dirty),
        ("large", large),
    ]
    .map(|(name, builder)| (name.to_owned(), builder.build().to_vec()))
    .into()
}

/// Small images of the corpus that differ from the builder's in some way.
fn real() -> Vec<(String, Vec<u8>)> {
    let Some(corpus) = corpus() else {
        return Vec::new();
    };
    let mut images = Vec::new();
    for record in corpus.of_format("vhdx") {
        let path = record.path();
        let len = std::fs::metadata(&path).map_or(u64::MAX, |metadata| metadata.len());
        if len < 16 * MIB {
            images.push((record.id.clone(), std::fs::read(path).unwrap()));
        }
    }
    assert!(images.len() > 10);
    images
}

/// Runs `body` on `data`; says what `what` is when it panics or takes too long.
fn run(what: &str, data: &[u8], body: fn(&[u8])) {
    common::quickly(what, Duration::from_secs(1), || {
        let result = catch_unwind(AssertUnwindSafe(|| body(data)));
        assert!(result.is_ok(), "{what} panics");
    });
}

/// Damages each image `rounds` times, the images shared out among the processors.
fn mutate(images: &[(String, Vec<u8>)], rounds: u64) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let share = images.iter().skip(first).step_by(threads);
            scope.spawn(move || mutate_each(share, rounds));
        }
    });
}

fn mutate_each<'a>(images: impl Iterator<Item = &'a (String, Vec<u8>)>, rounds: u64) {
    for (name, image) in images {
        let ranges = vhdx_metadata_ranges(image);
        let mut copy = image.clone();
        for seed in 0..rounds * scale() {
            let mut mutator = Mutator::new(seed)
                .focused(ranges.clone())
                .repair_checksums();
            mutator.mutate(&mut copy);
            let what = |body| format!("{body} of {name} under seed {seed}");
            match seed % 4 {
                0 | 1 => run(&what("reading"), &copy, fuzz::open_and_read),
                2 => run(&what("checking"), &copy, fuzz::check),
                _ => run(&what("writing"), &copy, fuzz::open_writable),
            }
            copy.clone_from(image);
        }
    }
}

#[test]
fn damaged_images_of_the_builder_do_no_harm() {
    mutate(&built(), 700);
}

#[test]
fn damaged_images_of_the_corpus_do_no_harm() {
    mutate(&real(), 2000);
}

#[test]
fn damaged_logs_do_no_harm() {
    for (name, image) in built() {
        let ring: Range<usize> = vhdx_log_range(&image).unwrap();
        let ring = &image[ring];
        for seed in 0..300 * scale() {
            let mut copy = ring.to_vec();
            // Where the entries are: at the end, where they wrap, and at the start.
            let focus = vec![0..65_536, ring.len() - 4096..ring.len(), 0..64];
            Mutator::new(seed).focused(focus).mutate(&mut copy);
            if seed % 4 > 0 {
                fix_vhdx_log_checksums(&mut copy);
            }
            run(
                &format!("the log of {name} under seed {seed}"),
                &copy,
                fuzz::log,
            );
        }
    }
}

#[test]
fn damaged_structures_do_no_harm() {
    for (name, image) in built().iter().chain(&real()) {
        for range in vhdx_metadata_ranges(image) {
            for seed in 0..10 * scale() {
                let mut piece = image[range.start..image.len().min(range.start + 65_536)].to_vec();
                Mutator::new(seed).mutate(&mut piece);
                let what = format!("{range:?} of {name} under seed {seed}");
                run(&what, &piece, fuzz::structures);
            }
        }
    }
}
