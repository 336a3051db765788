//! Reading what is in the page cache, and overwriting what is present, asks for no memory. Alone in its binary: it counts every
//! allocation of the process, thread by thread.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use blockdev_core::{BlockDevice, LoneLayer, Storage};
use common::{MIB, memory, open, replay};
use testkit::Over;
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

/// A host that takes everything and keeps nothing, so that no memory is its own.
#[derive(Debug)]
struct Sink(std::sync::Arc<dyn Storage>);

impl Storage for Sink {
    fn len(&self) -> blockdev_core::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> blockdev_core::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> blockdev_core::Result<()> {
        // Headers must be there when they are read back.
        if offset < MIB {
            self.0.write_at(buf, offset)?;
        }
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

#[test]
fn overwriting_what_is_present_asks_for_no_memory() {
    let full = |n| BlockContent::full(BlockData::Pattern(n));
    let child = VhdxBuilder::child_of(&VhdxBuilder::new(4 * MIB), "p.vhdx");
    let fixed = VhdxBuilder::new(4 * MIB).fixed();
    for builder in [child, fixed] {
        let builder = (0..3).fold(builder, |builder, n| builder.block(n, full(n)));
        let sink = std::sync::Arc::new(Sink(memory(&builder.build())));
        let disk = Over::new(replay(sink).unwrap(), Default::default());
        let buf = vec![7; 64 << 10];
        let all = || {
            for at in (0..3 * MIB).step_by(64 << 10) {
                disk.write_at(&buf, at).unwrap();
                disk.write_at(&buf[..700], at + 100).unwrap();
            }
        };
        // The first round loads the pages, and announces itself in the header.
        assert!(allocations(all) > 0, "the counter counts");
        assert_eq!(allocations(all), 0);
    }
}
