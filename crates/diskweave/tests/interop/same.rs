//! Whether a disk reads as a raw file does.

use std::path::Path;

use diskweave::core::BlockDevice;
use diskweave::{Comparison, NoProgress, OpenDisk, compare};
use testkit::Rng;

/// Larger disks are compared by their extents, which leaves out what neither holds.
const WHOLE: u64 = 96 << 20;

/// Reads `disk` to its end and once more here and there, and holds it against the file `raw`.
pub(crate) fn same(disk: &dyn BlockDevice, raw: &Path) -> Result<(), String> {
    let len = std::fs::metadata(raw).map_err(|e| e.to_string())?.len();
    if disk.size() != len {
        return Err(format!("{} bytes, expected {len}", disk.size()));
    }
    if disk.size() > WHOLE {
        return same_by_extents(disk, raw);
    }
    let size = usize::try_from(disk.size()).unwrap();
    let expected = std::fs::read(raw).map_err(|error| error.to_string())?;
    let mut buffer = vec![0xEE; 1 << 20];
    let mut check = |at: usize, len: usize| {
        let (seen, expected) = (&mut buffer[..len], &expected[at..at + len]);
        disk.read_at(seen, at as u64)
            .map_err(|error| format!("{len} bytes at {at:#x}: {error}"))?;
        match seen.iter().zip(expected).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(n) => Err(format!(
                "byte {:#x} is {:#x}, expected {:#x} (read {len} bytes at {at:#x})",
                at + n,
                seen[n],
                expected[n]
            )),
        }
    };
    for at in (0..size).step_by(1 << 20) {
        check(at, (size - at).min(1 << 20))?;
    }
    let mut rng = Rng::new(disk.size());
    for _ in 0..40 {
        let at = rng.index(size);
        let len = rng.index(size - at).min(200_000);
        check(at, len)?;
    }
    Ok(())
}

fn same_by_extents(disk: &dyn BlockDevice, raw: &Path) -> Result<(), String> {
    let raw = OpenDisk::new()
        .format("raw")
        .open(raw)
        .map_err(|e| e.to_string())?;
    match compare(disk, &raw, false, &NoProgress) {
        Ok(Comparison::Identical { .. }) => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}
