//! Comparing disks.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diskweave::chain::{Chain, ChainBuilder, Top};
use diskweave::core::{ErrorKind, MemoryStorage};
use diskweave::{Comparison, NoProgress, OpenDisk, Progress, compare, drivers};
use support::{MIB, beneath, full, save};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

fn raw(bytes: Vec<u8>) -> Chain {
    let storage = Arc::new(MemoryStorage::from(bytes));
    ChainBuilder::new(drivers())
        .build(Top::storage(storage, "raw"))
        .unwrap()
}

fn vhdx(image: &VhdxBuilder) -> Chain {
    let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
    ChainBuilder::new(drivers())
        .build(Top::storage(storage, "vhdx"))
        .unwrap()
}

fn result(a: &Chain, b: &Chain, strict: bool) -> Comparison {
    let one = compare(a, b, strict, &NoProgress).unwrap();
    let other = compare(b, a, strict, &NoProgress).unwrap();
    assert_eq!(one, other, "the order does not matter");
    one
}

const SAME: Comparison = Comparison::Identical {
    sizes_differ: false,
};
const SAME_BUT_SIZE: Comparison = Comparison::Identical { sizes_differ: true };

#[test]
fn one_changed_bit_anywhere_is_found_at_its_byte() {
    let plain = vec![0x5A; 3 << 20];
    let a = raw(plain.clone());
    for at in [0, 511, 1 << 20, (1 << 20) - 1, (3 << 20) - 1] {
        let mut changed = plain.clone();
        changed[at] ^= 0x80;
        let offset = at as u64;
        assert_eq!(
            result(&a, &raw(changed), false),
            Comparison::ContentDiffers { offset }
        );
    }
    assert_eq!(result(&a, &raw(plain), true), SAME);
}

#[test]
fn zeros_are_zeros_whether_stored_or_not() {
    let blocks = VhdxBuilder::new(4 * MIB)
        .block(0, BlockContent::full(BlockData::Byte(0)))
        .block(1, BlockContent::Zero)
        .block(2, BlockContent::Unmapped { kept: None });
    assert_eq!(result(&vhdx(&blocks), &raw(vec![0; 4 << 20]), false), SAME);
    let mut one = vec![0; 4 << 20];
    one[(1 << 20) + 7] = 1;
    assert_eq!(
        result(&vhdx(&blocks), &raw(one), false),
        Comparison::ContentDiffers {
            offset: (1 << 20) + 7
        }
    );
}

#[test]
fn a_longer_disk_is_the_same_only_if_it_ends_in_zeros() {
    let long = |tail: u8| {
        let mut bytes = vec![1; 2 << 20];
        bytes.extend(vec![0; 1 << 20]);
        *bytes.last_mut().unwrap() = tail;
        raw(bytes)
    };
    let short = raw(vec![1; 2 << 20]);
    assert_eq!(result(&short, &long(0), false), SAME_BUT_SIZE);
    assert_eq!(result(&short, &long(0), true), Comparison::SizesDiffer);
    let offset = (3 << 20) - 1;
    assert_eq!(
        result(&short, &long(9), false),
        Comparison::ContentDiffers { offset }
    );
    assert_eq!(result(&raw(Vec::new()), &raw(Vec::new()), true), SAME);
    assert_eq!(
        result(&raw(Vec::new()), &raw(vec![0; 9]), false),
        SAME_BUT_SIZE
    );
}

#[test]
fn strictly_stored_zeros_are_not_a_hole() {
    let empty = VhdxBuilder::new(4 * MIB);
    let zeros = empty
        .clone()
        .block(2, BlockContent::full(BlockData::Byte(0)));
    let (empty, zeros) = (vhdx(&empty), vhdx(&zeros));
    assert_eq!(result(&empty, &zeros, false), SAME);
    let offset = 2 * MIB;
    assert_eq!(
        result(&empty, &zeros, true),
        Comparison::AllocationDiffers { offset }
    );
    // The same of raw files, whose holes only the file system knows.
    let dir = tempfile::tempdir().unwrap();
    let (hole, stored) = (dir.path().join("hole"), dir.path().join("stored"));
    std::fs::File::create(&hole).unwrap().set_len(MIB).unwrap();
    std::fs::write(&stored, vec![0; 1 << 20]).unwrap();
    let open = |path| OpenDisk::new().format("raw").open(path).unwrap();
    let (hole, stored) = (open(&hole), open(&stored));
    assert_eq!(result(&hole, &stored, false), SAME);
    assert_eq!(
        result(&hole, &stored, true),
        Comparison::AllocationDiffers { offset: 0 }
    );
}

#[test]
fn what_is_in_a_missing_parent_is_an_error_and_never_equal_to_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let base = full(2);
    save(dir.path(), "base.vhdx", &base);
    let child = save(
        dir.path(),
        "child.vhdx",
        &VhdxBuilder::child_of(&base, "base.vhdx"),
    );
    let alone = OpenDisk::new().open(&child).unwrap();
    let zeros = raw(vec![0; 2 << 20]);
    for (a, b) in [(&alone, &zeros), (&zeros, &alone)] {
        for strict in [false, true] {
            match compare(a, b, strict, &NoProgress) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::NeedsParent),
                Ok(Comparison::AllocationDiffers { .. }) if strict => {}
                Ok(other) => panic!("{other:?}"),
            }
        }
    }
    let whole = beneath(&child).open(&child).unwrap();
    let parent = OpenDisk::new().open(dir.path().join("base.vhdx")).unwrap();
    assert_eq!(result(&whole, &parent, false), SAME);
}

#[derive(Default)]
struct Watcher {
    total: AtomicU64,
    done: AtomicU64,
    stop_after: Option<u64>,
}

impl Progress for Watcher {
    fn start(&self, total: u64) {
        self.total.store(total, Ordering::SeqCst);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::SeqCst);
    }

    fn is_cancelled(&self) -> bool {
        self.stop_after
            .is_some_and(|most| self.done.load(Ordering::SeqCst) >= most)
    }
}

#[test]
fn progress_comes_to_its_total_and_can_stop_it() {
    let (a, b) = (raw(vec![1; 5 << 20]), raw(vec![1; 5 << 20]));
    let watcher = Watcher::default();
    compare(&a, &b, false, &watcher).unwrap();
    assert_eq!(watcher.total.into_inner(), 5 * MIB);
    assert_eq!(watcher.done.into_inner(), 5 * MIB);
    let stopper = Watcher {
        stop_after: Some(2 * MIB),
        ..Watcher::default()
    };
    let stopped = compare(&a, &b, false, &stopper).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::InvalidInput);
    assert_eq!(stopper.done.into_inner(), 2 * MIB);
}
