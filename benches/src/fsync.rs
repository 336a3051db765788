//! How often a flush of the guest waits for the disk. Counted, not timed.

use std::path::Path;
use std::sync::Arc;

use blockdev_core::{BlockDevice, FileOptions, FileStorage, LoneLayer, OpenOptions, Storage};
use testkit::counting::{CountingStorage, Op};

use crate::engine::{DRIVERS, text};
use crate::results::{self, Value};
use crate::suite::Suite;
use crate::{Outcome, peak};

const SIZE: u64 = 256 << 20;
/// Further apart than clusters and blocks are long.
const APART: u64 = 16 << 20;

/// What comes before a flush: its name, and where it writes.
const WORKS: [(&str, u64, u64); 4] = [
    ("the first of an open, metadata changed", 0, 1),
    ("only data changed, 8 writes", 0, 8),
    ("metadata changed, 1 write", 1, 1),
    ("metadata changed, 8 writes", 2, 8),
];

pub(crate) fn run(dir: &Path) -> Outcome {
    for driver in DRIVERS {
        let suite = Suite::of(driver.name()).ok_or("no such format")?;
        let path = dir.join("synced").with_extension(driver.name());
        (suite.create)(&path, SIZE)?;
        let file = FileStorage::open(&path, FileOptions::read_write()).map_err(text)?;
        let storage = CountingStorage::new(Arc::new(file));
        let layer = driver.open(
            Arc::clone(&storage) as Arc<dyn Storage>,
            &OpenOptions::read_write(),
        );
        let disk = LoneLayer::new(layer.map_err(text)?);
        for (name, first, count) in WORKS {
            peak::begin();
            storage.reset();
            for number in 0..count {
                // What is written again lies in one place, what is new in many.
                let at = match first {
                    0 => number * 4096,
                    first => (first + number) * APART,
                };
                disk.write_at(&[0x5A; 4096], at).map_err(text)?;
            }
            disk.flush().map_err(text)?;
            let syncs = storage.count(Op::SyncData) + storage.count(Op::SyncFull);
            let syncs = f64::from(u32::try_from(syncs).map_err(text)?);
            println!("{}, {name}: {syncs} syncs", driver.name());
            let work = format!("{}, {name}", driver.name());
            let syncs = Value::once(syncs).with_peak(peak::bytes());
            results::row("fsync", &work, "syncs", syncs, "", None)?;
        }
    }
    Ok(())
}
