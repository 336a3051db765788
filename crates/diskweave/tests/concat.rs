//! Several disks as one.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use diskweave::core::{
    BlockDevice, Concat, ErrorKind, LoneLayer, MemoryStorage, OverlayStorage, RawLayer, Storage,
};
use testkit::conformance;

/// A raw disk of `len` bytes, each `byte`, with zeros known as such in its second half.
fn disk(len: usize, byte: u8) -> (Vec<u8>, LoneLayer) {
    let mut bytes = vec![byte; len];
    bytes[len / 2..].fill(0);
    let base = Arc::new(MemoryStorage::from(bytes.clone()));
    let storage = OverlayStorage::new(base, 0).unwrap();
    storage
        .zero_range(len as u64 / 2, (len - len / 2) as u64)
        .unwrap();
    let layer = RawLayer::open(Arc::new(storage)).unwrap();
    (bytes, LoneLayer::new(Box::new(layer)))
}

#[test]
fn disks_follow_each_other_on_whole_sectors() {
    let disks = [
        disk(700, 1),
        disk(0, 2),
        disk(1, 3),
        disk(512, 4),
        disk(1_300_001, 5),
        disk(0, 6),
    ];
    let mut expected = Vec::new();
    for (bytes, _) in &disks {
        expected.extend_from_slice(bytes);
        expected.resize(expected.len().next_multiple_of(512), 0);
    }
    let whole = Concat::new(disks.iter().map(|(_, disk)| disk as &dyn BlockDevice)).unwrap();
    conformance::readable_at(&whole, &expected, &[700, 1024, 1025, 1536, 2048]);
    conformance::refuses_changes(&whole);
    let zeros = whole.block_status(350, 4096).unwrap();
    assert_eq!(zeros.len, 350, "a run ends with its disk");
    assert_eq!(whole.block_status(700, 4096).unwrap().len, 324);
}

#[test]
fn empty_disks_are_an_empty_disk_and_no_disks_are_none() {
    let (_, empty) = disk(0, 1);
    let whole = Concat::new([&empty as &dyn BlockDevice, &empty]).unwrap();
    assert_eq!(whole.size(), 0);
    whole.read_at(&mut [], 0).unwrap();
    assert!(whole.block_status(0, 1).is_err());
    assert_eq!(Concat::new([]).unwrap_err().kind(), ErrorKind::InvalidInput);
}
