//! Raw images: every byte has its place from the start.

use blockdev_core::{
    BlockDevice, BulkSink, Error, ErrorKind, Result, Storage, SyncKind, bulk_copy, nonzero_runs,
};

use super::ConvertOptions;
use crate::Progress;

/// Shorter holes save no host any space, and cost a call each.
const LEAST_HOLE: usize = 512;

/// How many zeros are written at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// How to make a raw image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawOptions {
    /// What is set aside from the start. Default nothing.
    pub preallocation: RawPreallocation,
}

/// What of a new raw image is set aside before it is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RawPreallocation {
    /// Nothing: what is zeros is a hole.
    #[default]
    Off,
    /// The host's space, without writing to it; by writing zeros where the host knows no other way.
    Falloc,
    /// Every byte is written.
    Full,
}

/// Makes a raw image of `len` zeros in `storage`, which is empty.
pub(crate) fn empty(storage: &dyn Storage, len: u64, raw: &RawOptions) -> Result<()> {
    storage.set_len(len)?;
    let written = match raw.preallocation {
        RawPreallocation::Off => false,
        RawPreallocation::Falloc => !set_aside(storage, len)?,
        RawPreallocation::Full => true,
    };
    if written {
        let zeros = vec![0; ZEROS_BYTES];
        for at in (0..len).step_by(ZEROS_BYTES) {
            let piece = usize::try_from(len - at).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
            storage.write_at(&zeros[..piece], at)?;
        }
    }
    storage.sync(SyncKind::Full)
}

/// Makes the raw image of `source` in `storage`, which is empty.
pub(crate) fn fill(
    source: &dyn BlockDevice,
    storage: &dyn Storage,
    raw: &RawOptions,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let len = source.size();
    storage.set_len(len)?;
    let written = match raw.preallocation {
        RawPreallocation::Off => false,
        RawPreallocation::Falloc => !set_aside(storage, len)?,
        RawPreallocation::Full => true,
    };
    let mut options = options.clone();
    if written {
        options.sparse_bytes = 0;
    }
    copy(source, storage, &options, progress)?;
    storage.sync(SyncKind::Full)
}

/// Has the host set space aside for `len` bytes; false where it knows no way but writing.
fn set_aside(storage: &dyn Storage, len: u64) -> Result<bool> {
    match storage.allocate(0, len) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        other => other.map(|()| true),
    }
}

/// Writes `source` over what `target` holds.
pub(crate) fn overwrite(
    source: &dyn BlockDevice,
    target: &dyn Storage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let size = source.size();
    if target.len()? < size {
        let text = format!("the target is smaller than the disk of {size} bytes");
        return Err(Error::new(ErrorKind::NoSpace, text));
    }
    let mut options = options.clone();
    // What cannot be made zeros at once is overwritten byte by byte, which shows true failures.
    let zero = options.target_is_zero
        || options.sparse_bytes > 0 && size > 0 && target.punch_hole(0, size).is_ok();
    if !zero {
        options.sparse_bytes = 0;
    }
    copy(source, target, &options, progress)?;
    target.sync(SyncKind::Full)
}

/// Copies all of `source` to `target`, which reads as zeros already where `sparse_bytes` is not 0.
pub(crate) fn copy(
    source: &dyn BlockDevice,
    target: &dyn Storage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let sink = RawSink {
        target,
        sparse_bytes: options.sparse_bytes,
    };
    bulk_copy(
        source,
        &sink,
        &options.bulk(options.sparse_bytes == 0),
        progress,
    )
}

/// A raw image being written: every byte has its place from the start.
struct RawSink<'a> {
    target: &'a dyn Storage,
    sparse_bytes: usize,
}

impl BulkSink for RawSink<'_> {
    type Scratch = ();

    fn unit_bytes(&self) -> u64 {
        1
    }

    fn write(&self, offset: u64, bytes: &[u8], (): &()) -> Result<()> {
        if self.sparse_bytes == 0 {
            return self.target.write_at(bytes, offset);
        }
        for run in nonzero_runs(bytes, self.sparse_bytes.max(LEAST_HOLE)) {
            self.target
                .write_at(&bytes[run.clone()], offset + run.start as u64)?;
        }
        Ok(())
    }
}
