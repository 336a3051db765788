//! A range cut into what a server takes at once.

/// The first piece of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes as they are.
    Whole(u32),
    /// So many bytes from this one on of the block of the smallest size that they lie in.
    Inside { skip: u32, len: u32 },
}

impl Piece {
    /// Of `left` bytes (at least one) at byte `at`, where requests lie on multiples of `minimum` and are
    /// no longer than `most`, a multiple of it.
    pub(crate) fn first(at: u64, left: u64, minimum: u32, most: u32) -> Self {
        let unit = u64::from(minimum);
        let skip = at % unit;
        let small = |n: u64| u32::try_from(n).expect("it was cut to a length of 32 bits");
        if skip == 0 && left >= unit {
            return Self::Whole(small((left - left % unit).min(u64::from(most))));
        }
        Self::Inside {
            skip: small(skip),
            len: small((unit - skip).min(left)),
        }
    }

    /// How far it reaches.
    pub(crate) fn len(self) -> u32 {
        match self {
            Self::Whole(len) | Self::Inside { len, .. } => len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_and_keep_to_what_the_server_takes() {
        for minimum in [1u32, 4, 16] {
            for (start, len) in [(0u64, 100u64), (3, 1), (3, 50), (15, 2), (16, 16), (31, 70)] {
                let mut at = start;
                while at < start + len {
                    let piece = Piece::first(at, start + len - at, minimum, 32);
                    let unit = u64::from(minimum);
                    match piece {
                        Piece::Whole(n) => {
                            assert!(n > 0 && n <= 32 && n % minimum == 0 && at % unit == 0);
                        }
                        Piece::Inside { skip, len } => {
                            assert!(len > 0 && skip + len <= minimum);
                            assert_eq!(at % unit, u64::from(skip));
                        }
                    }
                    at += u64::from(piece.len());
                }
                assert_eq!(at, start + len, "{start} {len} {minimum}");
            }
        }
    }
}
