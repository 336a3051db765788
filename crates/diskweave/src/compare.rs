//! Comparing what two disks read.

use blockdev_core::{BlockDevice, Error, ErrorKind, Extent, ExtentKind, Result, first_nonzero};

use crate::Progress;

/// Bytes compared at a time.
const PIECE: usize = 1 << 20;

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same bytes; where one disk is longer, zeros past the end of the other.
    Identical {
        /// The disks are not of one size.
        sizes_differ: bool,
    },
    /// Different bytes.
    ContentDiffers {
        /// Where the first difference lies, in bytes.
        offset: u64,
    },
    /// Strictly compared: not of one size.
    SizesDiffer,
    /// Strictly compared: one stores bytes, or says zeros, where the other does not.
    AllocationDiffers {
        /// Where, in bytes.
        offset: u64,
    },
}

/// Compares two disks: their bytes, and with `strict` their sizes and which parts are stored, which
/// are zeros by the image's word, and which nothing is said of.
///
/// What both say to be zeros is not read.
///
/// # Errors
/// Those of reading either, and [`ErrorKind::InvalidInput`] when `progress` cancels.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use diskweave::core::{LoneLayer, MemoryStorage, RawLayer};
/// use diskweave::{Comparison, NoProgress, compare};
///
/// let disk = |bytes: &[u8]| {
///     let storage = Arc::new(MemoryStorage::from(bytes.to_vec()));
///     RawLayer::open(storage).map(|layer| LoneLayer::new(Box::new(layer)))
/// };
/// let result = compare(&disk(&[1, 2, 0, 0])?, &disk(&[1, 2])?, false, &NoProgress)?;
/// assert_eq!(result, Comparison::Identical { sizes_differ: true });
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn compare(
    a: &dyn BlockDevice,
    b: &dyn BlockDevice,
    strict: bool,
    progress: &dyn Progress,
) -> Result<Comparison> {
    let sizes_differ = a.size() != b.size();
    if strict && sizes_differ {
        return Ok(Comparison::SizesDiffer);
    }
    let (shared, whole) = (a.size().min(b.size()), a.size().max(b.size()));
    progress.start(whole);
    let mut pair = Pair {
        a,
        b,
        buffers: [vec![0; PIECE], vec![0; PIECE]],
    };
    let mut at = 0;
    while at < whole {
        if progress.is_cancelled() {
            return Err(Error::new(ErrorKind::InvalidInput, "cancelled"));
        }
        let (len, difference) = if at < shared {
            pair.both(at, shared - at, strict)?
        } else {
            let longer = if a.size() > b.size() { a } else { b };
            pair.tail(longer, at, whole - at)?
        };
        if let Some(difference) = difference {
            return Ok(difference);
        }
        at += len;
        progress.advance(len);
    }
    Ok(Comparison::Identical { sizes_differ })
}

struct Pair<'a> {
    a: &'a dyn BlockDevice,
    b: &'a dyn BlockDevice,
    buffers: [Vec<u8>; 2],
}

fn reads_zero(extent: &Extent) -> bool {
    matches!(extent.kind, ExtentKind::Zero | ExtentKind::Absent)
}

/// What strictness looks at: how stored bytes are packed is nothing to the disk.
fn sort(extent: &Extent) -> ExtentKind {
    match extent.kind {
        ExtentKind::Compressed => ExtentKind::Data,
        kind => kind,
    }
}

/// Where nothing is held, one byte read tells an empty disk from one whose parent is missing.
fn readable(device: &dyn BlockDevice, at: u64, extent: &Extent) -> Result<()> {
    match extent.kind {
        ExtentKind::Absent => device.read_at(&mut [0], at),
        _ => Ok(()),
    }
}

fn piece(len: u64) -> usize {
    usize::try_from(len).map_or(PIECE, |len| len.min(PIECE))
}

impl Pair<'_> {
    /// Compares a run at `at`: how long it was, and what differs.
    fn both(&mut self, at: u64, len: u64, strict: bool) -> Result<(u64, Option<Comparison>)> {
        let (a, b) = (self.a.block_status(at, len)?, self.b.block_status(at, len)?);
        let run = a.len.min(b.len);
        if strict && sort(&a) != sort(&b) {
            return Ok((run, Some(Comparison::AllocationDiffers { offset: at })));
        }
        if reads_zero(&a) && reads_zero(&b) {
            readable(self.a, at, &a)?;
            readable(self.b, at, &b)?;
            return Ok((run, None));
        }
        let len = piece(run);
        let [left, right] = &mut self.buffers;
        let (left, right) = (&mut left[..len], &mut right[..len]);
        self.a.read_at(left, at)?;
        self.b.read_at(right, at)?;
        let difference = (left != right).then(|| {
            let within = left.iter().zip(&*right).position(|(l, r)| l != r);
            let offset = at + within.expect("they differ") as u64;
            Comparison::ContentDiffers { offset }
        });
        Ok((len as u64, difference))
    }

    /// Compares a run of the longer disk with nothing.
    fn tail(
        &mut self,
        longer: &dyn BlockDevice,
        at: u64,
        len: u64,
    ) -> Result<(u64, Option<Comparison>)> {
        let extent = longer.block_status(at, len)?;
        if reads_zero(&extent) {
            readable(longer, at, &extent)?;
            return Ok((extent.len, None));
        }
        let buffer = &mut self.buffers[0][..piece(extent.len)];
        longer.read_at(buffer, at)?;
        let difference = first_nonzero(buffer).map(|within| Comparison::ContentDiffers {
            offset: at + within as u64,
        });
        Ok((buffer.len() as u64, difference))
    }
}
