//! Finding zeros in buffers.

/// True when every byte is 0.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Pieces large enough to be looked at many bytes at a time, small enough to stop early.
    bytes
        .chunks(256)
        .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Number of the first byte that is not 0.
#[must_use]
pub fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for piece in bytes.chunks(256) {
        if !is_zero(piece) {
            return piece
                .iter()
                .position(|byte| *byte != 0)
                .map(|within| at + within);
        }
        at += piece.len();
    }
    None
}

/// The runs of `bytes` that hold something else than zeros, as ranges on multiples of `grain`.
pub fn nonzero_runs(
    bytes: &[u8],
    grain: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let unit = |at: usize| at..(at + grain).min(bytes.len());
        while at < bytes.len() && is_zero(&bytes[unit(at)]) {
            at = unit(at).end;
        }
        let start = at;
        while at < bytes.len() && !is_zero(&bytes[unit(at)]) {
            at = unit(at).end;
        }
        (start < at).then_some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_lie_on_grains_and_leave_out_nothing() {
        let mut bytes = vec![0u8; 10_000];
        for at in [5, 4096, 8191, 9999] {
            bytes[at] = 1;
        }
        assert_eq!(
            nonzero_runs(&bytes, 4096).last(),
            Some(0..10_000),
            "one run of three grains"
        );
        let runs: Vec<_> = nonzero_runs(&bytes, 512).collect();
        assert_eq!(runs, [0..512, 4096..4608, 7680..8192, 9728..10_000]);
        assert_eq!(nonzero_runs(&[0; 100], 512).count(), 0);
        assert_eq!(nonzero_runs(&[], 512).count(), 0);
    }

    #[test]
    fn one_byte_anywhere_is_seen() {
        for at in [0, 1, 255, 256, 511, 999] {
            let mut bytes = [0u8; 1000];
            assert!(is_zero(&bytes));
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes));
            assert_eq!(first_nonzero(&bytes), Some(at));
        }
        assert_eq!(first_nonzero(&[0; 300]), None);
    }
}
