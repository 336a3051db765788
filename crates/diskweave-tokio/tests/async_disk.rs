//! A disk that is awaited does what the disk does.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use blockdev_core::{
    BlockDevice, DeviceInfo, ErrorKind, Extent, ExtentKind, LoneLayer, MemoryStorage, OpenOptions,
    RawDriver, Result, ZeroFlags,
};
use diskweave_tokio::AsyncDisk;

const SIZE: usize = 1 << 20;

fn memory_disk() -> Arc<dyn BlockDevice> {
    use blockdev_core::FormatDriver;
    let storage = Arc::new(MemoryStorage::from(vec![0; SIZE]));
    let layer = RawDriver.open(storage, &OpenOptions::read_write());
    Arc::new(LoneLayer::new(layer.unwrap()))
}

/// A disk whose writes wait until they are let through.
struct Gate {
    disk: Arc<dyn BlockDevice>,
    open: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
    writes: AtomicUsize,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            disk: memory_disk(),
            open: Mutex::new(false),
            opened: Condvar::new(),
            inside: AtomicUsize::new(0),
            most_inside: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
        })
    }

    fn let_through(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    async fn wait_until_inside(&self, count: usize) {
        while self.inside.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl BlockDevice for Gate {
    fn info(&self) -> &DeviceInfo {
        self.disk.info()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        assert_ne!(offset, 13, "an unlucky number");
        self.disk.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        drop(open);
        let outcome = self.disk.write_at(buf, offset);
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        self.disk.block_status(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.disk.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.disk.discard(offset, len)
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}

#[tokio::test]
async fn every_request_does_what_the_disk_does() {
    let disk = AsyncDisk::new(memory_disk());
    assert_eq!(disk.size(), SIZE as u64);
    disk.write(vec![7; 5000], 100).await.unwrap();
    disk.flush().await.unwrap();
    assert_eq!(disk.read(99, 3).await.unwrap(), [0, 7, 7]);
    let (buf, outcome) = disk.read_into(vec![1; 4], 5098).await;
    outcome.unwrap();
    assert_eq!(buf, [7, 7, 0, 0]);
    let (buf, outcome) = disk.write_from(vec![8; 4], 0).await;
    outcome.unwrap();
    assert_eq!(buf, [8; 4], "the buffer comes back to be used again");
    disk.write_zeroes(100, 5000, ZeroFlags::default())
        .await
        .unwrap();
    disk.discard(8192, 4096).await.unwrap();
    assert_eq!(disk.read(100, 5000).await.unwrap(), [0; 5000]);
    let extent = disk.block_status(0, 512).await.unwrap();
    assert_eq!((extent.kind, extent.len), (ExtentKind::Data, 512));
}

#[tokio::test]
async fn errors_are_those_of_the_disk_and_no_memory_is_taken_past_its_end() {
    let disk = AsyncDisk::new(memory_disk());
    let refused = disk.read(SIZE as u64 - 1, 2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OutOfRange);
    // So many bytes no machine has.
    let refused = disk.read(0, usize::MAX >> 1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OutOfRange);
    let (buf, outcome) = disk.write_from(vec![1; 2], SIZE as u64 - 1).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(buf, [1; 2]);
    let status = disk.block_status(0, 0).await.unwrap_err();
    assert_eq!(status.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_are_under_way_than_were_asked_for() {
    let gate = Gate::new();
    let most = NonZeroUsize::new(3).unwrap();
    let disk = AsyncDisk::with_most_requests(gate.clone(), most);
    let writes: Vec<_> = (0..20)
        .map(|n| {
            let disk = disk.clone();
            tokio::spawn(async move { disk.write(vec![n; 512], u64::from(n) * 512).await })
        })
        .collect();
    gate.wait_until_inside(3).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(gate.inside.load(Ordering::SeqCst), 3);
    gate.let_through();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(gate.most_inside.load(Ordering::SeqCst), 3);
    for n in 0..20 {
        assert_eq!(disk.read(u64::from(n) * 512, 1).await.unwrap(), [n]);
    }
}

/// A guest's request was cancelled by a timeout, the next one of the same range was made at once, and
/// the first overtook it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_write_that_has_begun_goes_on_and_settling_waits_for_it() {
    let gate = Gate::new();
    let most = NonZeroUsize::new(2).unwrap();
    let disk = AsyncDisk::with_most_requests(gate.clone(), most);
    let write = tokio::spawn({
        let disk = disk.clone();
        async move { disk.write(vec![5; 512], 0).await }
    });
    gate.wait_until_inside(1).await;
    write.abort();
    assert!(write.await.unwrap_err().is_cancelled());
    let settling = tokio::spawn({
        let disk = disk.clone();
        async move { disk.settle().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!settling.is_finished(), "the write is under way");
    gate.let_through();
    settling.await.unwrap();
    assert_eq!(gate.writes.load(Ordering::SeqCst), 1);
    assert_eq!(disk.read(0, 512).await.unwrap(), [5; 512]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_write_that_waits_for_its_turn_is_never_made() {
    let gate = Gate::new();
    let disk = AsyncDisk::with_most_requests(gate.clone(), NonZeroUsize::MIN);
    let spawn = |byte| {
        let disk = disk.clone();
        tokio::spawn(async move { disk.write(vec![byte; 512], 0).await })
    };
    let first = spawn(1);
    gate.wait_until_inside(1).await;
    let second = spawn(2);
    tokio::time::sleep(Duration::from_millis(20)).await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    gate.let_through();
    first.await.unwrap().unwrap();
    disk.settle().await;
    assert_eq!(gate.writes.load(Ordering::SeqCst), 1);
    assert_eq!(disk.read(0, 512).await.unwrap(), [1; 512]);
}

#[tokio::test]
async fn a_panic_beneath_is_the_callers_and_the_disk_goes_on() {
    let disk = AsyncDisk::with_most_requests(Gate::new(), NonZeroUsize::MIN);
    let unlucky = tokio::spawn({
        let disk = disk.clone();
        async move { disk.read(13, 1).await }
    });
    assert!(unlucky.await.unwrap_err().is_panic());
    // Its permit was given back.
    assert_eq!(disk.read(0, 1).await.unwrap(), [0]);
}
