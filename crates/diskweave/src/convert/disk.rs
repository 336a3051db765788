//! Images that are there already, written into through their write engines.

use blockdev_chain::Chain;
use blockdev_core::{
    BlockDevice, BulkSink, Error, ErrorKind, Result, ZeroFlags, bulk_copy, nonzero_runs,
};

use super::ConvertOptions;
use crate::Progress;

/// Shorter runs of zeros are written with what is around them: each other run is a request.
const LEAST_RUN: usize = 4096;

/// Writes `source` over the start of `target`, which is opened for writing.
pub(super) fn overwrite(
    source: &dyn BlockDevice,
    target: &Chain,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let size = source.size();
    if target.size() < size {
        let text = format!("the target is smaller than the disk of {size} bytes");
        return Err(Error::new(ErrorKind::NoSpace, text));
    }
    if !options.target_is_zero {
        let flags = ZeroFlags {
            may_unmap: true,
            no_fallback: false,
        };
        target.write_zeroes(0, size, flags)?;
    }
    let sink = DiskSink {
        target,
        least_zeros: options.sparse_bytes.max(LEAST_RUN),
    };
    bulk_copy(source, &sink, &options.bulk(false), progress)?;
    target.flush()
}

struct DiskSink<'a> {
    target: &'a Chain,
    least_zeros: usize,
}

impl BulkSink for DiskSink<'_> {
    type Scratch = ();

    fn unit_bytes(&self) -> u64 {
        1
    }

    fn write(&self, offset: u64, bytes: &[u8], (): &()) -> Result<()> {
        for run in nonzero_runs(bytes, self.least_zeros) {
            let at = offset + run.start as u64;
            self.target.write_at(&bytes[run], at)?;
        }
        Ok(())
    }
}
