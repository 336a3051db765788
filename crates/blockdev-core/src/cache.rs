//! Metadata pages under one byte budget, shared by all layers of a chain.
//!
//! Tables are never held whole: a layer asks for the 4 KiB page of its host file that holds the
//! entry it needs. Pages are found by (owner, page number) in one of a few shards, each with a lock
//! of its own that is never held while a page is read; a clock with a second chance decides which
//! page makes room.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, PoisonError};

use crate::Result;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Bytes in one cached page; pages are aligned to this in the host file.
pub const PAGE_BYTES: usize = 4096;

const SHARDS: usize = 16;

type Page = Arc<[u8; PAGE_BYTES]>;

/// (owner, page number)
type Key = (u32, u64);

/// Keys are small trusted numbers: one multiplication spreads them well enough.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(26) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[derive(Default)]
struct Shard {
    index: HashMap<Key, usize, BuildHasherDefault<KeyHasher>>,
    slots: Vec<Slot>,
    hand: usize,
    /// Pages that owners handed over: what was being loaded meanwhile may be older.
    handed_over: u64,
}

struct Slot {
    key: Key,
    page: Page,
    used: bool,
}

/// A budget of metadata pages.
pub struct PageCache {
    shards: [Mutex<Shard>; SHARDS],
    slots_per_shard: usize,
    next_owner: AtomicU32,
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache")
            .field("pages", &self.pages())
            .field("capacity", &(self.slots_per_shard * SHARDS))
            .finish()
    }
}

impl PageCache {
    /// A cache that holds at most `bytes` of pages, and at least one page per shard.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            slots_per_shard: (bytes / PAGE_BYTES / SHARDS).max(1),
            next_owner: AtomicU32::new(0),
        })
    }

    /// A name of its own for one file's pages.
    #[must_use]
    pub fn owner(self: &Arc<Self>) -> CacheOwner {
        let id = self.next_owner.fetch_add(1, Ordering::Relaxed);
        CacheOwner {
            cache: Arc::clone(self),
            id,
        }
    }

    /// Pages held now.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).slots.len())
            .sum()
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        let mut hasher = KeyHasher::default();
        hasher.write_u32(key.0);
        hasher.write_u64(key.1);
        // The map within uses the low bits of the same hash; the shard takes others.
        &self.shards[usize::try_from(hasher.finish() >> 40).unwrap_or(0) % SHARDS]
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Nothing that can panic runs under the lock in a way that leaves a shard half changed.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn hit(&mut self, key: Key) -> Option<Page> {
        let slot = &mut self.slots[*self.index.get(&key)?];
        slot.used = true;
        Some(Arc::clone(&slot.page))
    }

    fn insert(&mut self, key: Key, page: Page, capacity: usize) {
        if let Some(&at) = self.index.get(&key) {
            self.slots[at].page = page;
            return;
        }
        let slot = Slot {
            key,
            page,
            used: false,
        };
        if self.slots.len() < capacity {
            self.index.insert(key, self.slots.len());
            self.slots.push(slot);
            return;
        }
        // Two rounds at most: the first clears every mark.
        while std::mem::take(&mut self.slots[self.hand].used) {
            self.hand = (self.hand + 1) % self.slots.len();
        }
        self.index.remove(&self.slots[self.hand].key);
        self.index.insert(key, self.hand);
        self.slots[self.hand] = slot;
        self.hand = (self.hand + 1) % self.slots.len();
    }

    fn forget(&mut self, owner: u32) {
        self.slots.retain(|slot| slot.key.0 != owner);
        self.index.clear();
        self.index.extend(
            self.slots
                .iter()
                .enumerate()
                .map(|(at, slot)| (slot.key, at)),
        );
        self.hand = 0;
    }
}

/// One file's share of a [`PageCache`]; its pages go when it is dropped.
#[derive(Debug)]
pub struct CacheOwner {
    cache: Arc<PageCache>,
    id: u32,
}

