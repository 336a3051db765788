//! Disks for programs that run under tokio.
//!
//! ```text
//!   async task ──► AsyncDisk ── permit ──► blocking thread ──► BlockDevice
//! ```
//!
//! The library is synchronous, and so are the calls of the host beneath it. This crate hands each
//! request to a thread of tokio's for blocking work, so many at a time and no more. It is a crate of its
//! own so that nobody else builds an executor, and depends on the traits alone, so that any device goes:
//! a chain, a lone image, a test double.
//!
//! # Cancelling
//!
//! A future that is dropped before its request has begun leaves no trace. One that is dropped later does
//! not stop the request: a write goes on to its end, and nobody is told how it ended. So after a dropped
//! change its range holds the old bytes or the new, now or in a moment, and a change of the same range
//! that is asked for meanwhile may come before it. [`AsyncDisk::settle`] waits until no request is under
//! way; after that and a [`flush`](AsyncDisk::flush) what is read is what will stay.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use blockdev_core::{LoneLayer, MemoryStorage, RawLayer};
//! use diskweave_tokio::AsyncDisk;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> blockdev_core::Result<()> {
//! let storage = Arc::new(MemoryStorage::from(vec![7; 4096]));
//! let disk = AsyncDisk::new(Arc::new(LoneLayer::new(Box::new(RawLayer::open(storage)?))));
//! assert_eq!(disk.read(1024, 512).await?, [7; 512]);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use blockdev_core::{BlockDevice, DeviceInfo, Error, ErrorKind, Extent, Result, ZeroFlags, fits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests under way at once, if nobody says more.
const REQUESTS: u32 = 16;

/// A disk whose requests are awaited. Clones are the same disk.
///
/// Every call must be made from within a tokio runtime.
#[derive(Clone)]
pub struct AsyncDisk {
    device: Arc<dyn BlockDevice>,
    permits: Arc<Semaphore>,
    most: u32,
}

impl fmt::Debug for AsyncDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncDisk")
            .field("info", self.device.info())
            .field("most_requests", &self.most)
            .finish_non_exhaustive()
    }
}

impl AsyncDisk {
    /// `device`, with 16 requests under way at most.
    #[must_use]
    pub fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self::of(device, REQUESTS)
    }

    /// `device`, with `most` requests under way at most (and no more than 2^16): others wait for their
    /// turn, in the order in which they came. A request takes a thread for as long as it lasts.
    #[must_use]
    pub fn with_most_requests(device: Arc<dyn BlockDevice>, most: NonZeroUsize) -> Self {
        Self::of(device, u16::try_from(most.get()).unwrap_or(u16::MAX).into())
    }

    fn of(device: Arc<dyn BlockDevice>, most: u32) -> Self {
        let permits = usize::try_from(most).expect("at most 2^16 permits");
        Self {
            device,
            permits: Arc::new(Semaphore::new(permits)),
            most,
        }
    }

    /// What is fixed about the disk.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.device.size()
    }

    /// The disk itself, for blocking use.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// `len` bytes from byte `offset`.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`]. Memory is taken only for what lies inside the disk.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        fits(offset, len as u64, self.size())?;
        let (buf, outcome) = self.read_into(vec![0; len], offset).await;
        outcome.map(|()| buf)
    }

    /// Fills all of `buf` from byte `offset`, and gives it back with the outcome; after an error what
    /// it holds is unspecified, and it is empty where the runtime ended first.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`].
    pub async fn read_into(&self, mut buf: Vec<u8>, offset: u64) -> (Vec<u8>, Result<()>) {
        let done = self.run(move |device| {
            let outcome = device.read_at(&mut buf, offset);
            Ok((buf, outcome))
        });
        done.await.unwrap_or_else(|error| (Vec::new(), Err(error)))
    }

    /// Writes all of `buf` at byte `offset`, and gives it back with the outcome; it is empty where the
    /// runtime ended first.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    pub async fn write_from(&self, buf: Vec<u8>, offset: u64) -> (Vec<u8>, Result<()>) {
        let done = self.run(move |device| {
            let outcome = device.write_at(&buf, offset);
            Ok((buf, outcome))
        });
        done.await.unwrap_or_else(|error| (Vec::new(), Err(error)))
    }

    /// Writes all of `buf` at byte `offset`.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    pub async fn write(&self, buf: Vec<u8>, offset: u64) -> Result<()> {
        self.run(move |device| device.write_at(&buf, offset)).await
    }

    /// Makes `len` bytes from `offset` read as zeros.
    ///
    /// # Errors
    /// As [`BlockDevice::write_zeroes`].
    pub async fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.run(move |device| device.write_zeroes(offset, len, flags))
            .await
    }

    /// Says that `len` bytes from `offset` are no longer needed.
    ///
    /// # Errors
    /// As [`BlockDevice::discard`].
    pub async fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.run(move |device| device.discard(offset, len)).await
    }

    /// Tells what the run that starts at `offset` is, looking no further than `len` bytes.
    ///
    /// # Errors
    /// As [`BlockDevice::block_status`].
    pub async fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        self.run(move |device| device.block_status(offset, len))
            .await
    }

    /// Returns when everything that was acknowledged before is on stable storage. Writes that are not
    /// awaited yet, or whose futures were dropped, may be left out.
    ///
    /// # Errors
    /// As [`BlockDevice::flush`].
    pub async fn flush(&self) -> Result<()> {
        self.run(|device| device.flush()).await
    }

    /// Returns when no request of this disk is under way, those included whose futures were dropped.
    /// Requests that are made meanwhile wait.
    pub async fn settle(&self) {
        // Fails when the semaphore is closed, which nobody does.
        let _ = self.permits.acquire_many(self.most).await;
    }

    async fn run<T: Send + 'static>(
        &self,
        request: impl FnOnce(&dyn BlockDevice) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| ended())?;
        let device = Arc::clone(&self.device);
        let task = tokio::task::spawn_blocking(move || {
            let outcome = request(&*device);
            // The permit is the thread's: a future that is dropped does not make room for another.
            drop::<OwnedSemaphorePermit>(permit);
            outcome
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ended()),
            },
        }
    }
}

fn ended() -> Error {
    Error::new(
        ErrorKind::Io,
        "the runtime ended before the request was made",
    )
}
