//! Changes: to the top only, with what is below carried up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use blockdev_core::{BlockDevice, Caps, ErrorKind, FileRef, FileRole, ZeroFlags};
use proptest::prelude::*;

use super::model::{MAX, chains, make};
use super::sparse::SparseLayer;
use crate::Chain;

#[derive(Debug, Clone)]
enum Change {
    Write(u8),
    Zero,
    Discard,
    Flush,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1u8..).prop_map(Change::Write),
        Just(Change::Zero),
        Just(Change::Discard),
        Just(Change::Flush),
    ]
}

proptest! {
    #[test]
    fn random_changes_leave_what_a_flat_disk_would_hold(
        recipes in chains(),
        changes in prop::collection::vec((change(), 0..MAX, 0..100usize), 1..20),
    ) {
        let (chain, bytes) = make(&recipes, true);
        let mut flat: Vec<u8> = bytes.iter().map(|byte| byte.2).collect();
        for (change, start, len) in changes {
            let start = usize::try_from(start).unwrap() % flat.len();
            let end = (start + len).min(flat.len());
            let (offset, len) = (start as u64, (end - start) as u64);
            match change {
                Change::Write(byte) => {
                    flat[start..end].fill(byte);
                    chain.write_at(&flat[start..end], offset).unwrap();
                }
                Change::Zero => {
                    flat[start..end].fill(0);
                    chain.write_zeroes(offset, len, ZeroFlags::default()).unwrap();
                }
                Change::Discard => {
                    chain.discard(offset, len).unwrap();
                    let before = flat.clone();
                    chain.read_at(&mut flat, 0).unwrap();
                    for (at, (new, old)) in flat.iter().zip(&before).enumerate() {
                        let discarded = (start..end).contains(&at);
                        prop_assert!(new == old || (discarded && *new == 0));
                    }
                }
                Change::Flush => chain.flush().unwrap(),
            }
            let mut now = vec![0xEE; flat.len()];
            chain.read_at(&mut now, 0).unwrap();
            prop_assert_eq!(&now, &flat);
        }
    }
}

fn kinds(chain: &Chain) -> Vec<ErrorKind> {
    let changes = [
        chain.write_at(&[1; 8], 0),
        chain.write_zeroes(0, 8, ZeroFlags::default()),
        chain.discard(0, 8),
    ];
    changes.map(|change| change.unwrap_err().kind()).to_vec()
}

#[test]
fn copy_up_takes_zeros_past_the_end_of_a_short_parent() {
    let top = SparseLayer::new(4096, 4096).writable();
    let chain = Chain::from_layers(vec![
        top.boxed(),
        SparseLayer::new(100, 10).with(0, 100, 4).boxed(),
        SparseLayer::new(4096, 512).with(0, 4096, 9).boxed(),
    ])
    .unwrap();
    chain.write_at(&[1], 2000).unwrap();
    let mut disk = [0xEE; 4096];
    chain.read_at(&mut disk, 0).unwrap();
    let mut wanted = [0; 4096];
    wanted[..100].fill(4);
    wanted[2000] = 1;
    assert_eq!(disk, wanted);
    assert_eq!(chain.block_status(0, 4096).unwrap().depth, 0);
}

#[test]
fn a_read_only_top_refuses_every_change_and_still_flushes() {
    let chain = Chain::from_layers(vec![SparseLayer::new(512, 512).boxed()]).unwrap();
    assert_eq!(kinds(&chain), [ErrorKind::ReadOnly; 3]);
    chain.flush().unwrap();
    let mut top = SparseLayer::new(512, 512).writable();
    top.info.caps.write = false;
    let chain = Chain::from_layers(vec![top.boxed()]).unwrap();
    assert_eq!(kinds(&chain), [ErrorKind::ReadOnly; 3]);
}

#[test]
fn a_detached_chain_refuses_changes_it_could_not_complete() {
    let mut top = SparseLayer::new(512, 512).writable();
    top.refs.push(FileRef {
        role: FileRole::Parent,
        names: Vec::new(),
        format: None,
        expected: Vec::new(),
        logical_sector_size: None,
    });
    let chain = Chain::from_layers(vec![top.boxed()]).unwrap();
    assert_eq!(kinds(&chain), [ErrorKind::NeedsParent; 3]);
}

#[test]
fn changes_past_the_end_are_refused() {
    let top = SparseLayer::new(512, 512).writable();
    let chain = Chain::from_layers(vec![top.boxed()]).unwrap();
    let flags = ZeroFlags::default();
    for past in [
        chain.write_at(&[1; 8], 505),
        chain.write_zeroes(505, 8, flags),
        chain.discard(u64::MAX, 8),
    ] {
        assert_eq!(past.unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}

#[test]
fn zeros_are_written_byte_by_byte_where_the_format_knows_no_other_way() {
    let mut top = SparseLayer::new(200 << 10, 64 << 10).writable();
    top.info.caps = Caps {
        write: true,
        ..Caps::default()
    };
    let base = SparseLayer::new(200 << 10, 512).with(0, 200 << 10, 6);
    let chain = Chain::from_layers(vec![top.boxed(), base.boxed()]).unwrap();
    let no_fallback = ZeroFlags {
        no_fallback: true,
        ..ZeroFlags::default()
    };
    let refused = chain.write_zeroes(0, 512, no_fallback).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    chain
        .write_zeroes(1000, 150_000, ZeroFlags::default())
        .unwrap();
    chain.discard(0, 200 << 10).unwrap();
    let mut disk = vec![0xEE; 200 << 10];
    chain.read_at(&mut disk, 0).unwrap();
    let mut wanted = vec![6; 200 << 10];
    wanted[1000..151_000].fill(0);
    assert!(disk == wanted);
}

#[test]
fn a_flush_is_asked_of_the_top_alone() {
    let layers = [
        SparseLayer::new(512, 512).writable(),
        SparseLayer::new(512, 512),
    ];
    let asked = layers.each_ref().map(|layer| Arc::clone(&layer.asked));
    let chain = Chain::from_layers(layers.map(SparseLayer::boxed).into()).unwrap();
    chain.flush().unwrap();
    let flushes = asked.map(|asked| asked.flushes.load(Ordering::Relaxed));
    assert_eq!(flushes, [1, 0]);
    chain.close().unwrap();
}
