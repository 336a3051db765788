//! What a host that fails leaves.

use std::sync::Arc;

use blockdev_core::{BlockDevice, ErrorKind, MemoryStorage, OpenOptions};
use qcow2_format::{Qcow2Image, check};
use testkit::counting::{Fault, FaultyStorage, Op};
use testkit::faults::prove;

use crate::stories::{STORIES, UNMAP};
use crate::subject::{Disk, content, filled, open, options};

#[test]
fn every_failure_is_told_and_loses_nothing_that_was_flushed() {
    // What is repaired is opened by what is being proved here.
    let injected = prove(STORIES, |subject| subject.repairs);
    assert!(injected > 500);
}

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

    fn discard(&mut self, disk: &Disk, at: usize, len: usize) {
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

    fn is(&self, disk: &Disk) {
        let mut seen = vec![0; self.bytes.len()];
        disk.read_at(&mut seen, 0).unwrap();
        for (n, sector) in seen.chunks(512).enumerate() {
            let right = &self.bytes[n * 512..(n + 1) * 512];
            assert!(self.doubt[n] || sector == right, "sector {n}");
        }
    }
}

/// The host was full in the middle of a flush, which failed. Then there was room again, the guest
/// wrote on, flushed, was told that all was well, and lost power: what it had written since the
/// first flush was gone.
#[test]
fn a_full_host_that_gets_room_again_loses_nothing() {
    let mut met = 0;
    for bits in [9, 12] {
        for nth in 1.. {
            let image = filled(&content(64), options(256 << 10, bits));
            let memory = Arc::new(MemoryStorage::from(image));
            let faulty = FaultyStorage::new(memory.clone());
            let base = Arc::default();
            let disk = open(faulty.clone(), true, &base).unwrap();
            let mut known = Known {
                bytes: content(64),
                doubt: vec![false; 512],
            };
            known.bytes.resize(256 << 10, 0);
            known.write(&disk, 10_240, 5120, 1);
            known.discard(&disk, 32_768, 8192);
            disk.flush().unwrap();
            faulty.fail_from(Op::Write, nth, Fault::NoSpace);
            known.write(&disk, 102_400, 20_480, 2);
            known.write(&disk, 512, 1024, 3);
            known.discard(&disk, 16_384, 8192);
            let first = disk.flush();
            let hit = faulty.hit();
            known.write(&disk, 151_552, 5120, 4);
            let again = disk.flush();
            if first.is_err() {
                assert!(again.is_err(), "still no room");
            }
            known.is(&disk);
            faulty.heal();
            known.write(&disk, 204_800, 5120, 5);
            known.discard(&disk, 151_552, 4096);
            known.write(&disk, 17_408, 1024, 6);
            disk.flush().unwrap();
            known.is(&disk);
            // The file as it is now, with whatever the handle still has to write lost.
            let copy = Arc::new(MemoryStorage::from(memory.to_vec()));
            let report = check(copy.clone(), &OpenOptions::read_only()).unwrap();
            assert_eq!(report.corruptions, 0, "write {nth}: {:?}", report.findings);
            let after = open(copy, true, &base).unwrap();
            known.is(&after);
            drop(disk);
            let report = check(memory, &OpenOptions::read_only()).unwrap();
            assert!(report.is_clean(), "write {nth}: {:?}", report.findings);
            if !hit {
                break;
            }
            met += 1;
        }
    }
    assert!(met > 10, "{met}");
}

#[test]
fn after_a_failed_sync_nothing_more_is_written() {
    for nth in 1..=2 {
        let image = filled(&content(64), options(64 << 10, 12));
        let faulty = FaultyStorage::new(Arc::new(MemoryStorage::from(image)));
        let image = Qcow2Image::open(faulty.clone(), &OpenOptions::read_write()).unwrap();
        let disk = blockdev_core::LoneLayer::new(Box::new(image));
        disk.discard(0, 8192).unwrap();
        disk.write_at(&[1; 4096], 0).unwrap();
        faulty.fail(Op::SyncData, nth, Fault::Io);
        assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::Io);
        let calls = faulty.calls();
        for _ in 0..2 {
            assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::Poisoned);
            let refused = disk.write_at(&[2; 512], 0).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Poisoned);
            assert_eq!(
                disk.discard(0, 8192).unwrap_err().kind(),
                ErrorKind::Poisoned
            );
        }
        assert_eq!(faulty.calls(), calls);
        let mut seen = [0; 512];
        disk.read_at(&mut seen, 0).unwrap();
        assert_eq!(seen, [1; 512]);
    }
}
