//! Disks that cannot be read everywhere.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diskweave::core::{
    BlockDevice, Error, ErrorKind, LoneLayer, MemoryStorage, RawLayer, Result, Salvage, Storage,
};
use testkit::conformance;

/// Sevens, of which some ranges cannot be read.
#[derive(Debug)]
struct Scratched {
    len: u64,
    bad: Vec<Range<u64>>,
    kind: ErrorKind,
    /// How often something was asked for.
    asked: AtomicU64,
}

impl Storage for Scratched {
    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let end = offset + buf.len() as u64;
        if self
            .bad
            .iter()
            .any(|bad| bad.start < end && offset < bad.end)
        {
            return Err(Error::new(self.kind, "scratched"));
        }
        buf.fill(7);
        Ok(())
    }
}

fn scratched(
    len: u64,
    bad: impl IntoIterator<Item = Range<u64>>,
    kind: ErrorKind,
) -> (Arc<Scratched>, LoneLayer) {
    let storage = Arc::new(Scratched {
        len,
        bad: bad.into_iter().collect(),
        kind,
        asked: AtomicU64::new(0),
    });
    let layer = RawLayer::open(storage.clone()).unwrap();
    (storage, LoneLayer::new(Box::new(layer)))
}

#[test]
fn only_the_sectors_that_fail_are_lost() {
    let bad = [1000..1001, 5120..9216, 99_999..100_000];
    let (_, disk) = scratched(100_000, bad, ErrorKind::Io);
    let salvage = Salvage::new(&disk);
    let mut bytes = vec![1; 100_000];
    salvage.read_at(&mut bytes, 0).unwrap();
    let lost = salvage.lost();
    assert_eq!(lost.ranges, [512..1024, 5120..9216, 99_840..100_000]);
    assert_eq!(lost.bytes, 512 + 4096 + 160);
    assert_eq!(lost.reason.as_deref(), Some("scratched"));
    for (at, byte) in (0..).zip(bytes) {
        let gone = lost.ranges.iter().any(|range| range.contains(&at));
        assert_eq!(byte, if gone { 0 } else { 7 }, "{at}");
    }
}

#[test]
fn what_is_merely_out_of_reach_stays_an_error() {
    let (_, disk) = scratched(8192, Some(512..1024), ErrorKind::NeedsParent);
    let salvage = Salvage::new(&disk);
    let failed = salvage.read_at(&mut [0; 8192], 0).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::NeedsParent);
    assert!(salvage.lost().ranges.is_empty());
}

#[test]
fn a_disk_of_which_nothing_can_be_read_takes_an_end() {
    const LEN: u64 = 4 << 30;
    let (storage, disk) = scratched(LEN, Some(0..LEN), ErrorKind::Io);
    let salvage = Salvage::new(&disk);
    let mut buffer = vec![1; 1 << 20];
    for at in (0..LEN).step_by(buffer.len()) {
        salvage.read_at(&mut buffer, at).unwrap();
        assert_eq!(buffer[77], 0);
    }
    let lost = salvage.lost();
    assert_eq!((lost.ranges.len(), lost.bytes), (1, LEN));
    assert_eq!(lost.ranges[0], 0..LEN);
    // By single sectors it would be sixteen million.
    let asked = storage.asked.load(Ordering::Relaxed);
    assert!(asked < 250_000, "{asked}");
}

#[test]
fn a_sound_disk_reads_as_it_is() {
    let bytes: Vec<u8> = (0..70_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let storage = Arc::new(MemoryStorage::from(bytes.clone()));
    let disk = LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()));
    let salvage = Salvage::new(&disk);
    conformance::readable(&salvage, &bytes);
    conformance::refuses_changes(&salvage);
    assert_eq!(salvage.lost().bytes, 0);
}
