//! Where two disks read differently.

use std::collections::VecDeque;
use std::ops::Range;

use blockdev_core::{BlockDevice, Error, ErrorKind, Progress, Result};

use crate::pair::{PIECE, Pair};
use crate::view::View;

/// Where two disks differ; made by [`Differences::between`]. Yields ranges of bytes in ascending order,
/// neighbours joined. After an error it is at its end.
pub struct Differences<'a> {
    pair: Pair<'a>,
    grain: u64,
    next: u64,
    end: u64,
    progress: &'a dyn Progress,
    /// Found and not yet given; the last may become longer.
    found: VecDeque<Range<u64>>,
}

impl std::fmt::Debug for Differences<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Differences")
            .field("next", &self.next)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl<'a> Differences<'a> {
    /// Compares the disks `a` and `b`, whole chains or ancestors: the shorter of them reads as zeros past
    /// its end. Differences are told in units of `grain` bytes, a power of two of at most 1 MiB; 512
    /// tells of each sector. What both have from the same files is not read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for another grain, [`ErrorKind::NeedsParent`] for a disk whose parents
    /// are not all open.
    ///
    /// # Example
    ///
    /// ```
    /// use std::sync::Arc;
    /// use blockdev_chain::{Chain, Differences};
    /// use blockdev_core::{MemoryStorage, NoProgress, RawLayer};
    ///
    /// let disk = |bytes: Vec<u8>| {
    ///     let storage = Arc::new(MemoryStorage::from(bytes));
    ///     Chain::from_layers(vec![Box::new(RawLayer::open(storage)?)])
    /// };
    /// let (a, b) = (disk(vec![0; 4096])?, disk([vec![0; 4096], vec![1; 512]].concat())?);
    /// let all: Result<Vec<_>, _> = Differences::between(a.whole(), b.whole(), 512, &NoProgress)?.collect();
    /// assert_eq!(all?, [4096..4608]);
    /// # Ok::<(), blockdev_core::Error>(())
    /// ```
    pub fn between(
        a: View<'a>,
        b: View<'a>,
        grain: u64,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        if !grain.is_power_of_two() || grain > PIECE {
            let text = "differences are told in units of a power of two of at most 1 MiB";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if [&a, &b].into_iter().any(|view| view.stack().is_detached()) {
            let text = "a parent of one of the disks is not open";
            return Err(Error::new(ErrorKind::NeedsParent, text));
        }
        let end = a.size().max(b.size());
        progress.start(end);
        Ok(Self {
            pair: Pair::new(a.stack(), b.stack()),
            grain,
            next: 0,
            end,
            progress,
            found: VecDeque::new(),
        })
    }

    /// Looks at the next run.
    fn step(&mut self) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(cancelled());
        }
        let start = self.next;
        let run = self.pair.run(start, self.end - start)?;
        let mut len = run.len;
        if !run.is_same {
            len = len.min(PIECE - start % PIECE);
            let found = &mut self.found;
            self.pair
                .compare(start..start + len, self.grain, |unit, _| {
                    match found.back_mut() {
                        Some(last) if last.end == unit.start => last.end = unit.end,
                        _ => found.push_back(unit),
                    }
                    Ok(())
                })?;
        }
        self.next += len;
        self.progress.advance(len);
        Ok(())
    }
}

impl Iterator for Differences<'_> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.found.len() < 2 && self.next < self.end {
            if let Err(error) = self.step() {
                self.next = self.end;
                self.found.clear();
                return Some(Err(error));
            }
        }
        self.found.pop_front().map(Ok)
    }
}

/// What an operation ends with that its caller cancelled.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::InvalidInput, "cancelled")
}
