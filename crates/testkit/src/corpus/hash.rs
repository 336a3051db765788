//! The manifest's hashes of files and of disks.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use blockdev_core::{BlockDevice, Extent, ExtentKind, Extents, Result};
use sha2::{Digest, Sha256};

use super::BadRange;

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;

/// The unit that the sparse hash leaves out when it is all zeros.
const UNIT: u64 = 4096;

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

fn hex(hash: Sha256) -> String {
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// SHA-256 of `bytes`, in hex.
#[must_use]
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// SHA-256 of a host file, in hex.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn sha256_file(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buf = vec![0; 1 << 20];
        loop {
            match file.read(&mut buf)? {
                0 => return Ok(hex(hash)),
                n => hash.update(&buf[..n]),
            }
        }
    };
    read().unwrap_or_else(|error: std::io::Error| panic!("{}: {error}", path.display()))
}

/// SHA-256 of the whole disk, in hex. Runs of zeros are hashed without being read, but hashed:
/// for large disks [`sha256_sparse`] is the one to take.
///
/// # Errors
/// The device's.
pub fn sha256_virtual(device: &dyn BlockDevice) -> Result<String> {
    sha256_virtual_without(device, &[])
}

/// As [`sha256_virtual`], with zeros in place of `bad`, whose bytes are not asked for.
///
/// # Errors
/// The device's.
pub fn sha256_virtual_without(device: &dyn BlockDevice, bad: &[BadRange]) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; ZEROS.len()];
    for run in runs(device, bad) {
        let (start, run) = run?;
        let mut done = 0;
        while done < run.len {
            let piece = usize::try_from((run.len - done).min(PIECE)).expect("a piece");
            if reads_as_zeros(&run) {
                hash.update(&ZEROS[..piece]);
            } else {
                device.read_at(&mut buf[..piece], start + done)?;
                hash.update(&buf[..piece]);
            }
            done += piece as u64;
        }
    }
    Ok(hex(hash))
}

/// The manifest's sparse hash of the whole disk, in hex: over each 4096-byte unit that is not all
/// zeros (the last may be short) its offset as 8 bytes little-endian and its bytes; at the end the
/// size of the disk as 8 bytes little-endian. Costs what is allocated.
///
/// # Errors
/// The device's.
pub fn sha256_sparse(device: &dyn BlockDevice) -> Result<String> {
    sha256_sparse_without(device, &[])
}

/// As [`sha256_sparse`], with zeros in place of `bad`, whose bytes are not asked for.
///
/// # Errors
/// The device's.
pub fn sha256_sparse_without(device: &dyn BlockDevice, bad: &[BadRange]) -> Result<String> {
    let size = device.size();
    let mut hash = Sha256::new();
    let mut buf = vec![0; ZEROS.len()];
    // Up to here every unit has been dealt with.
    let mut next = 0;
    for run in runs(device, bad) {
        let (start, run) = run?;
        if reads_as_zeros(&run) {
            continue;
        }
        // Units are taken whole, also where a run begins or ends inside one.
        next = next.max(start / UNIT * UNIT);
        let end = (start + run.len).next_multiple_of(UNIT).min(size);
        while next < end {
            let piece = usize::try_from((end - next).min(PIECE)).expect("a piece");
            read_without(device, &mut buf[..piece], next, bad)?;
            for (n, unit) in buf[..piece].chunks(4096).enumerate() {
                if unit != &ZEROS[..unit.len()] {
                    hash.update((next + n as u64 * UNIT).to_le_bytes());
                    hash.update(unit);
                }
            }
            next += piece as u64;
        }
    }
    hash.update(size.to_le_bytes());
    Ok(hex(hash))
}

fn reads_as_zeros(run: &Extent) -> bool {
    matches!(run.kind, ExtentKind::Zero | ExtentKind::Absent)
}

/// Reads `buf` at `offset` piecewise around `bad`, which is left as zeros.
fn read_without(
    device: &dyn BlockDevice,
    buf: &mut [u8],
    offset: u64,
    bad: &[BadRange],
) -> Result<()> {
    let end = offset + buf.len() as u64;
    let index = |at: u64| usize::try_from(at - offset).expect("inside the buffer");
    let mut at = offset;
    for gap in in_order(bad) {
        let (from, to) = (
            gap.offset.clamp(at, end),
            (gap.offset + gap.len).clamp(at, end),
        );
        device.read_at(&mut buf[index(at)..index(from)], at)?;
        buf[index(from)..index(to)].fill(0);
        at = to;
    }
    device.read_at(&mut buf[index(at)..], at)
}

fn in_order(bad: &[BadRange]) -> Vec<BadRange> {
    let mut bad = bad.to_vec();
    bad.sort_unstable_by_key(|range| range.offset);
    bad
}

/// The disk's runs, with the bad ranges as runs of zeros that nobody asked the device about.
fn runs<'a>(
    device: &'a dyn BlockDevice,
    bad: &[BadRange],
) -> Box<dyn Iterator<Item = Result<(u64, Extent)>> + 'a> {
    let mut parts: Box<dyn Iterator<Item = _>> = Box::new(std::iter::empty());
    let mut at = 0;
    for gap in in_order(bad) {
        let zeros = Extent::new(ExtentKind::Zero, gap.len);
        parts = Box::new(
            parts
                .chain(Extents::new(device, at, gap.offset - at))
                .chain(std::iter::once(Ok((gap.offset, zeros)))),
        );
        at = gap.offset + gap.len;
    }
    Box::new(parts.chain(Extents::new(device, at, u64::MAX)))
}
