//! The hot paths, each as one small step that is done again and again: for `cargo xtask bench instructions`,
//! which counts what a step executes, and for Criterion, which times it.
//!
//! Everything a step needs is made before, and lies in memory or in the host's page cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_core::locate::ChainPolicy;
use blockdev_core::{
    BlockDevice, FileOptions, FileStorage, FormatDriver, Holes, Limits, LoneLayer, MemoryStorage,
    OpenOptions, is_zero,
};
use diskweave::{NewImage, OpenDisk, qcow2, vhdx};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SMALL: usize = 4 << 10;
/// Bytes of the disks that hits go to.
const HELD: u64 = 64 * MIB;

type Outcome<T> = Result<T, String>;

/// One step of a hot path.
pub type Step = Box<dyn FnMut()>;

/// A path that every guest goes along.
#[derive(Debug)]
pub struct HotPath {
    /// What it is called in the records.
    pub name: &'static str,
    /// Steps of one count: enough that what happens now and then is in it.
    pub steps: u64,
    /// False where every step takes up space, so that it cannot go on for ever.
    pub is_endless: bool,
    prepare: fn(&Path) -> Outcome<Step>,
}

const fn path(name: &'static str, steps: u64, prepare: fn(&Path) -> Outcome<Step>) -> HotPath {
    HotPath {
        name,
        steps,
        is_endless: true,
        prepare,
    }
}

/// One whose steps take up space.
const fn growing(name: &'static str, steps: u64, prepare: fn(&Path) -> Outcome<Step>) -> HotPath {
    let mut path = path(name, steps, prepare);
    path.is_endless = false;
    path
}

/// All of them.
pub const PATHS: &[HotPath] = &[
    path("qcow2-read-hit", 2000, |dir| {
        reads(filled(dir, qcow2_image())?, HELD)
    }),
    path("qcow2-write-hit", 2000, |dir| {
        writes(filled(dir, qcow2_image())?, HELD)
    }),
    growing("qcow2-write-fresh", 1000, |dir| {
        fresh(dir, qcow2_image(), 64 * KIB)
    }),
    path("qcow2-l2-miss", 2000, l2_miss),
    path("vhdx-read-hit", 2000, |dir| {
        reads(filled(dir, vhdx_image())?, HELD)
    }),
    path("vhdx-write-hit", 2000, |dir| {
        writes(filled(dir, vhdx_image())?, HELD)
    }),
    growing("vhdx-write-fresh", 1000, |dir| {
        fresh(dir, vhdx_image(), MIB)
    }),
    path("vhdx-bitmap-scan", 200, |_| bitmap_scan()),
    growing("vhdx-log-entry", 200, log_entry),
    path("zero-scan-64k", 2000, |_| Ok(zero_scan())),
    path("chain-read-depth-8", 2000, chain),
];

