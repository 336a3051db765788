use std::sync::Arc;

use blockdev_core::{
    ErrorKind, FileOptions, FileStorage, LoneLayer, MemoryStorage, RawLayer, Storage,
};

use blockdev_core::BlockDevice;

use super::*;
use crate::conformance;

fn raw(bytes: Vec<u8>) -> LoneLayer {
    let storage = Arc::new(MemoryStorage::from(bytes));
    LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
}

fn open(path: &Path) -> LoneLayer {
    let storage = Arc::new(FileStorage::open(path, FileOptions::read_only()).unwrap());
    LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
}

#[test]
fn the_manifest_is_understood_whole() {
    let Some(corpus) = corpus() else { return };
    let records = corpus.records();
    assert!(records.len() >= 200, "{} records", records.len());
    assert!(records.iter().any(|record| record.log_replay));
    let wrong = records
        .iter()
        .filter(|record| record.expect.result == Verdict::ReadError);
    assert!(wrong.clone().count() > 0);
    assert!(
        wrong
            .clone()
            .all(|record| !record.expect.bad_ranges.is_empty())
    );
    assert!(
        records
            .iter()
            .filter(|record| record.expect.result == Verdict::Ok)
            .all(|record| record.virtual_size.is_some() && record.sha256_sparse.is_some())
    );
}

#[test]
fn raw_images_have_the_manifests_hashes() {
    let Some(corpus) = corpus() else { return };
    let records = corpus.of_format("raw");
    assert!(records.len() >= 3);
    for record in records {
        let disk = open(&record.path());
        assert_eq!(Some(disk.info().size), record.virtual_size, "{}", record.id);
        let whole = sha256_virtual(&disk).unwrap();
        assert_eq!(Some(whole), record.sha256_virtual, "{}", record.id);
        let sparse = sha256_sparse(&disk).unwrap();
        assert_eq!(Some(sparse), record.sha256_sparse, "{}", record.id);
        conformance::refuses_changes(&disk);
        record.assert_unharmed();
    }
}

#[test]
fn copies_keep_content_and_holes() {
    let Some(corpus) = corpus() else { return };
    let record = corpus.get("raw-sparse-200M");
    let dir = tempfile::tempdir().unwrap();
    let copy = record.copy_to(dir.path());
    assert_eq!(sha256_file(&copy), record.files[0].sha256);
    let storage = FileStorage::open(&copy, FileOptions::read_write()).unwrap();
    assert!(storage.allocated_len().unwrap() < storage.len().unwrap() / 2);
    storage.write_at(b"changed", 0).unwrap();
    record.assert_unharmed();
}

#[test]
fn zeros_change_the_whole_hash_and_not_the_units() {
    // The recipe by hand: unit 1 is the only one that is not zero, the last is short.
    let mut bytes = vec![0; 3 * 4096 + 100];
    bytes[5000] = 7;
    let mut recipe = 4096u64.to_le_bytes().to_vec();
    recipe.extend_from_slice(&bytes[4096..8192]);
    recipe.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    let disk = raw(bytes.clone());
    assert_eq!(sha256_sparse(&disk).unwrap(), sha256_bytes(&recipe));
    assert_eq!(sha256_virtual(&disk).unwrap(), sha256_bytes(&bytes));
}

/// A disk on which a range cannot be read.
struct Bad(LoneLayer, std::ops::Range<u64>);

impl BlockDevice for Bad {
    fn info(&self) -> &blockdev_core::DeviceInfo {
        self.0.info()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> blockdev_core::Result<()> {
        if offset < self.1.end && self.1.start < offset + buf.len() as u64 {
            return Err(ErrorKind::Corrupt.into());
        }
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> blockdev_core::Result<()> {
        self.0.write_at(buf, offset)
    }

    fn block_status(&self, offset: u64, len: u64) -> blockdev_core::Result<blockdev_core::Extent> {
        self.0.block_status(offset, len)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: blockdev_core::ZeroFlags,
    ) -> blockdev_core::Result<()> {
        self.0.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> blockdev_core::Result<()> {
        self.0.discard(offset, len)
    }

    fn flush(&self) -> blockdev_core::Result<()> {
        self.0.flush()
    }
}

#[test]
fn bad_ranges_are_hashed_as_zeros_and_never_read() {
    let bytes: Vec<u8> = (0..20_000u32).map(|i| i.to_le_bytes()[0] | 1).collect();
    let disk = Bad(raw(bytes.clone()), 5000..6000);
    assert!(sha256_virtual(&disk).is_err());
    let bad = [BadRange {
        offset: 5000,
        len: 1000,
    }];
    let mut zeroed = bytes;
    zeroed[5000..6000].fill(0);
    assert_eq!(
        sha256_virtual_without(&disk, &bad).unwrap(),
        sha256_bytes(&zeroed)
    );
    assert_eq!(
        sha256_sparse_without(&disk, &bad).unwrap(),
        sha256_sparse(&raw(zeroed)).unwrap()
    );
}
