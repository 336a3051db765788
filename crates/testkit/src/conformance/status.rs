//! Extents: whole cover, honest lengths, zeros where zeros are promised.

use blockdev_core::{BlockDevice, ErrorKind, Extent, ExtentKind, Extents};

use super::points::{self, LARGEST};
use super::{Content, read};

/// A disk in more pieces than this is looked at in part only.
const MOST_RUNS: usize = 100_000;

/// Checks that the extents of `device` cover it and agree with `expected`.
pub(super) fn describes<C: Content + ?Sized>(
    device: &dyn BlockDevice,
    expected: &C,
    extra: &[u64],
) {
    let runs = cover(device);
    joined(device, &runs);
    for &(start, run) in &runs {
        if matches!(run.kind, ExtentKind::Zero | ExtentKind::Absent) {
            promised_zeros(expected, start, run.len);
        }
        // Both ends of each run as the device reads them, across the border to the neighbours.
        read::same(device, expected, start.saturating_sub(513), 1026);
        read::same(device, expected, start, 64 << 10);
    }
    small_questions(device, &runs, extra);
    bad_questions(device);
}

/// Walks the disk by `block_status`; asserts that no step is empty or longer than asked.
fn cover(device: &dyn BlockDevice) -> Vec<(u64, Extent)> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < device.size() && runs.len() < MOST_RUNS {
        let run = ask(device, at, device.size() - at);
        runs.push((at, run));
        at += run.len;
    }
    runs
}

fn ask(device: &dyn BlockDevice, at: u64, len: u64) -> Extent {
    let run = match device.block_status(at, len) {
        Ok(run) => run,
        Err(error) => panic!("block status of {len:#x} bytes at {at:#x}: {error}"),
    };
    assert!(run.len > 0, "empty run at {at:#x}");
    assert!(
        run.len <= len,
        "run of {:#x} bytes at {at:#x} where {len:#x} were asked for",
        run.len
    );
    assert!(
        run.kind != ExtentKind::Absent || run.host.is_none(),
        "what no layer holds has no place at {at:#x}"
    );
    run
}

/// The iterator gives the same runs, neighbours joined, and no gap.
fn joined(device: &dyn BlockDevice, runs: &[(u64, Extent)]) {
    let mut next = 0;
    let mut last: Option<Extent> = None;
    for item in Extents::new(device, 0, u64::MAX).take(MOST_RUNS) {
        let (start, run) = item.expect("the walk before had no error");
        assert_eq!(start, next, "extents leave no gap");
        assert!(
            last.is_none_or(|last| !last.joins(&run)),
            "neighbours at {start:#x} are not joined"
        );
        next += run.len;
        last = Some(run);
    }
    if runs.len() < MOST_RUNS {
        assert_eq!(next, device.size(), "extents cover the disk");
    }
}

fn promised_zeros<C: Content + ?Sized>(expected: &C, start: u64, len: u64) {
    let mut buf = vec![0; 1 << 20];
    let mut look = |at: u64, len: u64| {
        let part = &mut buf[..usize::try_from(len).expect("a piece")];
        expected.fill(part, at);
        if let Some(wrong) = part.iter().position(|&byte| byte != 0) {
            panic!(
                "called zeros at {start:#x}, but the content at {:#x} is not",
                at + wrong as u64
            );
        }
    };
    if len <= 64 * LARGEST {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(1 << 20);
            look(start + done, piece);
            done += piece;
        }
    } else {
        // A model can say what is at a place, not that there is nothing anywhere.
        look(start, 1 << 20);
        look(start + len / 2, 1 << 20);
        look(start + len - (1 << 20), 1 << 20);
    }
}

/// A short question gets the same kind as the long one did, and never a longer answer.
fn small_questions(device: &dyn BlockDevice, runs: &[(u64, Extent)], extra: &[u64]) {
    let covered = runs.last().map_or(0, |(start, run)| start + run.len);
    for at in points::offsets(device.info(), extra) {
        if at >= covered {
            continue;
        }
        let of = runs.partition_point(|(start, _)| *start <= at) - 1;
        let (start, long) = runs[of];
        for len in [1, 511, 512, 513, 4096, 1 << 20] {
            let len = len.min(device.size() - at);
            let short = ask(device, at, len);
            assert_eq!(
                (short.kind, short.depth),
                (long.kind, long.depth),
                "kind and depth at {at:#x} depend on the question"
            );
            if let (Some(short), Some(long)) = (short.host, long.host)
                && long_is_linear(runs[of].1)
            {
                assert_eq!(
                    short.offset,
                    long.offset + (at - start),
                    "host place of {at:#x}"
                );
            }
        }
    }
}

fn long_is_linear(run: Extent) -> bool {
    run.kind != ExtentKind::Compressed
}

fn bad_questions(device: &dyn BlockDevice) {
    let size = device.size();
    let ask = |at, len| device.block_status(at, len).map_err(|e| e.kind());
    assert_eq!(
        ask(0, 0),
        Err(ErrorKind::InvalidInput),
        "status of no bytes"
    );
    for (at, len) in [
        (size, 1),
        (0, size.saturating_add(1)),
        (u64::MAX, 1),
        (1, u64::MAX),
    ] {
        assert_eq!(
            ask(at, len),
            Err(ErrorKind::OutOfRange),
            "status of {len:#x} bytes at {at:#x} of {size:#x}"
        );
    }
}

/// Checks a disk whose parent was not opened: what it holds can be read, what it does not hold is
/// [`ErrorKind::NeedsParent`] for reads that touch one byte of it, never zeros. Returns how many
/// bytes it lacks.
///
/// # Panics
/// Where it does otherwise.
pub fn detached(device: &dyn BlockDevice) -> u64 {
    let mut absent = 0;
    for (start, run) in cover(device) {
        let len = usize::try_from(run.len.min(4096)).expect("cut to a page");
        let mut buf = vec![0; len];
        for at in [start, start + run.len - len as u64] {
            let read = device.read_at(&mut buf, at).map_err(|e| e.kind());
            if run.kind == ExtentKind::Absent {
                assert_eq!(read, Err(ErrorKind::NeedsParent), "read at {at:#x}");
            } else {
                assert_eq!(read, Ok(()), "read at {at:#x}");
            }
        }
        if run.kind == ExtentKind::Absent {
            absent += run.len;
            if start > 0 {
                let across = device.read_at(&mut [0; 2], start - 1);
                assert_eq!(
                    across.map_err(|e| e.kind()),
                    Err(ErrorKind::NeedsParent),
                    "a read that ends at the first byte of the hole at {start:#x}"
                );
            }
        }
    }
    absent
}
