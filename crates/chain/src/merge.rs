//! What upper layers hold, moved into a lower one.
//!
//! ```text
//!   0  top          ██░░          stays as it is, and reads the same over 2
//!   1  from      ░░██  ██   ─┐
//!   2  …           ██    ░░ ─┤    their data and their zeros, as they are seen together …
//!   3  into    ██████████  ◄─┘    … are written to this one, which then reads as 1 did
//! ```
//!
//! While this goes on the disk reads the same at every instant: whatever is half written in `into` is
//! hidden by the layers above, which hold all of it.

use blockdev_core::{
    BlockDevice, Error, ErrorKind, ExtentKind, Layer, Progress, Result, ZeroFlags,
};

use crate::chain::{Chain, write_zeros};
use crate::difference::cancelled;
use crate::pair::reads_zero;
use crate::stack::Stack;

/// Most bytes moved at a time.
const PIECE: u64 = 2 << 20;
/// Most bytes made zeros at a time, so that whoever watches can end it: no less than a block of any format.
const ZEROS: u64 = 256 << 20;

impl Chain {
    /// Writes what the layers from depth `from` to the one above `into` hold into the layer `into`, opened
    /// for writing, which then reads as the disk of `from` did; it is stable when this returns. The layer
    /// `into` must be at least as long; what it has past the end of that disk stays if `from` is 0, and
    /// becomes zeros, as the layer above saw them, otherwise. Gives how many bytes were written.
    ///
    /// Layers and references stay as they are, so that the chain reads the same throughout, and after an
    /// interruption.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for depths that are not there or not in this order, for
    /// a shorter layer, and when `progress` cancels; [`NeedsParent`](ErrorKind::NeedsParent) for a
    /// detached chain; those of reading and writing.
    pub fn merge(&self, from: u32, into: u32, progress: &dyn Progress) -> Result<u64> {
        let links = self.all_links();
        let place = |depth: u32| usize::try_from(depth).unwrap_or(usize::MAX);
        let (from, into) = (place(from), place(into));
        if from >= into || into >= links.len() {
            let text = "layers are merged into one below them";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if self.is_detached() {
            let text = "a parent of the layer that is merged into is not open";
            return Err(Error::new(ErrorKind::NeedsParent, text));
        }
        let size = links[from].layer.info().size;
        let target = Target {
            layer: &*links[into].layer,
            below: Stack::below(&links[into + 1..], into + 1),
            whole: Stack::below(&links[into..], into),
        };
        let target_size = target.layer.info().size;
        if target_size < size {
            let text = format!(
                "{} is shorter than what is to be merged into it",
                links[into]
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let run = Stack::cut_off(&links[from..into], from);
        progress.start(size);
        let (mut at, mut written) = (0, 0);
        let mut buffer = Vec::new();
        while at < size {
            if progress.is_cancelled() {
                return Err(cancelled());
            }
            let extent = run.status(at, size - at)?;
            let len = match extent.kind {
                // What nobody among these holds is what the target reads already.
                ExtentKind::Absent => extent.len,
                ExtentKind::Zero => target.zero(at, extent.len)?,
                ExtentKind::Data | ExtentKind::Compressed => {
                    let len = extent.len.min(PIECE - at % PIECE);
                    buffer.resize(usize::try_from(len).expect("at most 2 MiB"), 0);
                    run.read(&mut buffer, at)?;
                    target.layer.write_at(&buffer, at, &target.below)?;
                    written += len;
                    len
                }
            };
            at += len;
            progress.advance(len);
        }
        while from > 0 && at < target_size {
            if progress.is_cancelled() {
                return Err(cancelled());
            }
            at += target.zero(at, target_size - at)?;
        }
        target.layer.flush()?;
        Ok(written)
    }

    /// Has the top hold nothing any more, so that the disk reads as what is below; that is stable when
    /// this returns.
    ///
    /// # Errors
    /// [`NeedsParent`](ErrorKind::NeedsParent) for a detached chain, [`Unsupported`](ErrorKind::Unsupported)
    /// for a top that cannot give back what it holds, and those of writing.
    pub fn empty_top(&self) -> Result<()> {
        if self.is_detached() {
            let text = "what is below the top is not open";
            return Err(Error::new(ErrorKind::NeedsParent, text));
        }
        let mode = blockdev_core::DiscardMode::ToParent;
        self.top().discard(0, self.size(), mode)?;
        self.top().flush()
    }
}

/// The layer that is merged into.
struct Target<'a> {
    layer: &'a dyn Layer,
    below: Stack<'a>,
    whole: Stack<'a>,
}

impl Target<'_> {
    /// Has a first part of `len` bytes from `offset` read as zeros, and gives how long it is. Where it does so
    /// already nothing is written: there may be terabytes of nothing, and marks for them are not free.
    fn zero(&self, offset: u64, len: u64) -> Result<u64> {
        let end = offset + len;
        let found = self.whole.status(offset, len)?;
        let found_end = offset + found.len;
        let block = self
            .layer
            .info()
            .block_size
            .map_or(1, |size| u64::from(size.max(1)));
        if reads_zero(&found) {
            // A block of which a part is made zeros is made so as a whole.
            let clear = match found_end == end {
                true => end,
                false => found_end - found_end % block,
            };
            if clear > offset {
                return Ok(clear - offset);
            }
        }
        let blocks = found_end.checked_next_multiple_of(block).unwrap_or(end);
        let end = blocks.min(end).min(offset - offset % ZEROS + ZEROS);
        let flags = ZeroFlags {
            may_unmap: true,
            no_fallback: false,
        };
        write_zeros(self.layer, offset, end - offset, flags, &self.below)?;
        Ok(end - offset)
    }
}
