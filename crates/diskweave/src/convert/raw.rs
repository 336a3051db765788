//! Raw images: every byte has its place from the start.

use blockdev_core::{BlockDevice, BulkSink, Result, Storage, SyncKind, bulk_copy, nonzero_runs};

use super::ConvertOptions;
use crate::Progress;

/// Shorter holes save no host any space, and cost a call each.
const LEAST_HOLE: usize = 512;

/// Makes the raw image of `source` in `storage`, which is empty.
pub(crate) fn fill(
    source: &dyn BlockDevice,
    storage: &dyn Storage,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    storage.set_len(source.size())?;
    copy(source, storage, options, progress)?;
    storage.sync(SyncKind::Full)
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

    fn prepare(&self, _: u64, _: &[u8], (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn place(&self, _: u64, _: &[u8], (): &mut ()) -> Result<()> {
        Ok(())
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
