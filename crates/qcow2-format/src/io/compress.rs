//! Packing clusters, each for itself.

use std::fmt;

use blockdev_core::{Error, ErrorKind, Result};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::zstd_safe::{CCtx, compress_bound, get_error_name};

use crate::meta::header::CompressionType;

/// Binary logarithm of the window that deflate streams may refer back into, in bytes: QEMU's reader
/// has no larger one.
const WINDOW_BITS: u8 = 12;

/// The level at which zlib-rs packs as well as zlib does at its default, 6, which QEMU takes; the
/// lower ones are two or three hundredths behind.
const DEFLATE_LEVEL: u32 = 9;

/// Packs clusters one after the other; one for each thread.
pub(crate) enum Packer {
    Zlib(Box<Compress>),
    Zstd(CCtx<'static>),
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zlib(_) => "Packer::Zlib",
            Self::Zstd(_) => "Packer::Zstd",
        })
    }
}

impl Packer {
    pub(crate) fn new(compression: CompressionType) -> Self {
        match compression {
            CompressionType::Zlib => Self::Zlib(Box::new(deflater())),
            CompressionType::Zstd => Self::Zstd(CCtx::create()),
        }
    }

    /// Appends what `cluster` packs to; false, with nothing appended, when that is not shorter.
    pub(crate) fn pack(&mut self, cluster: &[u8], to: &mut Vec<u8>) -> Result<bool> {
        let start = to.len();
        // Room for the worst case, so that no stream is ever left half-written.
        let len = match self {
            Self::Zlib(deflate) => {
                to.resize(start + deflate_bound(cluster.len()), 0);
                deflate.reset();
                let status = deflate.compress(cluster, &mut to[start..], FlushCompress::Finish);
                if !matches!(status, Ok(Status::StreamEnd)) {
                    let text = "deflate left a cluster unfinished";
                    return Err(Error::new(ErrorKind::Io, text));
                }
                usize::try_from(deflate.total_out()).expect("what fits the buffer")
            }
            Self::Zstd(context) => {
                to.resize(start + compress_bound(cluster.len()), 0);
                let written = context.compress2(&mut to[start..], cluster);
                written.map_err(|code| {
                    Error::new(ErrorKind::Io, format!("zstd: {}", get_error_name(code)))
                })?
            }
        };
        let shorter = len < cluster.len();
        to.truncate(if shorter { start + len } else { start });
        Ok(shorter)
    }
}

fn deflater() -> Compress {
    Compress::new_with_window_bits(Compression::new(DEFLATE_LEVEL), false, WINDOW_BITS)
}

/// More than `len` bytes can grow to, after zlib's own conservative bound.
fn deflate_bound(len: usize) -> usize {
    len + len / 8 + len / 64 + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nothing packs.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let step = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn what_does_not_shrink_leaves_no_trace_in_what_comes_after() {
        for compression in [CompressionType::Zlib, CompressionType::Zstd] {
            for len in [512, 65_536, 2 << 20] {
                let text = b"the quick brown fox ".repeat(len / 20 + 1);
                let fresh = |bytes: &[u8]| {
                    let mut to = Vec::new();
                    Packer::new(compression)
                        .pack(bytes, &mut to)
                        .unwrap()
                        .then_some(to)
                };
                let (expected, none) = (fresh(&text[..len]).unwrap(), fresh(&noise(len)));
                assert_eq!(none, None);
                let (mut packer, mut to) = (Packer::new(compression), vec![9]);
                for _ in 0..3 {
                    assert!(!packer.pack(&noise(len), &mut to).unwrap());
                    assert_eq!(to, [9]);
                    assert!(packer.pack(&text[..len], &mut to).unwrap());
                    assert!(to[1..] == expected);
                    to.truncate(1);
                }
            }
        }
    }
}
