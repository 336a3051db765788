//! Reads of every shape.

use std::io::IoSliceMut;

use blockdev_core::{BlockDevice, ErrorKind};

use super::points::{self, LARGEST};
use super::{Content, status};
use crate::Rng;

/// Disks up to this size are compared whole; larger ones at points and along their extents.
const WHOLE: u64 = 256 << 20;

/// Checks that `device` shows exactly `expected`, in requests of every alignment, from one thread
/// and from several, and that its extents describe it.
///
/// # Panics
/// At the first difference, with its offset.
pub fn readable<C: Content + ?Sized>(device: &dyn BlockDevice, expected: &C) {
    readable_at(device, expected, &[]);
}

/// As [`readable`], with a close look around `points` as well: borders only the test knows of.
///
/// # Panics
/// At the first difference, with its offset.
pub fn readable_at<C: Content + ?Sized>(device: &dyn BlockDevice, expected: &C, points: &[u64]) {
    assert_eq!(device.size(), expected.size(), "size of the disk");
    assert_eq!(device.size(), device.info().size);
    around_borders(device, expected, points);
    in_pieces(device, expected);
    past_the_end(device);
    at_random(device, expected, 1, 100);
    if device.size() <= WHOLE {
        whole(device, expected);
    }
    status::describes(device, expected, points);
    from_many_threads(device, expected);
}

/// Reads `len` bytes at `offset` (cut at the end of the disk) and compares them.
pub(super) fn same<C: Content + ?Sized>(
    device: &dyn BlockDevice,
    expected: &C,
    offset: u64,
    len: u64,
) {
    let len = len.min(device.size() - offset).min(LARGEST);
    let mut right = vec![0; usize::try_from(len).expect("a request's length")];
    expected.fill(&mut right, offset);
    // The buffer starts out wrong in every byte, so that one left unfilled shows.
    let mut seen: Vec<u8> = right.iter().map(|byte| !byte).collect();
    if let Err(error) = device.read_at(&mut seen, offset) {
        panic!("read of {len} bytes at {offset:#x}: {error}");
    }
    compare(&seen, &right, offset, "read");
}

fn compare(seen: &[u8], right: &[u8], offset: u64, how: &str) {
    if seen == right {
        return;
    }
    let at = (0..seen.len())
        .find(|&i| seen[i] != right[i])
        .expect("they differ");
    let wrong = (0..seen.len()).filter(|&i| seen[i] != right[i]).count();
    panic!(
        "{how} of {} bytes at {offset:#x}: {wrong} bytes are wrong, the first at {:#x}: {:#04x} \
         instead of {:#04x}",
        right.len(),
        offset + at as u64,
        seen[at],
        right[at],
    );
}

fn around_borders<C: Content + ?Sized>(device: &dyn BlockDevice, expected: &C, extra: &[u64]) {
    let lengths = points::lengths(device.info());
    for (n, at) in points::offsets(device.info(), extra)
        .into_iter()
        .enumerate()
    {
        for &len in &lengths {
            // Long requests are dear and cross the same borders from each of the nine starts.
            if len <= 1 << 17 || n % 4 == 0 {
                same(device, expected, at, len);
            }
        }
    }
}

fn in_pieces<C: Content + ?Sized>(device: &dyn BlockDevice, expected: &C) {
    const PIECES: [usize; 7] = [1, 0, 511, 512, 4097, 65_536, 3];
    let total: usize = PIECES.iter().sum();
    if device.size() < total as u64 {
        return;
    }
    for at in points::offsets(device.info(), &[]) {
        let at = at.min(device.size() - total as u64);
        let mut right = vec![0; total];
        expected.fill(&mut right, at);
        let mut seen: Vec<u8> = right.iter().map(|byte| !byte).collect();
        let mut rest = seen.as_mut_slice();
        let mut slices = Vec::new();
        for len in PIECES {
            let (piece, after) = rest.split_at_mut(len);
            slices.push(IoSliceMut::new(piece));
            rest = after;
        }
        if let Err(error) = device.readv_at(&mut slices, at) {
            panic!("vectored read at {at:#x}: {error}");
        }
        compare(&seen, &right, at, "vectored read");
    }
}

fn past_the_end(device: &dyn BlockDevice) {
    let size = device.size();
    let mut buf = [0; 513];
    let mut refused = vec![(size, 1), (u64::MAX, 1), (u64::MAX - 511, 513)];
    refused.push((size.saturating_add(1), 0));
    refused.extend(size.checked_sub(1).map(|at| (at, 2)));
    refused.extend(size.checked_sub(512).map(|at| (at, 513)));
    for (at, len) in refused {
        let kind = device.read_at(&mut buf[..len], at).map_err(|e| e.kind());
        assert_eq!(
            kind,
            Err(ErrorKind::OutOfRange),
            "read of {len} bytes at {at:#x} of {size:#x}"
        );
    }
    device
        .read_at(&mut [], size)
        .expect("no bytes can be read at the end");
}

fn at_random<C: Content + ?Sized>(device: &dyn BlockDevice, expected: &C, seed: u64, times: u32) {
    let mut rng = Rng::new(seed);
    for _ in 0..times {
        let at = rng.below(device.size() + 1);
        let len = rng.below(200_000);
        same(device, expected, at, len);
    }
}

fn whole<C: Content + ?Sized>(device: &dyn BlockDevice, expected: &C) {
    let mut at = 0;
    while at < device.size() {
        same(device, expected, at, 1 << 20);
        at += 1 << 20;
    }
}

fn from_many_threads<C: Content + ?Sized>(device: &dyn BlockDevice, expected: &C) {
    std::thread::scope(|scope| {
        for seed in 100..104 {
            scope.spawn(move || at_random(device, expected, seed, 50));
        }
    });
}
