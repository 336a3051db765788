//! Two ways in which a disk could read, held against each other with as little reading as can be.
//!
//! ```text
//!   a    top ─ base ─┐
//!                    ├─ shared layers: what both have from these is the same, unread
//!   b    other ──────┘
//! ```

use std::ops::Range;

use blockdev_core::{Extent, ExtentKind, Result};

use crate::link::Link;
use crate::stack::Stack;

/// Most bytes that are compared at a time.
pub(crate) const PIECE: u64 = 1 << 20;

/// Two stacks of layers.
pub(crate) struct Pair<'a> {
    a: Stack<'a>,
    b: Stack<'a>,
    /// So many layers at the bottom of both are the same files.
    shared: usize,
    buffers: [Vec<u8>; 2],
}

/// A run of bytes, and whether both are known to read the same there.
pub(crate) struct Run {
    pub(crate) len: u64,
    pub(crate) is_same: bool,
}

impl<'a> Pair<'a> {
    pub(crate) fn new(a: Stack<'a>, b: Stack<'a>) -> Self {
        Self {
            a,
            b,
            shared: shared_layers(a.links(), b.links()),
            buffers: [Vec::new(), Vec::new()],
        }
    }

    /// What is known unread of the run at `at`, which is at most `len` bytes long.
    pub(crate) fn run(&self, at: u64, len: u64) -> Result<Run> {
        let a = self.a.status(at, len)?;
        let b = self.b.status(at, a.len)?;
        Ok(Run {
            len: b.len,
            is_same: reads_zero(&a) && reads_zero(&b) || self.is_one_place(&a, &b),
        })
    }

    fn is_one_place(&self, a: &Extent, b: &Extent) -> bool {
        let place = self.a.height_of(a);
        place == self.b.height_of(b) && place <= self.shared
    }

    /// Reads both at `range`, of at most [`PIECE`] bytes, and hands `found` each unit of `grain` bytes, as
    /// far as it lies in the range, in which they differ, with what `a` reads there.
    pub(crate) fn compare(
        &mut self,
        range: Range<u64>,
        grain: u64,
        mut found: impl FnMut(Range<u64>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let len = usize::try_from(range.end - range.start).expect("at most a piece");
        let [a, b] = &mut self.buffers;
        for (stack, buffer) in [(self.a, &mut *a), (self.b, &mut *b)] {
            buffer.resize(len, 0);
            stack.read(buffer, range.start)?;
        }
        let index = |at: u64| usize::try_from(at - range.start).expect("inside the piece");
        let mut at = range.start;
        while at < range.end {
            let end = (at - at % grain).saturating_add(grain).min(range.end);
            let unit = index(at)..index(end);
            if a[unit.clone()] != b[unit.clone()] {
                found(at..end, &a[unit])?;
            }
            at = end;
        }
        Ok(())
    }
}

pub(crate) fn reads_zero(extent: &Extent) -> bool {
    matches!(extent.kind, ExtentKind::Zero | ExtentKind::Absent)
}

/// How many layers at the bottom of `a` and of `b` are the same files.
fn shared_layers(a: &[Link], b: &[Link]) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.take_while(|(a, b)| a.is_same(b)).count()
}
