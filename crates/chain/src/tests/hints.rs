//! What a chain remembers of the layers below: it asks them less, and reads the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blockdev_core::{BlockDevice, ErrorKind, ExtentKind, Layer};
use proptest::prelude::*;

use super::sparse::{Asked, SparseLayer, Unit};
use crate::Chain;

const MIB: u64 = 1 << 20;

/// Largest layer of the model, in bytes: some granules.
const MAX: u64 = 72 << 10;

/// `depth` layers of which the bottom holds everything, with what is asked of each.
fn empty_over_full(depth: u64, size: u64) -> (Chain, Vec<Arc<Asked>>) {
    let mut layers: Vec<_> = (1..depth).map(|_| SparseLayer::new(size, 4096)).collect();
    layers.push(SparseLayer::new(size, 4096).with(0, size, 5));
    chain(layers)
}

fn chain(layers: Vec<SparseLayer>) -> (Chain, Vec<Arc<Asked>>) {
    let asked = layers.iter().map(|layer| Arc::clone(&layer.asked));
    let asked = asked.collect();
    let boxed = layers.into_iter().map(SparseLayer::boxed).collect();
    (Chain::from_layers(boxed).unwrap(), asked)
}

/// How often each layer was asked for anything.
fn counts(asked: &[Arc<Asked>]) -> Vec<usize> {
    let count = |asked: &Arc<Asked>| {
        asked.reads.lock().unwrap().len() + asked.statuses.load(Ordering::Relaxed)
    };
    asked.iter().map(count).collect()
}

fn read(chain: &Chain, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xEE; len];
    chain.read_at(&mut buf, offset).unwrap();
    buf
}

#[test]
fn layers_that_hold_nothing_are_asked_once_and_for_more_than_the_request() {
    let (chain, asked) = empty_over_full(20, MIB);
    assert_eq!(read(&chain, 100, 4096), [5; 4096]);
    let before = counts(&asked);
    assert_eq!(before[..19], [1; 19]);
    for at in (0..MIB - 4096).step_by(40_000) {
        assert_eq!(read(&chain, at, 4096), [5; 4096]);
        let extent = chain.block_status(at, 4096).unwrap();
        assert_eq!((extent.kind, extent.depth), (ExtentKind::Data, 19));
    }
    let after = counts(&asked);
    assert_eq!(after[..19], before[..19]);
    assert!(after[19] > before[19]);
}

#[test]
fn zeros_that_nobody_holds_are_remembered_too() {
    let layers = (0..20).map(|_| SparseLayer::new(MIB, 4096));
    let (chain, asked) = chain(layers.collect());
    assert_eq!(read(&chain, 0, 4096), [0; 4096]);
    let before = counts(&asked);
    assert_eq!(read(&chain, 8192, 4096), [0; 4096]);
    let extent = chain.block_status(4096, 8192).unwrap();
    assert_eq!((extent.kind, extent.depth), (ExtentKind::Absent, 19));
    assert_eq!(counts(&asked), before);
}

#[test]
fn a_top_that_is_written_to_is_always_asked_first() {
    let mut layers = vec![SparseLayer::new(MIB, 4096).writable()];
    layers.push(SparseLayer::new(MIB, 4096));
    layers.push(SparseLayer::new(MIB, 4096).with(0, MIB, 5));
    let (chain, asked) = chain(layers);
    for round in 0..3 {
        assert_eq!(read(&chain, 0, 8192), [5; 8192]);
        let counts = counts(&asked);
        assert_eq!((counts[0], counts[1]), (round + 1, 1));
    }
    chain.write_at(&[9; 4096], 4096).unwrap();
    assert_eq!(read(&chain, 0, 8192)[4095..4097], [5, 9]);
    assert_eq!(chain.block_status(0, 8192).unwrap().len, 4096);
    assert_eq!(chain.block_status(4096, 4096).unwrap().depth, 0);
}

/// A merge writes to a layer below the top; what was remembered of those above it would go stale.
#[test]
fn of_layers_that_may_be_written_to_nothing_is_remembered() {
    let below = || SparseLayer::new(MIB, 4096);
    let (chain, asked) = chain(vec![below(), below().writable(), below().with(0, MIB, 5)]);
    for round in 1..4 {
        assert_eq!(read(&chain, 0, 4096), [5; 4096]);
        assert_eq!(counts(&asked), [round; 3]);
    }
    let written = chain.layer(1).unwrap();
    written
        .write_at(&[7; 4096], 0, &blockdev_core::ZerosBelow)
        .unwrap();
    assert_eq!(read(&chain, 0, 4096), [7; 4096]);
    assert_eq!(chain.block_status(0, 4096).unwrap().depth, 1);
}

#[test]
fn a_top_that_is_handed_out_to_be_changed_is_asked_anew() {
    let (mut chain, _) = empty_over_full(2, MIB);
    assert_eq!(read(&chain, 0, 4096), [5; 4096]);
    let (top, ..) = chain.top_mut();
    let top = top.as_any_mut().downcast_mut::<SparseLayer>().unwrap();
    top.set(0, Unit::Data(vec![3; 4096]));
    assert_eq!(read(&chain, 0, 4096), [3; 4096]);
}

#[test]
fn what_could_not_be_read_is_not_remembered() {
    let mut broken = SparseLayer::new(MIB, 4096);
    broken.broken = true;
    let (chain, asked) = chain(vec![
        SparseLayer::new(MIB, 4096),
        broken,
        SparseLayer::new(MIB, 4096).with(0, MIB, 5),
    ]);
    for _ in 0..3 {
        let mut buf = [0; 8192];
        let failed = chain.read_at(&mut buf, 4096).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Io);
        let failed = chain.block_status(4096, 4096).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Io);
    }
    assert_eq!(counts(&asked)[2], 0);
}

