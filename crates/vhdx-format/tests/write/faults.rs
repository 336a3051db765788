//! What a host that fails leaves.

use std::sync::Arc;

use blockdev_core::{BlockDevice, ErrorKind, MemoryStorage, OpenOptions};
use testkit::counting::{Fault, FaultyStorage, Op};
use testkit::faults::prove;
use testkit::vhdx_builder::{BlockContent, BlockData};
use vhdx_format::check;

use crate::stories::{STORIES, UNMAP};
use crate::subject::{Disk, MIB, child, content, open};

#[test]
fn every_failure_is_told_and_loses_nothing_that_was_flushed() {
    // What is repaired is opened by what is being proved here.
    let injected = prove(STORIES, |subject| subject.repairs);
    assert!(injected > 500);
}

const SIZE: usize = 6 << 20;

/// A disk whose content is known but where a write failed: there it is old or new.
struct Known {
    bytes: Vec<u8>,
    /// Sectors in doubt.
    doubt: Vec<bool>,
}

impl Known {
    fn write(&mut self, disk: &Disk, at: usize, len: usize, byte: u8) {
        let done = disk.write_at(&vec![byte; len], at as u64);
        self.outcome(done, at, len, byte);
    }

    fn zero(&mut self, disk: &Disk, at: usize, len: usize) {
        let done = disk.write_zeroes(at as u64, len as u64, UNMAP);
        self.outcome(done, at, len, 0);
    }

    fn outcome(&mut self, done: blockdev_core::Result<()>, at: usize, len: usize, byte: u8) {
        let sectors = at / 512..(at + len).div_ceil(512);
        if let Err(error) = &done {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            self.doubt[sectors].fill(true);
        } else {
            self.bytes[at..at + len].fill(byte);
            self.doubt[sectors].fill(false);
        }
    }

    fn is(&self, disk: &Disk, when: &str) {
        let mut seen = vec![0; self.bytes.len()];
        disk.read_at(&mut seen, 0).unwrap();
        for (n, sector) in seen.chunks(512).enumerate() {
            let right = &self.bytes[n * 512..(n + 1) * 512];
            assert!(self.doubt[n] || sector == right, "{when}: sector {n}");
        }
    }
}

fn start() -> (Vec<u8>, Arc<Vec<u8>>, Known) {
    let full = |n| BlockContent::full(BlockData::Bytes(content(n)));
    let image = child(SIZE as u64).block(0, full(1024)).block(1, full(700));
    let base = content(6 << 10);
    let mut bytes = base.clone();
    bytes[..1 << 20].copy_from_slice(&content(1024));
    bytes[1 << 20..2 << 20].fill(0);
    bytes[1 << 20..][..700 << 10].copy_from_slice(&content(700));
    let known = Known {
        bytes,
        doubt: vec![false; SIZE / 512],
    };
    (image.build().to_vec(), Arc::new(base), known)
}

/// The host is full in the middle of a write or a flush, which fails. Then there is room again, the
/// guest writes on, flushes, is told that all is well, and loses power.
#[test]
fn a_full_host_that_gets_room_again_loses_nothing() {
    const BLOCK: usize = 1 << 20;
    let mut met = 0;
    for op in [Op::Write, Op::SetLen, Op::Zero] {
        for nth in 1.. {
            let (image, base, mut known) = start();
            let memory = Arc::new(MemoryStorage::from(image));
            let faulty = FaultyStorage::new(memory.clone());
            let disk = open(faulty.clone(), true, &base).unwrap();
            known.is(&disk, "at the start");
            known.write(&disk, 10_240, 5120, 1);
            known.zero(&disk, BLOCK, BLOCK);
            disk.flush().unwrap();
            faulty.fail_from(op, nth, Fault::NoSpace);
            known.write(&disk, 2 * BLOCK + 2000, 20_480, 2);
            known.write(&disk, 512, 1024, 3);
            known.zero(&disk, 3 * BLOCK, BLOCK);
            let first = disk.flush();
            let hit = faulty.hit();
            known.write(&disk, 4 * BLOCK - 2048, 5120, 4);
            let again = disk.flush();
            if first.is_err() {
                assert!(again.is_err(), "still no room");
            }
            let when = format!("{op:?} {nth}");
            known.is(&disk, &when);
            faulty.heal();
            known.write(&disk, 5 * BLOCK + 4096, 5120, 5);
            known.zero(&disk, 4 * BLOCK, 4096);
            known.write(&disk, BLOCK + 1024, 1024, 6);
            disk.flush().unwrap();
            known.is(&disk, &when);
            // The file as it is now, with whatever the handle still has to write lost.
            let copy = Arc::new(MemoryStorage::from(memory.to_vec()));
            let report = check(copy.clone(), &OpenOptions::read_only()).unwrap();
            assert_eq!(report.corruptions, 0, "{when}: {:?}", report.findings);
            let after = open(copy, true, &base).unwrap();
            known.is(&after, &when);
            drop(disk);
            let report = check(memory, &OpenOptions::read_only()).unwrap();
            assert!(report.is_clean(), "{when}: {:?}", report.findings);
            if !hit {
                break;
            }
            met += 1;
        }
    }
    assert!(met > 3, "{met}");
}

#[test]
fn after_a_failed_sync_nothing_more_is_written() {
    let mut met = 0;
    for kind in [Op::SyncData, Op::SyncFull] {
        for nth in 1..=4 {
            let (image, base, _) = start();
            let faulty = FaultyStorage::new(Arc::new(MemoryStorage::from(image)));
            let disk = open(faulty.clone(), true, &base).unwrap();
            faulty.fail(kind, nth, Fault::Io);
            let done = disk
                .discard(MIB, MIB)
                .and_then(|()| disk.write_at(&[1; 4096], 0))
                .and_then(|()| disk.flush());
            if !faulty.hit() {
                done.unwrap();
                continue;
            }
            met += 1;
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Io);
            let calls = faulty.calls();
            for _ in 0..2 {
                assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::Poisoned);
                let refused = disk.write_at(&[2; 512], 0).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Poisoned);
                let refused = disk.discard(0, MIB).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Poisoned);
                let refused = disk.write_zeroes(0, MIB, UNMAP).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Poisoned);
            }
            assert_eq!(faulty.calls(), calls);
            disk.read_at(&mut [0; 512], 0).unwrap();
            let changes = faulty.calls();
            drop(disk.layer);
            assert_eq!(faulty.calls(), changes, "it is dropped in silence");
        }
    }
    assert!(met >= 2, "{met}");
}
