//! Runs of equal bits in a sector bitmap ([MS-VHDX] §2.4): bit 0 is the lowest of byte 0.

use std::ops::Range;

/// Bits looked at together.
const WORD_BITS: usize = 64;
const WORD_BYTES: usize = WORD_BITS / 8;

/// Whether bit `first` of `bytes` is set, and how many bits from there, `most` at most, are equal
/// to it. `first` lies inside `bytes`, and `most` is at least 1.
pub(crate) fn run(bytes: &[u8], first: usize, most: usize) -> (bool, usize) {
    let set = bytes[first / 8] & 1 << (first % 8) != 0;
    // Bits that differ from the first are the ones in what this makes of a word.
    let flip = if set { u64::MAX } else { 0 };
    // What lies further on is not looked at.
    let end = bytes.len() * 8;
    let end = first + most.min(end - first);
    let mut at = first;
    while at < end {
        let differing = (word(bytes, at / WORD_BITS) ^ flip) >> (at % WORD_BITS);
        if differing != 0 {
            at += usize::try_from(differing.trailing_zeros()).expect("bits of a word");
            break;
        }
        at = (at / WORD_BITS + 1) * WORD_BITS;
    }
    (set, at.min(end) - first)
}

/// Word number `number` of `bytes`, made whole with zeros.
fn word(bytes: &[u8], number: usize) -> u64 {
    let rest = &bytes[number * WORD_BYTES..];
    if let Some(whole) = rest.first_chunk() {
        return u64::from_le_bytes(*whole);
    }
    let mut last = [0; WORD_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(last)
}

/// True when `bits` of `bytes`, inside of which they lie, are all `value`.
pub(crate) fn are(bytes: &[u8], bits: Range<usize>, value: bool) -> bool {
    bits.is_empty() || run(bytes, bits.start, bits.len()) == (value, bits.len())
}

/// Makes `bits` of `bytes`, inside of which they lie, all `value`.
pub(crate) fn put(bytes: &mut [u8], bits: Range<usize>, value: bool) {
    let Some(last_bit) = bits.clone().last() else {
        return;
    };
    let put = |byte: &mut u8, mask: u8| match value {
        true => *byte |= mask,
        false => *byte &= !mask,
    };
    let (first, last) = (bits.start / 8, last_bit / 8);
    let (head, tail) = (0xFF << (bits.start % 8), 0xFF >> (7 - last_bit % 8));
    if first == last {
        return put(&mut bytes[first], head & tail);
    }
    put(&mut bytes[first], head);
    bytes[first + 1..last].fill(if value { 0xFF } else { 0 });
    put(&mut bytes[last], tail);
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

    /// Words are an arrangement of ours: what they tell is what looking at one bit after the other does.
    #[test]
    fn words_tell_what_single_bits_do() {
        let is_set = |bytes: &[u8], bit: usize| bytes[bit / 8] >> (bit % 8) & 1 == 1;
        for len in [1, 7, 8, 9, 20, 24] {
            for (from, to) in [(0, 0), (3, 3), (60, 70), (5, 140), (63, 64), (64, 128)] {
                let mut bytes = vec![0; len];
                let bits = from.min(len * 8)..to.min(len * 8);
                put(&mut bytes, bits.clone(), true);
                for bit in 0..len * 8 {
                    assert_eq!(
                        is_set(&bytes, bit),
                        bits.contains(&bit),
                        "{bit} of {bits:?}"
                    );
                    for most in [1, 2, 63, 64, 65, 1000] {
                        let same = |at: &usize| is_set(&bytes, *at) == is_set(&bytes, bit);
                        let equal = (bit..len * 8).take(most).take_while(same).count();
                        let expected = (is_set(&bytes, bit), equal);
                        assert_eq!(run(&bytes, bit, most), expected, "{bit}, {most}, {bits:?}");
                    }
                }
                let mut inverse = vec![0xFF; len];
                put(&mut inverse, bits, false);
                assert!(bytes.iter().zip(&inverse).all(|(a, b)| a ^ b == 0xFF));
            }
        }
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
