//! What the facade's tests share.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use diskweave::chain::Chain;
use diskweave::core::locate::ChainPolicy;
use diskweave::core::{FileOptions, FileStorage, LockMode, Result, Storage};
use diskweave::{ConvertOptions, NoProgress, OpenDisk, convert_to_raw};
use testkit::corpus::Record;
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

pub(crate) const MIB: u64 = 1 << 20;

/// Opens with the parents below the image's own directory.
pub(crate) fn beneath(path: &Path) -> OpenDisk {
    OpenDisk::new().policy(ChainPolicy::Beneath(path.parent().unwrap().to_path_buf()))
}

/// The disk of a corpus image, as the manifest names its format.
pub(crate) fn open_record(record: &Record) -> Result<Chain> {
    beneath(&record.path())
        .format(&record.format)
        .open(record.path())
}

/// Converts `disk` to a raw image with the defaults.
pub(crate) fn to_raw(disk: &Chain, to: &Path) -> Result<()> {
    convert_to_raw(disk, to, &ConvertOptions::default(), &NoProgress)
}

/// Saves `image` in `dir` as `name`.
pub(crate) fn save(dir: &Path, name: &str, image: &VhdxBuilder) -> PathBuf {
    let path = dir.join(name);
    image.build().save(&path).unwrap();
    path
}

/// An image of `blocks` blocks of 1 MiB, each full of a pattern of its own.
pub(crate) fn full(blocks: u64) -> VhdxBuilder {
    (0..blocks).fold(VhdxBuilder::new(blocks * MIB), |image, n| {
        image.block(n, BlockContent::full(BlockData::Pattern(n + 1)))
    })
}

/// A file to be looked at whatever others do with it.
pub(crate) fn unlocked(path: &Path) -> FileStorage {
    FileStorage::open(path, FileOptions::read_only().with_lock(LockMode::None)).unwrap()
}

/// Where two files first differ; past the end of the shorter one there are zeros. What is a hole in
/// both is not read.
pub(crate) fn first_difference(a: &Path, b: &Path) -> Option<u64> {
    use diskweave::core::StorageExt;
    let (a, b) = (unlocked(a), unlocked(b));
    let len = a.len().unwrap().max(b.len().unwrap());
    let run = |file: &FileStorage, at: u64| match file.next_extent(at) {
        Ok(run) => (run.len, run.allocated),
        Err(_) => (len - at, false),
    };
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < len {
        let (x, y) = (run(&a, at), run(&b, at));
        let both = x.0.min(y.0);
        if !x.1 && !y.1 {
            at += both;
            continue;
        }
        let piece = usize::try_from(both.min(1 << 20)).unwrap();
        a.read_zero_padded(&mut left[..piece], at).unwrap();
        b.read_zero_padded(&mut right[..piece], at).unwrap();
        if left[..piece] != right[..piece] {
            let within = left.iter().zip(&right).position(|(l, r)| l != r);
            return Some(at + within.unwrap() as u64);
        }
        at += piece as u64;
    }
    None
}

/// The files in `dir`, by name, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
