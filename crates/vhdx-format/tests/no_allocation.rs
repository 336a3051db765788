//! Reading what is in the page cache asks for no memory. Alone in its binary: it counts every
//! allocation of the process, thread by thread.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use blockdev_core::{BlockDevice, LoneLayer};
use common::{MIB, memory, open};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

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
    let child = VhdxBuilder::child_of(&VhdxBuilder::new(8 * MIB), "p.vhdx")
        .block(0, BlockContent::full(BlockData::Pattern(1)))
        .block(1, BlockContent::full(BlockData::Pattern(2)))
        .block(2, BlockContent::Zero)
        .block(3, BlockContent::partial(BlockData::Pattern(3), 0..2048));
    let alone = VhdxBuilder::new(8 * MIB)
        .block(0, BlockContent::full(BlockData::Pattern(1)))
        .block(3, BlockContent::full(BlockData::Pattern(2)));
    for (builder, most) in [(child, 4 * MIB), (alone, 8 * MIB)] {
        let disk = LoneLayer::new(Box::new(open(memory(&builder.build())).unwrap()));
        let mut buf = vec![0; 64 << 10];
        let mut all = || {
            for at in (0..most).step_by(64 << 10) {
                disk.read_at(&mut buf, at).unwrap();
                disk.block_status(at, 64 << 10).unwrap();
            }
        };
        // The first round loads the pages.
        assert!(allocations(&mut all) > 0, "the counter counts");
        assert_eq!(allocations(&mut all), 0);
    }
}
