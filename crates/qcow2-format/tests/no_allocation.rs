//! Reading what is in the page cache asks for no memory. Alone in its binary: it counts every
//! allocation of the process, thread by thread.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use blockdev_core::{BlockDevice, LoneLayer};
use common::{MIB, made, memory, open, qemu};

struct Counting;

thread_local! {
    static MADE: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MADE.with(|made| made.set(made.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = MADE.with(Cell::get);
    f();
    MADE.with(Cell::get) - before
}

#[test]
fn reads_and_questions_on_the_hit_path_ask_for_no_memory() {
    let Some(_) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    for options in ["cluster_size=64k", "cluster_size=64k,extended_l2=on"] {
        let writes = ["write -P 1 0 1M", "write -z 2M 1M", "write -P 2 3M 4k"];
        let image = made(dir.path(), "a", 8 * MIB, options, &writes);
        let disk = LoneLayer::new(Box::new(open(memory(&image)).unwrap()));
        let mut buf = vec![0; 64 << 10];
        let mut all = || {
            for at in (0..8 * MIB).step_by(64 << 10) {
                disk.read_at(&mut buf, at).unwrap();
                disk.block_status(at, 64 << 10).unwrap();
            }
        };
        // The first round loads the pages.
        assert!(allocations(&mut all) > 0, "the counter counts");
        assert_eq!(allocations(&mut all), 0, "{options}");
    }
}
