//! Many guests that write and flush at once, on a disk that takes its time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use blockdev_core::{BlockDevice, MemoryStorage, Result, Storage, SyncKind};

/// Each guest's sector is in a place of its own.
const APART: u64 = 16 << 10;
const SECTOR: usize = 512;
/// How long a sync waits for guests that do not come.
const PATIENCE: Duration = Duration::from_millis(100);
/// From saying that one is about to flush to doing so.
const A_MOMENT: Duration = Duration::from_millis(1);

/// A host that makes stable what was there when a sync began, and takes so long for it that every
/// guest comes to wait.
#[derive(Debug)]
struct SlowHost {
    bytes: MemoryStorage,
    stable: Mutex<Vec<u8>>,
    syncs: AtomicUsize,
    /// Guests that are on their way to a flush.
    busy: Mutex<usize>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SlowHost {
    /// What a crash leaves at least.
    fn stable(&self) -> Vec<u8> {
        lock(&self.stable).clone()
    }

    fn set_busy(&self, change: impl FnOnce(&mut usize)) {
        change(&mut lock(&self.busy));
        self.changed.notify_all();
    }

    fn wait_for_guests(&self) {
        let busy = lock(&self.busy);
        let some_are_busy = |busy: &mut usize| *busy > 0;
        let waited = self
            .changed
            .wait_timeout_while(busy, PATIENCE, some_are_busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        thread::sleep(A_MOMENT);
    }
}

impl Storage for SlowHost {
    fn len(&self) -> Result<u64> {
        self.bytes.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.bytes.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.bytes.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.bytes.set_len(len)
    }

    fn sync(&self, _: SyncKind) -> Result<()> {
        let there = self.bytes.to_vec();
        self.wait_for_guests();
        self.syncs.fetch_add(1, Ordering::SeqCst);
        *lock(&self.stable) = there;
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

/// Lets so many `guests` each write a sector of its own of the disk in `image`, of which `open` makes
/// a device that can be written to or not, and flush, `times`. After each flush a crash must leave
/// what the guest wrote before it. Returns how often the host was synced.
///
/// # Panics
/// Where a flush left something out, or an operation failed.
pub fn run_flushes<D: BlockDevice>(
    image: Vec<u8>,
    guests: usize,
    times: u8,
    open: impl Fn(Arc<dyn Storage>, bool) -> D + Sync,
) -> usize {
    let host = Arc::new(SlowHost {
        stable: Mutex::new(image.clone()),
        bytes: MemoryStorage::from(image),
        syncs: AtomicUsize::new(0),
        busy: Mutex::new(0),
        changed: Condvar::new(),
    });
    let disk = open(Arc::clone(&host) as Arc<dyn Storage>, true);
    // What only the first of all has to wait for.
    disk.write_at(&[0xFF; SECTOR], 0).expect("it writes");
    host.set_busy(|busy| *busy = guests);
    host.syncs.store(0, Ordering::SeqCst);
    let together = Barrier::new(guests);
    thread::scope(|scope| {
        for at in (0..guests as u64).map(|guest| guest * APART) {
            let (host, disk, open, together) = (&host, &disk, &open, &together);
            scope.spawn(move || {
                for turn in 1..=times {
                    disk.write_at(&[turn; SECTOR], at).expect("it writes");
                    // Nobody is turns ahead of somebody who was not woken yet.
                    together.wait();
                    host.set_busy(|busy| *busy -= 1);
                    disk.flush().expect("it flushes");
                    host.set_busy(|busy| *busy += 1);
                    let left = open(Arc::new(MemoryStorage::from(host.stable())), false);
                    let mut seen = [0; SECTOR];
                    left.read_at(&mut seen, at).expect("it reads");
                    assert_eq!(seen, [turn; SECTOR], "byte {at} after flush {turn}");
                }
                host.set_busy(|busy| *busy -= 1);
            });
        }
    });
    host.syncs.load(Ordering::SeqCst)
}

#[cfg(test)]
mod tests {
    use blockdev_core::{LoneLayer, RawLayer};

    use super::*;

    #[test]
    fn eight_guests_of_a_raw_image_share_their_flushes() {
        let syncs = run_flushes(vec![0; 128 << 10], 8, 20, |storage, _| {
            LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
        });
        assert!((20..=80).contains(&syncs), "{syncs} syncs for 160 flushes");
    }
}
