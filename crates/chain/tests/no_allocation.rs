//! Reading through what a chain remembers asks for no memory. Alone in its binary: it counts every
//! allocation of the process, thread by thread.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use blockdev_chain::Chain;
use blockdev_core::{BlockDevice, Layer, MemoryStorage, OpenOptions};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};
use vhdx_format::VhdxImage;

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
fn reads_and_questions_through_hints_ask_for_no_memory() {
    const MIB: u64 = 1 << 20;
    let full = |n| BlockContent::full(BlockData::Pattern(n));
    let base = (0..8).fold(VhdxBuilder::new(16 * MIB), |image, n| {
        image.block(n, full(n))
    });
    let mut images = vec![base];
    for number in 0..12 {
        let child = VhdxBuilder::child_of(images.last().unwrap(), "parent");
        images.push(child.block(number, full(number)));
    }
    let layers = images.iter().rev().map(|image| {
        let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
        let image = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
        Box::new(image) as Box<dyn Layer>
    });
    let chain = Chain::from_layers(layers.collect()).unwrap();
    let mut buf = vec![0; 64 << 10];
    let mut all = || {
        for at in (0..16 * MIB).step_by(64 << 10) {
            chain.read_at(&mut buf, at).unwrap();
            chain.read_at(&mut buf[..4096], at + 512).unwrap();
            chain.block_status(at, 64 << 10).unwrap();
        }
    };
    // The first round loads the pages and finds out who holds what.
    assert!(allocations(&mut all) > 0, "the counter counts");
    assert_eq!(allocations(&mut all), 0);
}
