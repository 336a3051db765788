//! Arithmetic on offsets that come from files: checked, or not done at all.

use crate::{Error, ErrorKind, Result};

/// A run of bytes `[start, start + len)` whose end is known not to overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ByteRange {
    start: u64,
    len: u64,
}

impl ByteRange {
    /// No byte.
    pub const EMPTY: Self = Self { start: 0, len: 0 };

    /// The run of `len` bytes from `start`; `None` if its end does not fit 64 bits.
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(_) => Some(Self { start, len }),
            None => None,
        }
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// True when the run holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.len
    }

    /// True when both runs hold some byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end() && self.len > 0 && other.len > 0
    }

    /// True when every byte of `other` is in this run.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// The part of `buf` that stands for this run, where `buf` starts at byte `base`.
    ///
    /// # Panics
    /// When the run is not inside `buf`: the caller cut it from there.
    #[must_use]
    pub fn slice_of(self, buf: &mut [u8], base: u64) -> &mut [u8] {
        let from = usize::try_from(self.start - base).expect("a run inside a buffer");
        let len = usize::try_from(self.len).expect("a run inside a buffer");
        &mut buf[from..from + len]
    }
}

/// Checks that `len` bytes from `offset` lie inside a disk of `size` bytes.
///
/// # Errors
/// [`ErrorKind::OutOfRange`] when they do not.
#[inline]
pub fn fits(offset: u64, len: u64, size: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(past_the_end(offset, len, size)),
    }
}

#[cold]
fn past_the_end(offset: u64, len: u64, size: u64) -> Error {
    Error::new(
        ErrorKind::OutOfRange,
        format!("{len} bytes at {offset:#x} reach past the end of the disk ({size} bytes)"),
    )
}

/// `value` rounded down to a multiple of `to`, a power of two.
#[must_use]
pub const fn align_down(value: u64, to: u64) -> u64 {
    debug_assert!(to.is_power_of_two());
    value & !(to - 1)
}

/// `value` rounded up to a multiple of `to`, a power of two; `None` on overflow.
#[must_use]
pub const fn align_up(value: u64, to: u64) -> Option<u64> {
    debug_assert!(to.is_power_of_two());
    match value.checked_add(to - 1) {
        Some(sum) => Some(sum & !(to - 1)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overflow_do_not_exist() {
        assert!(ByteRange::new(u64::MAX, 1).is_none());
        assert!(ByteRange::new(u64::MAX, 0).is_some());
    }

    #[test]
    fn overlap_is_about_bytes_not_about_ends() {
        let a = ByteRange::new(0, 10).unwrap();
        assert!(!a.overlaps(ByteRange::new(10, 5).unwrap()));
        assert!(a.overlaps(ByteRange::new(9, 5).unwrap()));
        assert!(
            !a.overlaps(ByteRange::new(5, 0).unwrap()),
            "an empty run overlaps nothing"
        );
    }

    #[test]
    fn fits_refuses_what_wraps_around() {
        assert!(fits(0, 512, 512).is_ok());
        assert_eq!(fits(1, 512, 512).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(
            fits(u64::MAX, 2, u64::MAX).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
    }

    #[test]
    fn alignment_near_the_top_is_checked() {
        assert_eq!(align_up(u64::MAX, 4096), None);
        assert_eq!(align_up(4097, 4096), Some(8192));
        assert_eq!(align_down(4097, 4096), 4096);
    }
}
