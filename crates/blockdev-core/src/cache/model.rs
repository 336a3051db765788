//! The cache under every order in which threads can come to its locks.
//!
//! A page's content is the number of its file's version, so that a page which is older than it may
//! be tells so.

use shuttle::sync::Arc as Shared;
use shuttle::thread;

use super::*;
use crate::model::{every_order, many_orders};
use crate::sync::atomic::AtomicU64;

fn version(page: &[u8; PAGE_BYTES]) -> u64 {
    u64::from_le_bytes(page[..8].try_into().expect("eight bytes"))
}

fn page_of(version: u64) -> Page {
    let mut page = [0; PAGE_BYTES];
    page[..8].copy_from_slice(&version.to_le_bytes());
    Arc::new(page)
}

/// Page numbers that share a shard with page 0 of the first owner.
fn neighbours(cache: &PageCache) -> Vec<u64> {
    let shard = |page| std::ptr::from_ref(cache.shard((0, page)));
    (0..1000).filter(|page| shard(*page) == shard(0)).collect()
}

/// As many pages as the budget allows, each found by its own number.
fn check_shard(cache: &PageCache) {
    let shard = lock(cache.shard((0, 0)));
    assert!(shard.slots.len() <= cache.slots_per_shard, "the budget");
    assert_eq!(shard.index.len(), shard.slots.len());
    for (key, at) in &shard.index {
        assert!(shard.slots[*at].key == *key);
    }
}

struct File {
    version: AtomicU64,
    owner: CacheOwner,
}

impl File {
    fn new(cache: &Arc<PageCache>) -> Shared<Self> {
        Shared::new(Self {
            version: AtomicU64::new(1),
            owner: cache.owner(),
        })
    }

    fn read(&self) -> u64 {
        let load = |bytes: &mut [u8; PAGE_BYTES]| {
            let version = self.version.load(Ordering::SeqCst);
            bytes[..8].copy_from_slice(&version.to_le_bytes());
            Ok(())
        };
        version(&self.owner.page(0, load).expect("it loads"))
    }

    fn change(&self, to: u64) {
        self.version.store(to, Ordering::SeqCst);
        self.owner.keep(0, page_of(to));
    }
}

#[test]
fn a_page_is_never_older_than_what_was_handed_over_before() {
    let life = |readers: usize| {
        let file = File::new(&PageCache::new(1 << 20));
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let file = Shared::clone(&file);
                thread::spawn(move || {
                    let first = file.read();
                    assert!(file.read() >= first, "time goes backwards");
                })
            })
            .collect();
        file.change(2);
        assert_eq!(file.read(), 2, "it was handed over");
        for reader in readers {
            reader.join().expect("it ends");
        }
        assert_eq!(file.read(), 2);
    };
    every_order("a reader and a writer", move || life(1));
    many_orders("three readers and a writer", move || life(3));
}

/// The newer page had to make room before the older one was loaded to its end.
#[test]
fn an_older_page_does_not_come_back_where_the_newer_one_made_room() {
    every_order("a reader, and a writer with room for one page", || {
        let cache = PageCache::new(0);
        let other = neighbours(&cache)[1];
        let file = File::new(&cache);
        let reader = {
            let file = Shared::clone(&file);
            thread::spawn(move || file.read())
        };
        file.change(2);
        file.owner.keep(other, page_of(0));
        check_shard(&cache);
        assert_eq!(file.read(), 2);
        reader.join().expect("it ends");
        check_shard(&cache);
        assert_eq!(file.read(), 2);
    });
}

#[test]
fn the_budget_holds_whoever_comes_when() {
    many_orders("three readers with room for two pages", || {
        let cache = PageCache::new(2 * SHARDS * PAGE_BYTES);
        let pages = neighbours(&cache);
        let owner = Shared::new(cache.owner());
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (cache, owner) = (Arc::clone(&cache), Shared::clone(&owner));
                let wanted = [pages[reader], pages[reader + 1]];
                thread::spawn(move || {
                    for number in wanted {
                        let load = |bytes: &mut [u8; PAGE_BYTES]| {
                            *bytes = *page_of(number);
                            Ok(())
                        };
                        let page = owner.page(number, load).expect("it loads");
                        assert_eq!(version(&page), number, "another page");
                    }
                    check_shard(&cache);
                })
            })
            .collect();
        for reader in readers {
            reader.join().expect("it ends");
        }
    });
}

#[test]
fn who_goes_takes_only_its_own_pages() {
    every_order("an owner that goes and one that stays", || {
        let cache = PageCache::new(1 << 20);
        let (stays, goes) = (File::new(&cache), cache.owner());
        goes.keep(0, page_of(7));
        stays.change(1);
        let going = thread::spawn(move || drop(goes));
        stays.change(2);
        going.join().expect("it ends");
        assert_eq!(stays.read(), 2);
        assert_eq!(cache.pages(), 1);
    });
}
