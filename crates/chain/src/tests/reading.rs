//! Reads and block status through the layers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use blockdev_core::{BlockDevice, ErrorKind, Extent, ExtentKind, FileRef, FileRole};
use proptest::prelude::*;

use super::model::{Byte, MAX, chains, make};
use super::sparse::{SparseLayer, Unit};
use crate::Chain;

fn read(chain: &Chain, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xEE; len];
    chain.read_at(&mut buf, offset).unwrap();
    buf
}

fn nameless_parent() -> FileRef {
    FileRef {
        role: FileRole::Parent,
        names: Vec::new(),
        format: None,
        expected: Vec::new(),
        logical_sector_size: None,
    }
}

/// Runs of one kind and depth.
fn runs(bytes: &[Byte]) -> Vec<(u64, ExtentKind, u32)> {
    let mut runs: Vec<(u64, ExtentKind, u32)> = Vec::new();
    for &(kind, depth, _) in bytes {
        match runs.last_mut() {
            Some((len, k, d)) if (*k, *d) == (kind, depth) => *len += 1,
            _ => runs.push((1, kind, depth)),
        }
    }
    runs
}

proptest! {
    #[test]
    fn random_chains_read_as_the_model_does(
        recipes in chains(),
        ranges in prop::collection::vec((0..MAX, 0..=MAX), 1..8),
    ) {
        let (chain, bytes) = make(&recipes, false);
        let values: Vec<u8> = bytes.iter().map(|byte| byte.2).collect();
        prop_assert_eq!(&read(&chain, 0, values.len()), &values);
        for (start, end) in ranges {
            let end = end.min(chain.size());
            let start = start.min(end);
            let (from, to) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
            prop_assert_eq!(&read(&chain, start, to - from), &values[from..to]);
        }
    }

    #[test]
    fn random_chains_tell_the_extents_the_model_has(
        recipes in chains(),
        start in 0..MAX,
        len in 1..=MAX,
    ) {
        let (chain, bytes) = make(&recipes, false);
        let told: Vec<_> = chain
            .extents(0, u64::MAX)
            .map(|run| run.map(|(_, e)| (e.len, e.kind, e.depth)).unwrap())
            .collect();
        prop_assert_eq!(told, runs(&bytes));

        let start = start % chain.size();
        let len = len.min(chain.size() - start);
        let extent = chain.block_status(start, len).unwrap();
        prop_assert!(extent.len > 0 && extent.len <= len);
        for offset in start..start + extent.len {
            let (kind, depth, _) = bytes[usize::try_from(offset).unwrap()];
            prop_assert_eq!((extent.kind, extent.depth), (kind, depth));
        }
    }
}

#[test]
fn a_short_parent_hides_what_lies_deeper() {
    let chain = Chain::from_layers(vec![
        SparseLayer::new(4096, 512).boxed(),
        SparseLayer::new(1000, 500).boxed(),
        SparseLayer::new(4096, 4096).with(0, 4096, 9).boxed(),
    ])
    .unwrap();
    let bytes = read(&chain, 0, 4096);
    assert_eq!(bytes[..1000], [9; 1000]);
    assert_eq!(bytes[1000..], [0; 3096]);
    let deep = chain.block_status(0, 4096).unwrap();
    assert_eq!(
        (deep.len, deep.kind, deep.depth),
        (1000, ExtentKind::Data, 2)
    );
    let past = chain.block_status(1000, 3096).unwrap();
    assert_eq!(
        (past.len, past.kind, past.depth),
        (3096, ExtentKind::Absent, 0),
        "nobody holds it, and the child is the last that could have"
    );
}