/// Where sectors of two layers lie side by side, each run is still one request to its layer.
#[test]
fn remembered_borders_do_not_cut_a_run_that_was_one_read() {
    let size = 64 << 10;
    let top = SparseLayer::new(size, 512).with(20_480 + 512, 20_480 + 1024, 1);
    let (chain, asked) = chain(vec![
        top,
        SparseLayer::new(size, 512),
        SparseLayer::new(size, 512).with(0, size, 5),
    ]);
    for _ in 0..3 {
        for layer in &asked {
            layer.reads.lock().unwrap().clear();
        }
        let disk = read(&chain, 0, 64 << 10);
        assert_eq!(disk[20_991..20_993], [5, 1]);
        let after = 20_480 + 1024;
        let runs = [(0, 20_992), (after, 65_536 - 21_504)];
        assert_eq!(*asked[2].reads.lock().unwrap(), runs);
    }
}

/// How to make one layer: its size, its grain, and what each unit holds, over and over.
type Recipe = (u64, u64, Vec<u8>);

fn recipe() -> impl Strategy<Value = Recipe> {
    let grain = prop::sample::select(vec![512, 700, 4096, 5000, 16_384, 40_000]);
    let states = prop::collection::vec(any::<u8>(), 1..30);
    // Most layers reach to the end.
    let size = prop_oneof![Just(MAX), Just(MAX + 4096), 0..MAX];
    (size, grain, states)
}

fn layer((size, grain, states): &Recipe) -> SparseLayer {
    let layer = SparseLayer::new(*size, *grain);
    for (unit, state) in (0..size.div_ceil(*grain)).zip(states.iter().cycle()) {
        let len = (*grain).min(size - unit * grain);
        match state {
            0..170 => {}
            170..190 => layer.set(unit, Unit::Zero),
            byte => layer.set(unit, Unit::Data(vec![*byte; usize::try_from(len).unwrap()])),
        }
    }
    layer
}

/// What each sector-like piece of the disk is: kind, depth and byte, worked out layer by layer.
fn model(layers: &[SparseLayer]) -> Vec<(ExtentKind, u32, u8)> {
    let byte = |offset| {
        let mut depth = 0;
        for (at, layer) in (0..).zip(layers) {
            if offset >= layer.info.size {
                return (ExtentKind::Absent, depth, 0);
            }
            depth = at;
            let (kind, value) = layer.byte(offset);
            if kind != ExtentKind::Absent {
                return (kind, depth, value);
            }
        }
        (ExtentKind::Absent, depth, 0)
    };
    (0..MAX).map(byte).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_remembered_reads_as_the_model_does_while_the_top_is_written(
        top in recipe(),
        parents in prop::collection::vec(recipe(), 2..7),
        is_writable in any::<bool>(),
        requests in prop::collection::vec((0..MAX, 1..MAX, any::<bool>()), 1..24),
        writes in prop::collection::vec((0..MAX / 2, 1..9000u64, any::<u8>()), 1..12),
    ) {
        let mut layers = vec![layer(&(MAX, top.1, top.2))];
        layers.extend(parents.iter().map(layer));
        let disk = model(&layers);
        // Writes stay in the first half, in whole units of the top, so that the second is as it was.
        let half = (MAX / 2 / top.1) * top.1;
        if is_writable && half > 0 {
            let first = layers.remove(0).writable();
            layers.insert(0, first);
        }
        let writable = is_writable && half > 0;
        let boxed: Vec<Box<dyn Layer>> = layers.into_iter().map(SparseLayer::boxed).collect();
        let chain = Chain::from_layers(boxed).unwrap();
        let index = |offset: u64| usize::try_from(offset).unwrap();
        let least = if writable { half } else { 0 };
        let mut expected: Vec<u8> = disk.iter().map(|byte| byte.2).collect();
        let check = |round: usize| {
            for &(start, len, asks) in &requests {
                let start = start.max(least).min(MAX - 1);
                let len = len.min(MAX - start);
                if asks {
                    let extent = chain.block_status(start, len).unwrap();
                    assert!(extent.len > 0 && extent.len <= len);
                    for byte in &disk[index(start)..index(start + extent.len)] {
                        assert_eq!((byte.0, byte.1), (extent.kind, extent.depth), "{round}");
                    }
                } else {
                    let told = read(&chain, start, index(len));
                    let wanted = disk[index(start)..index(start + len)].iter();
                    assert!(told.iter().eq(wanted.map(|byte| &byte.2)), "{start} {len} {round}");
                }
            }
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let checker = scope.spawn(|| {
                let mut rounds = 0;
                while rounds < 2 || !done.load(Ordering::Relaxed) {
                    check(rounds);
                    rounds += 1;
                }
            });
            if writable {
                for &(start, len, byte) in &writes {
                    let start = start.min(half - 1);
                    let len = len.min(half - start);
                    let range = index(start)..index(start + len);
                    expected[range.clone()].fill(byte);
                    chain.write_at(&expected[range], start).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
            checker.join().unwrap();
        });
        // All of it at once, in pieces, and at once again.
        prop_assert!(read(&chain, 0, expected.len()) == expected);
        for (at, piece) in (0..).zip(expected.chunks(4096)) {
            prop_assert!(read(&chain, at * 4096, piece.len()) == piece);
        }
        prop_assert!(read(&chain, 0, expected.len()) == expected);
    }
}
