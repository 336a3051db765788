//! Refcounts (qcow2 specification, "Host cluster management").
//!
//! ```text
//!   refcount table         refcount block: one number of 2^order bits for each cluster
//!   ┌───┬───┬───┬─         ┌────┬────┬────┬─
//!   │   │ ● │   │ …        │ 1  │ 1  │ 2  │ …
//!   └───┴─┼─┴───┴─         └────┴────┴────┴─
//!         └───────────────►
//! ```
//!
//! Numbers of a byte or more are big-endian; of smaller ones, the first lie in the lowest bits.

/// Bits 9 to 63 of a refcount table entry: where the block lies.
pub(crate) const BLOCK_OFFSET_MASK: u64 = !0x1FF;

/// Number `index` of `block`, in which numbers are `1 << order` bits wide (order 0 to 6).
pub(crate) fn refcount(block: &[u8], index: usize, order: u32) -> u64 {
    if order < 3 {
        let per_byte = 8 >> order;
        let bits = (index % per_byte) << order;
        let mask = (1u16 << (1 << order)) - 1;
        return u64::from(u16::from(block[index / per_byte]) >> bits & mask);
    }
    let bytes = 1 << (order - 3);
    let at = index * bytes;
    let number = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    block[at..at + bytes].iter().fold(0, number)
}

/// Adds 1 to number `index` of `block`, as [`refcount`] counts them; the number has room for it.
pub(crate) fn increment(block: &mut [u8], index: usize, order: u32) {
    let value = refcount(block, index, order);
    set_refcount(block, index, order, value + 1);
}

/// Sets number `index` of `block`, in which numbers are `1 << order` bits wide, to `value`, which
/// fits.
pub(crate) fn set_refcount(block: &mut [u8], index: usize, order: u32, value: u64) {
    debug_assert!(value <= largest(order), "{value} in 1 << {order} bits");
    if order < 3 {
        let per_byte = 8 >> order;
        let bits = (index % per_byte) << order;
        let mask = largest(order) << bits;
        let byte = u64::from(block[index / per_byte]) & !mask | value << bits;
        block[index / per_byte] = u8::try_from(byte).expect("eight bits");
        return;
    }
    let bytes = 1 << (order - 3);
    let at = index * bytes;
    block[at..at + bytes].copy_from_slice(&value.to_be_bytes()[8 - bytes..]);
}

/// The largest number of `1 << order` bits.
pub(crate) fn largest(order: u32) -> u64 {
    u64::MAX >> (64 - (1 << order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_found_and_nothing_beside_it() {
        for order in 0..=6 {
            let mut block = vec![0; 64];
            let count = (64 * 8) >> order;
            let value = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) & largest(order);
            for i in (0..count).rev() {
                set_refcount(&mut block, i, order, largest(order));
                set_refcount(&mut block, i, order, value(i));
            }
            for i in 0..count {
                assert_eq!(refcount(&block, i, order), value(i), "order {order}, {i}");
            }
        }
    }

    #[test]
    fn small_numbers_begin_at_the_lowest_bits() {
        let block = [0b1010_0110, 0x21, 0xFF, 0, 0, 0, 0, 7];
        let of = |order, n| {
            (0..n)
                .map(|i| refcount(&block, i, order))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0, 8), [0, 1, 1, 0, 0, 1, 0, 1]);
        assert_eq!(of(1, 4), [2, 1, 2, 2]);
        assert_eq!(of(2, 4), [6, 10, 1, 2]);
        assert_eq!(of(3, 3), [0xA6, 0x21, 0xFF]);
        assert_eq!(of(4, 2), [0xA621, 0xFF00]);
        assert_eq!(of(5, 2), [0xA621_FF00, 7]);
        assert_eq!(of(6, 1), [0xA621_FF00_0000_0007]);
    }

    #[test]
    fn a_number_counts_up_to_its_width_and_leaves_its_neighbours_alone() {
        for order in 0..=6 {
            let most = (1u64 << (1 << order).min(10)) - 1;
            let mut block = [0; 24];
            for expected in 1..=most {
                increment(&mut block, 1, order);
                let numbers = [0, 1, 2].map(|n| refcount(&block, n, order));
                assert_eq!(numbers, [0, expected, 0], "order {order}");
            }
        }
    }
}
