//! `qcow2-rs` over its synchronous file. Its futures stay on one thread.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use qcow2_rs::sync_io::Qcow2IoSync;
use qcow2_rs::utils::qcow2_setup_dev_sync;

use super::{Disk, text};
use crate::Outcome;

/// Requests are multiples of 512 bytes.
const BLOCK_BITS: u8 = 9;

pub(super) fn open(path: &Path) -> Outcome<impl Disk + use<>> {
    let params = Qcow2DevParams::new(BLOCK_BITS, None, None, false, false);
    let device = qcow2_setup_dev_sync(path, &params).map_err(text)?;
    finish(device.qcow2_prep_io()).map_err(text)?;
    Ok(Qcow2Rs(device))
}

struct Qcow2Rs(Qcow2Dev<Qcow2IoSync>);

impl Disk for Qcow2Rs {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        match finish(self.0.read_at(buf, offset)).map_err(text)? {
            read if read == buf.len() => Ok(()),
            read => Err(format!("{read} of {} bytes read", buf.len())),
        }
    }

    fn write(&self, buf: &[u8], offset: u64) -> Outcome {
        finish(self.0.write_at(buf, offset)).map_err(text)
    }

    fn flush(&self) -> Outcome {
        finish(self.0.flush_meta()).map_err(text)?;
        finish(self.0.fsync_range(0, usize::MAX)).map_err(text)
    }
}

impl Drop for Qcow2Rs {
    fn drop(&mut self) {
        // It panics when it is dropped with tables that the host does not have.
        let _ = finish(self.0.flush_meta());
    }
}

/// Polls to the end what waits for nobody but itself.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