impl CacheOwner {
    /// Page number `page` of the file, by `load` when it is not in memory. No lock is held while it
    /// loads; two threads that miss at once both load, and the first result stays. What
    /// [`keep`](Self::keep) hands over meanwhile is newer than what was loaded, and is not replaced by
    /// it.
    ///
    /// # Errors
    /// Those of `load`; nothing is kept then.
    pub fn page(
        &self,
        page: u64,
        load: impl FnOnce(&mut [u8; PAGE_BYTES]) -> Result<()>,
    ) -> Result<Arc<[u8; PAGE_BYTES]>> {
        let key = (self.id, page);
        let shard = self.cache.shard(key);
        let handed_over = {
            let mut shard = lock(shard);
            if let Some(hit) = shard.hit(key) {
                return Ok(hit);
            }
            shard.handed_over
        };
        let mut loaded = Arc::new([0; PAGE_BYTES]);
        load(Arc::get_mut(&mut loaded).expect("not shared yet"))?;
        let mut shard = lock(shard);
        if let Some(first) = shard.hit(key) {
            return Ok(first);
        }
        if shard.handed_over == handed_over {
            shard.insert(key, Arc::clone(&loaded), self.cache.slots_per_shard);
        }
        Ok(loaded)
    }

    /// Page number `page` of the file, if it is in memory.
    #[must_use]
    pub fn cached(&self, page: u64) -> Option<Arc<[u8; PAGE_BYTES]>> {
        let key = (self.id, page);
        lock(self.cache.shard(key)).hit(key)
    }

    /// Keeps `bytes` as page number `page` of the file, in place of what was known of it.
    pub fn keep(&self, page: u64, bytes: Arc<[u8; PAGE_BYTES]>) {
        let key = (self.id, page);
        let mut shard = lock(self.cache.shard(key));
        shard.handed_over += 1;
        shard.insert(key, bytes, self.cache.slots_per_shard);
    }
}

impl Drop for CacheOwner {
    fn drop(&mut self) {
        for shard in &self.cache.shards {
            lock(shard).forget(self.id);
        }
    }
}

#[cfg(all(test, shuttle))]
mod model;

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_budget_holds_and_pages_keep_their_content() {
        let cache = PageCache::new(64 * PAGE_BYTES);
        let owner = cache.owner();
        for round in 0..3 {
            for page in 0..1000u64 {
                let got = owner
                    .page(page, |bytes| {
                        bytes[..8].copy_from_slice(&page.to_le_bytes());
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(got[..8], page.to_le_bytes(), "round {round}");
                assert!(cache.pages() <= 64);
            }
        }
    }

    #[test]
    fn a_hit_does_not_load_and_owners_do_not_mix() {
        let cache = PageCache::new(1 << 20);
        let (a, b) = (cache.owner(), cache.owner());
        a.page(7, |bytes| {
            bytes.fill(1);
            Ok(())
        })
        .unwrap();
        assert_eq!(
            a.page(7, |_| unreachable!("it is in memory")).unwrap()[0],
            1
        );
        assert_eq!(b.page(7, |_| Ok(())).unwrap()[0], 0);
        drop(a);
        assert_eq!(cache.pages(), 1, "a dropped owner's pages go");
    }

    #[test]
    fn what_is_kept_takes_the_place_of_what_was_known() {
        let cache = PageCache::new(1 << 20);
        let owner = cache.owner();
        assert!(owner.cached(3).is_none());
        owner.page(3, |_| Ok(())).unwrap();
        owner.keep(3, Arc::new([9; PAGE_BYTES]));
        assert_eq!(owner.cached(3).unwrap()[0], 9);
        assert_eq!(cache.pages(), 1);
    }

    /// A page was loaded, then handed over anew, and the older one took its place for good.
    #[test]
    fn what_was_loaded_before_does_not_take_the_place_of_what_was_kept_meanwhile() {
        // Room for one page, so that the newer one may be gone again.
        let cache = PageCache::new(0);
        let owner = cache.owner();
        let key = |page| std::ptr::from_ref(cache.shard((owner.id, page)));
        let other = (4..).find(|page| key(*page) == key(3)).unwrap();
        for made_room in [false, true] {
            let load = |_: &mut [u8; PAGE_BYTES]| {
                owner.keep(3, Arc::new([9; PAGE_BYTES]));
                if made_room {
                    owner.keep(other, Arc::new([5; PAGE_BYTES]));
                }
                Ok(())
            };
            owner.page(3, load).unwrap();
            let known = owner.cached(3);
            assert!(known.is_none_or(|page| page[0] == 9), "{made_room}");
            owner.keep(other, Arc::new([5; PAGE_BYTES]));
        }
    }

    #[test]
    fn a_failed_load_leaves_nothing() {
        let cache = PageCache::new(1 << 20);
        let owner = cache.owner();
        assert!(owner.page(1, |_| Err(ErrorKind::Io.into())).is_err());
        assert_eq!(cache.pages(), 0);
    }
}
