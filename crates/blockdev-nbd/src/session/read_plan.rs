//! How a long read is answered: which parts as data, which as holes.

use blockdev_core::{ByteRange, Extent};

/// Zeros that are shorter than this are sent: a chunk of their own costs as much.
const LEAST_HOLE: u64 = 4096;
/// Most parts of one reply; what is left is sent as data.
const MOST_PARTS: usize = 512;

/// A part of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: ByteRange,
    pub(crate) hole: bool,
}

/// Parts that together are `whole`, by the runs that `status` tells of it: each run with whether it
/// reads as zeros. A failure of `status` is left for the read to meet.
pub(crate) fn plan<E>(
    whole: ByteRange,
    mut status: impl FnMut(ByteRange) -> Result<(Extent, bool), E>,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut at = whole.start();
    let part = |start, end: u64, hole| Part {
        range: ByteRange::new(start, end - start).expect("inside the whole"),
        hole,
    };
    while at < whole.end() {
        let left = part(at, whole.end(), false).range;
        let (end, hole) = match status(left) {
            Ok((extent, zeros)) if parts.len() < MOST_PARTS => {
                let end = at.saturating_add(extent.len.max(1)).min(whole.end());
                (end, zeros && end - at >= LEAST_HOLE)
            }
            _ => (whole.end(), false),
        };
        match parts.last_mut() {
            Some(last) if last.hole == hole => *last = part(last.range.start(), end, hole),
            _ => parts.push(part(at, end, hole)),
        }
        at = end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use blockdev_core::ExtentKind;

    use super::*;

    fn told(runs: &[(u64, bool)], whole: ByteRange) -> Vec<(u64, u64, bool)> {
        let status = |left: ByteRange| {
            let mut end = whole.start();
            for (len, zeros) in runs {
                end += len;
                if left.start() < end {
                    let extent = Extent::new(ExtentKind::Data, end - left.start());
                    return Ok((extent.cut(left.len()), *zeros));
                }
            }
            Err(())
        };
        let parts = plan(whole, status).into_iter();
        parts
            .map(|part| (part.range.start(), part.range.len(), part.hole))
            .collect()
    }

    #[test]
    fn parts_are_the_whole_and_short_zeros_are_data() {
        let whole = ByteRange::new(100, 30_000).unwrap();
        let runs = [(1000, false), (512, true), (8192, true), (1 << 30, false)];
        assert_eq!(
            told(&runs, whole),
            [
                (100, 1512, false),
                (1612, 8192, true),
                (9804, 20_296, false)
            ]
        );
    }

    #[test]
    fn what_status_fails_on_is_left_to_the_read() {
        let whole = ByteRange::new(0, 9000).unwrap();
        assert_eq!(
            told(&[(5000, true)], whole),
            [(0, 5000, true), (5000, 4000, false)]
        );
    }

    #[test]
    fn a_scattered_disk_ends_in_one_part() {
        let whole = ByteRange::new(0, 32 << 20).unwrap();
        let runs: Vec<(u64, bool)> = (0..8192).map(|n| (4096, n % 2 == 0)).collect();
        let parts = told(&runs, whole);
        assert!(parts.len() <= MOST_PARTS + 1, "{}", parts.len());
        assert_eq!(parts.iter().map(|part| part.1).sum::<u64>(), whole.len());
    }
}
