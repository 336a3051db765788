//! Runs of equal bits in a sector bitmap ([MS-VHDX] §2.4): bit 0 is the lowest of byte 0.

use std::ops::Range;

use bitvec::order::Lsb0;
use bitvec::slice::BitSlice;

/// Whether bit `first` of `bytes` is set, and how many bits from there, `most` at most, are equal
/// to it. `first` lies inside `bytes`, and `most` is at least 1.
pub(crate) fn run(bytes: &[u8], first: usize, most: usize) -> (bool, usize) {
    let bits = &BitSlice::<u8, Lsb0>::from_slice(bytes)[first..];
    // What lies further on is not looked at.
    let bits = &bits[..most.min(bits.len())];
    let set = bits[0];
    let equal = if set {
        bits.leading_ones()
    } else {
        bits.leading_zeros()
    };
    (set, equal)
}

/// True when `bits` of `bytes`, inside of which they lie, are all `value`.
pub(crate) fn are(bytes: &[u8], bits: Range<usize>, value: bool) -> bool {
    bits.is_empty() || run(bytes, bits.start, bits.len()) == (value, bits.len())
}

/// Makes `bits` of `bytes`, inside of which they lie, all `value`.
pub(crate) fn put(bytes: &mut [u8], bits: Range<usize>, value: bool) {
    BitSlice::<u8, Lsb0>::from_slice_mut(bytes)[bits].fill(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_start_inside_bytes_and_cross_them() {
        let bytes = [0b1111_0000, 0xFF, 0b0000_0111, 0];
        assert_eq!(run(&bytes, 0, 100), (false, 4));
        assert_eq!(run(&bytes, 2, 100), (false, 2));
        assert_eq!(run(&bytes, 5, 100), (true, 14));
        assert_eq!(run(&bytes, 5, 3), (true, 3));
        assert_eq!(run(&bytes, 19, 100), (false, 13));
        assert_eq!(run(&bytes, 31, 1), (false, 1));
    }

    #[test]
    fn bits_are_equal_from_the_first_to_the_last() {
        let mut bytes = [0xFF, 0, 0xFF, 0];
        assert!(are(&bytes, 0..8, true) && !are(&bytes, 0..9, true));
        assert!(are(&bytes, 8..16, false) && !are(&bytes, 7..16, false));
        assert!(are(&bytes, 9..9, true) && are(&bytes, 9..9, false));
        put(&mut bytes, 3..21, false);
        assert_eq!(bytes, [0b111, 0, 0b1110_0000, 0]);
        put(&mut bytes, 2..30, true);
        assert!(are(&bytes, 0..30, true) && !are(&bytes, 0..31, true));
    }
}