#[test]
fn a_longer_parent_is_cut_at_the_end_of_the_disk() {
    let chain = Chain::from_layers(vec![
        SparseLayer::new(512, 512).boxed(),
        SparseLayer::new(4096, 512).with(0, 4096, 3).boxed(),
    ])
    .unwrap();
    assert_eq!(chain.size(), 512);
    assert_eq!(read(&chain, 0, 512), [3; 512]);
    let mut buf = [0; 2];
    let past = chain.read_at(&mut buf, 511).unwrap_err();
    assert_eq!(past.kind(), ErrorKind::OutOfRange);
    let wraps = chain.read_at(&mut buf, u64::MAX).unwrap_err();
    assert_eq!(wraps.kind(), ErrorKind::OutOfRange);
    assert_eq!(
        chain.block_status(0, 513).unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
    assert_eq!(
        chain.block_status(0, 0).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn a_mebibyte_through_a_parent_is_one_read_of_it() {
    let parent = SparseLayer::new(4 << 20, 4096).with(0, 4 << 20, 5);
    let asked = Arc::clone(&parent.asked);
    let child = SparseLayer::new(4 << 20, 512);
    let chain = Chain::from_layers(vec![child.boxed(), parent.boxed()]).unwrap();
    assert_eq!(read(&chain, 777, 1 << 20), vec![5; 1 << 20]);
    assert_eq!(*asked.reads.lock().unwrap(), [(777, 1 << 20)]);
    let before = asked.statuses.load(Ordering::Relaxed);
    let extent = chain.block_status(0, 4 << 20).unwrap();
    assert_eq!((extent.len, extent.depth), (4 << 20, 1));
    assert_eq!(asked.statuses.load(Ordering::Relaxed) - before, 1);
}

#[test]
fn a_layer_that_holds_everything_asks_nothing_of_its_parents() {
    let parent = SparseLayer::new(4096, 512).with(0, 4096, 5);
    let asked = Arc::clone(&parent.asked);
    let child = SparseLayer::new(4096, 512).with(0, 2048, 1);
    child.set(4, Unit::Zero);
    let chain = Chain::from_layers(vec![child.boxed(), parent.boxed()]).unwrap();
    assert_eq!(read(&chain, 0, 2048), [1; 2048]);
    assert_eq!(
        read(&chain, 2048, 512),
        [0; 512],
        "zeros do not fall through"
    );
    assert!(asked.reads.lock().unwrap().is_empty());
}

#[test]
fn nothing_at_all_is_absent_at_the_depth_of_the_bottom() {
    let layers = (0..4).map(|_| SparseLayer::new(8192, 64).boxed());
    let chain = Chain::from_layers(layers.collect()).unwrap();
    let extent = chain.block_status(100, 8000).unwrap();
    let absent = Extent::new(ExtentKind::Absent, 8000);
    assert_eq!(extent, Extent { depth: 3, ..absent });
    assert_eq!(read(&chain, 100, 8000), [0; 8000]);
}

#[test]
fn the_host_place_is_in_the_file_of_the_layer_that_decides() {
    let parent = SparseLayer::new(4096, 512).with(1024, 4096, 5);
    let id = parent.host.identity();
    let child = SparseLayer::new(4096, 512);
    let chain = Chain::from_layers(vec![child.boxed(), parent.boxed()]).unwrap();
    let extent = chain.block_status(1024, 512).unwrap();
    let (file, offset) = chain.host_of(&extent).unwrap();
    assert_eq!((file.identity(), offset), (id, 1024 + (1 << 20)));
    let nowhere = chain.block_status(0, 512).unwrap();
    assert!(chain.host_of(&nowhere).is_none());
}

#[test]
fn a_detached_chain_never_passes_absent_bytes_off_as_zeros() {
    let mut bottom = SparseLayer::new(4096, 512).with(512, 1024, 2);
    bottom.refs.push(nameless_parent());
    let top = SparseLayer::new(8192, 512).with(0, 512, 1);
    let chain = Chain::from_layers(vec![top.boxed(), bottom.boxed()]).unwrap();
    assert!(chain.is_detached());
    assert_eq!(chain.missing_parent(), Some(&nameless_parent()));
    assert_eq!(read(&chain, 0, 1024)[511..513], [1, 2]);
    assert_eq!(
        read(&chain, 4096, 4096),
        [0; 4096],
        "no parent reaches past the short bottom"
    );
    assert_eq!(
        chain.block_status(4096, 4096).unwrap().kind,
        ExtentKind::Zero,
        "which is known without asking for it"
    );
    let mut buf = [0; 1024];
    let refused = chain.read_at(&mut buf, 512).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsParent);
    assert_eq!(
        chain.block_status(1024, 3072).unwrap().kind,
        ExtentKind::Absent
    );
}

#[test]
fn no_layers_make_no_chain() {
    let refused = Chain::from_layers(Vec::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}
