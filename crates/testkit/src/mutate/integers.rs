//! Numbers that arithmetic trips over.

use crate::Rng;

/// A number to put where `old` was, in a file of `file_len` bytes.
pub(super) fn interesting(rng: &mut Rng, old: u64, file_len: u64) -> u64 {
    let near = *rng.pick(&[0i64, -1, 1, -512, 512, -4096, 4096]);
    let base = match rng.below(10) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << rng.below(64),
        3 => u64::from(u32::MAX),
        4 => file_len,
        // The place of another structure: VHDX keeps its own on MiB, entries on 4 KiB.
        5 => rng.below(file_len >> 20) << 20,
        6 => rng.below(file_len >> 12) << 12,
        7 => old.wrapping_mul(2),
        8 => old ^ (1 << rng.below(64)),
        _ => old,
    };
    match rng.below(3) {
        0 => base,
        1 => base.wrapping_add_signed(near),
        // A BAT entry is a place in MiB with a state in its low bits.
        _ => base & !7 | rng.below(8),
    }
}