impl HotPath {
    /// Makes in `dir`, which is empty, what the path needs, and does what the first step does otherwise
    /// than all others.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub fn prepare(&self, dir: &Path) -> Outcome<Step> {
        let mut step = (self.prepare)(dir)?;
        // The first ones load pages.
        for _ in 0..64 {
            step();
        }
        Ok(step)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Places all over a disk of `size` bytes, the same in every run.
fn places(size: u64) -> impl FnMut() -> u64 {
    let mut number = 0u64;
    move || {
        number += 1;
        (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % (size / (4 * KIB)) * (4 * KIB)
    }
}

fn qcow2_image() -> NewImage {
    NewImage::Qcow2(qcow2::CreateOptions::new(0))
}

fn vhdx_image() -> NewImage {
    let mut options = vhdx::CreateOptions::new(0);
    options.block_size = 1 << 20;
    NewImage::Vhdx(options)
}

fn name(image: &NewImage) -> &'static str {
    match image {
        NewImage::Qcow2(_) => "qcow2",
        _ => "vhdx",
    }
}

fn opened(dir: &Path, image: &NewImage, size: u64) -> Outcome<Box<dyn BlockDevice>> {
    let path = dir.join("disk");
    diskweave::create(&path, image, Some(size), None).map_err(text)?;
    let disk = OpenDisk::new().format(name(image)).writable().open(path);
    Ok(Box::new(disk.map_err(text)?))
}

/// A disk of [`HELD`] bytes, all of them stored.
fn filled(dir: &Path, image: NewImage) -> Outcome<Box<dyn BlockDevice>> {
    let disk = opened(dir, &image, HELD)?;
    let piece = vec![0x5A; 1 << 20];
    for at in (0..HELD).step_by(1 << 20) {
        disk.write_at(&piece, at).map_err(text)?;
    }
    disk.flush().map_err(text)?;
    Ok(disk)
}

fn reads(disk: Box<dyn BlockDevice>, size: u64) -> Outcome<Step> {
    let (mut buf, mut place) = (vec![0; SMALL], places(size));
    Ok(Box::new(move || {
        disk.read_at(&mut buf, place()).expect("a read");
    }))
}

fn writes(disk: Box<dyn BlockDevice>, size: u64) -> Outcome<Step> {
    let (buf, mut place) = (vec![0x5A; SMALL], places(size));
    Ok(Box::new(move || {
        disk.write_at(&buf, place()).expect("a write");
    }))
}

/// The first 4K of one unit of space after the other.
fn fresh(dir: &Path, image: NewImage, unit: u64) -> Outcome<Step> {
    let disk = opened(dir, &image, 1024 * GIB)?;
    let (buf, mut at) = (vec![0x5A; SMALL], 0);
    Ok(Box::new(move || {
        disk.write_at(&buf, at).expect("a write");
        at += unit;
    }))
}

/// Each read needs another page of the L2 tables than those that fit in memory.
fn l2_miss(dir: &Path) -> Outcome<Step> {
    const SIZE: u64 = 64 * GIB;
    /// What one page of 512 entries maps.
    const MAPPED: u64 = 32 * MIB;
    let mut options = qcow2::CreateOptions::new(0);
    options.preallocation = qcow2::Preallocation::Metadata;
    let path = dir.join("disk");
    diskweave::create(&path, &NewImage::Qcow2(options), Some(SIZE), None).map_err(text)?;
    let mut limits = Limits::default();
    limits.metadata_cache_bytes = 256 << 10;
    let file = FileStorage::open(&path, FileOptions::read_only()).map_err(text)?;
    let options = OpenOptions::read_only().with_limits(limits);
    let layer = qcow2::Qcow2Driver.open(Arc::new(file), &options);
    let disk = LoneLayer::new(layer.map_err(text)?);
    let (mut buf, mut at) = (vec![0; SMALL], 0);
    Ok(Box::new(move || {
        disk.read_at(&mut buf, at).expect("a read");
        at = (at + MAPPED) % SIZE;
    }))
}

/// A mebibyte of a child that has every other run of eight sectors.
fn bitmap_scan() -> Outcome<Step> {
    let present = (0..2048).filter(|sector| sector / 8 % 2 == 0);
    let content = BlockContent::partial(BlockData::Pattern(1), present);
    let builder =
        VhdxBuilder::child_of(&VhdxBuilder::new(8 * MIB), "parent.vhdx").block(0, content);
    let storage = MemoryStorage::from(builder.build().to_vec());
    let image = vhdx::VhdxImage::open(Arc::new(storage), &OpenOptions::read_only());
    let image = image.map_err(text)?;
    let (mut buf, mut holes) = (vec![0; 1 << 20], Holes::new());
    Ok(Box::new(move || {
        holes.clear();
        let semantics = vhdx::ReadSemantics::Effective;
        image
            .read_own(&mut buf, 0, &mut holes, semantics)
            .expect("a read");
    }))
}

/// A write into a block that is not there, and the flush that logs its entry.
fn log_entry(dir: &Path) -> Outcome<Step> {
    let disk = opened(dir, &vhdx_image(), 1024 * GIB)?;
    let mut at = 0;
    Ok(Box::new(move || {
        disk.write_at(&[0x5A; SMALL], at).expect("a write");
        disk.flush().expect("a flush");
        at += MIB;
    }))
}

fn zero_scan() -> Step {
    let zeros = vec![0; 64 << 10];
    Box::new(move || assert!(is_zero(std::hint::black_box(&zeros))))
}

/// All data in the lowest of eight.
fn chain(dir: &Path) -> Outcome<Step> {
    drop(filled(dir, qcow2_image())?);
    let mut below = dir.join("disk");
    for number in 1..8 {
        let child: PathBuf = dir.join(number.to_string());
        let mut options = qcow2::CreateOptions::new(0);
        options.backing = Some(qcow2::Backing {
            name: below.to_string_lossy().into_owned(),
            format: "qcow2".into(),
        });
        let parent = OpenDisk::new().format("qcow2").policy(ChainPolicy::Any);
        let parent = parent.open(&below).map_err(text)?;
        diskweave::create(&child, &NewImage::Qcow2(options), None, Some(&parent)).map_err(text)?;
        below = child;
    }
    let top = OpenDisk::new().format("qcow2").policy(ChainPolicy::Any);
    reads(Box::new(top.open(below).map_err(text)?), HELD)
}
