//! What a disk has from below, taken up into its top, so that something else can be put below it.
//!
//! ```text
//!   top     ██  ░░··██··        ·· holds nothing: here what was below and what will be are compared,
//!   old     AAAABBBBCCCC           and where they differ the old is written into the top
//!   new     AAAAAAAAAAAA
//! ```
//!
//! The disk reads the same before, between and after: what is written is what was read there already. So
//! an interrupted run leaves nothing half-made, and another goes on from what the top holds by then.

use blockdev_core::{
    BlockDevice, Error, ErrorKind, ExtentKind, Layer, Progress, Result, ZeroFlags, is_zero,
};

use crate::chain::{Chain, write_zeros};
use crate::difference::cancelled;
use crate::pair::{PIECE, Pair};
use crate::stack::Stack;
use crate::view::View;

/// Of the unit in which differences are taken up: not less than a page, and not so much that little
/// differences cost much space.
const GRAINS: std::ops::RangeInclusive<u64> = 4096..=65_536;

impl Chain {
    /// Has the top, opened for writing, hold everything by which what is below it now differs from `new`,
    /// or from zeros where that is `None`; it is stable when this returns. Then the disk reads the same
    /// over `new`. Gives how many bytes were taken up.
    ///
    /// # Errors
    /// [`NeedsParent`](ErrorKind::NeedsParent) for a detached chain, this one or the other,
    /// [`InvalidInput`](ErrorKind::InvalidInput) when `progress` cancels; those of reading and writing.
    pub fn pull(&self, new: Option<View<'_>>, progress: &dyn Progress) -> Result<u64> {
        let new = new.map_or(Stack::below(&[], 1), |view| view.stack());
        if self.is_detached() || new.is_detached() {
            let text = "a parent is not open, of what is below now or of what is to be";
            return Err(Error::new(ErrorKind::NeedsParent, text));
        }
        let links = self.all_links();
        let (top, old) = (&*links[0].layer, Stack::whole(links).below_top());
        let grain = top.info().block_size.map_or(*GRAINS.start(), u64::from);
        let grain = grain.clamp(*GRAINS.start(), *GRAINS.end());
        let mut pair = Pair::new(old, new);
        let mut taken = 0;
        let mut at = 0;
        let size = self.size();
        progress.start(size);
        while at < size {
            if progress.is_cancelled() {
                return Err(cancelled());
            }
            let mut len = size - at;
            let own = top.next_extent(at, len)?;
            len = own.len;
            if own.kind == ExtentKind::Absent {
                let run = pair.run(at, len)?;
                len = run.len;
                if !run.is_same {
                    len = len.min(PIECE - at % PIECE);
                    pair.compare(at..at + len, grain, |unit, bytes| {
                        taken += bytes.len() as u64;
                        hold(top, unit.start, bytes, old)
                    })?;
                }
            }
            at += len;
            progress.advance(len);
        }
        top.flush()?;
        Ok(taken)
    }
}

/// Writes `bytes`, which `below` reads at `offset`, into `top`.
fn hold(top: &dyn Layer, offset: u64, bytes: &[u8], below: Stack<'_>) -> Result<()> {
    let has_parent = below.depth() > 0;
    if has_parent && is_zero(bytes) {
        let flags = ZeroFlags {
            may_unmap: true,
            no_fallback: false,
        };
        return write_zeros(top, offset, bytes.len() as u64, flags, &below);
    }
    // An image without parent has no cause to note zeros where it holds nothing: they are spelled out.
    top.write_at(bytes, offset, &below)
}
