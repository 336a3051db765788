//! Tables that are read, changed and flushed at once.

use std::sync::Arc;

use blockdev_core::{PAGE_BYTES, PageCache, Storage};
use shuttle::thread;

use super::{Host, many_orders};
use crate::io::pages::{Pages, Stage};
use crate::sync;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Pages that are looked at; with room for one page in each part of the cache, they push each other
/// out of it.
const NUMBERS: u64 = 40;

struct Tables {
    host: Arc<Host>,
    pages: Pages,
    /// Only one thread at a time changes pages.
    changing: sync::Mutex<()>,
    /// The last value that was written to word 0 and acknowledged.
    acknowledged: AtomicU64,
}

impl Tables {
    fn new() -> Arc<Self> {
        let host = Host::new(vec![0; usize::try_from(NUMBERS).expect("few") * PAGE_BYTES]);
        Arc::new(Self {
            pages: Pages::new(Arc::clone(&host) as Arc<dyn Storage>, &PageCache::new(0)),
            host,
            changing: sync::Mutex::new(()),
            acknowledged: AtomicU64::new(0),
        })
    }

    /// Pages change at their first word and, later in the file, at the first of their last sector.
    fn change(&self, value: u64) {
        let _alone = self.changing.lock().expect("no panic under it");
        self.pages
            .write_word(0, value, Stage::Early)
            .expect("it writes");
        let last = PAGE_BYTES as u64 - 512;
        self.pages
            .write_word(last, value, Stage::Late)
            .expect("it writes");
        self.acknowledged.store(value, Ordering::SeqCst);
    }

    /// As the engine does; one flush after the other.
    fn flush(&self) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        self.write_batch();
        let bytes = self.host.bytes();
        for at in [0, PAGE_BYTES - 512] {
            let word = u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
            assert!(word >= acknowledged, "a flush left {acknowledged} out");
        }
    }

    fn write_batch(&self) {
        {
            let _alone = self.changing.lock().expect("no panic under it");
            self.pages.close_batch();
        }
        for stage in [Stage::Early, Stage::Middle, Stage::Late] {
            self.pages.write_out(stage).expect("it writes");
        }
        let _alone = self.changing.lock().expect("no panic under it");
        self.pages.settle();
    }

    /// Reads word 0, which only grows, and not behind what was acknowledged.
    fn look(&self) {
        let first = self.look_once();
        let second = self.look_once();
        assert!(second >= first, "{second} after {first}");
    }

    fn look_once(&self) -> u64 {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let word = self.pages.word(0).expect("it reads");
        assert!(word >= acknowledged, "{word} after {acknowledged}");
        word
    }

    /// Reads another page, for which one in the cache makes room.
    fn look_elsewhere(&self) {
        for number in 1..NUMBERS {
            self.pages.page(number).expect("it reads");
        }
    }
}

fn together(tables: &Arc<Tables>, threads: &[fn(&Tables)]) {
    let started: Vec<_> = threads
        .iter()
        .map(|thread| {
            let (tables, thread) = (Arc::clone(tables), *thread);
            thread::spawn(move || thread(&tables))
        })
        .collect();
    for thread in started {
        thread.join().expect("it ends");
    }
}

#[test]
fn a_table_never_reads_older_than_it_was() {
    many_orders("tables read, changed and flushed at once", || {
        let tables = Tables::new();
        together(
            &tables,
            &[
                Tables::look,
                Tables::look,
                |tables| {
                    tables.change(1);
                    tables.flush();
                    tables.change(2);
                    tables.flush();
                },
                Tables::look_elsewhere,
            ],
        );
        assert_eq!(tables.pages.word(0).expect("it reads"), 2);
        tables.look_elsewhere();
        assert_eq!(tables.pages.word(0).expect("it reads"), 2);
        assert_eq!(tables.pages.pending(), 0);
    });
}

#[test]
fn what_changes_during_a_flush_is_in_this_one_or_the_next() {
    many_orders("tables changed by one and flushed by another", || {
        let tables = Tables::new();
        together(
            &tables,
            &[
                Tables::look,
                |tables| (1..4).for_each(|value| tables.change(value)),
                |tables| (0..2).for_each(|_| tables.flush()),
            ],
        );
        tables.flush();
        assert_eq!(tables.host.bytes()[..8], 3u64.to_be_bytes());
    });
}

/// A page read from the file while one of its fields was written past the batches.
#[test]
fn what_is_written_through_is_read_by_all() {
    many_orders("a field written through", || {
        let tables = Tables::new();
        together(
            &tables,
            &[
                |tables| {
                    tables.look_once();
                    tables.look_once();
                },
                |tables| {
                    let _alone = tables.changing.lock().expect("no panic under it");
                    let word = 1u64.to_be_bytes();
                    tables.pages.write_through(0, &word).expect("it writes");
                    tables.acknowledged.store(1, Ordering::SeqCst);
                },
                |tables| {
                    tables.look_once();
                    tables.write_batch();
                },
            ],
        );
        assert_eq!(tables.pages.word(0).expect("it reads"), 1);
    });
}
