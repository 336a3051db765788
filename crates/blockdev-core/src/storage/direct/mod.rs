//! A file's bytes past the host's page cache.
//!
//! The host takes whole blocks only, from memory that is aligned as well; callers read and write as they
//! like. What is aligned goes straight, all else through a buffer of our own:
//!
//! ```text
//!   write       ┆      ▐██┆███████┆███▌   ┆            of bytes inside the file
//!   becomes     [old ▐██ ┆███████┆███▌old]             edges read first, one write of whole blocks
//!
//!   write       ┆      ▐██┆███████┆██▌                 over the file's end
//!   becomes     [old ▐██ ┆███████]                     whole blocks directly, which make the file longer
//!                                 └─▌                  and the rest through the page cache
//! ```
//!
//! A last block that the file fills in part is written through a second descriptor, which is not direct:
//! a whole block would make the file longer than anybody asked for, and to cut it back afterwards is no
//! remedy, for a crash in between leaves it long. The kernel writes such pages out, and forgets them, before
//! a direct request touches them, if nobody changes them meanwhile; nor would two that put new bytes beside
//! each other's into one block keep both. So whoever writes holds what it touches ([`Spans`]) in units that
//! no page and no block crosses. Reads hold nothing: they come by themselves upon what is old or new.

mod bounce;
mod spans;

use std::fs::File;
use std::io::{self, ErrorKind};

use bounce::{BOUNCE_BYTES, Bounces};
use spans::Spans;

pub(super) use spans::Held;

use super::{past_end, sys};
use crate::{Result, align_down, align_up};

/// What the host asks of direct requests to a file, all powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirectRules {
    /// Of the addresses of buffers.
    pub(super) memory: usize,
    /// Of offsets and lengths.
    pub(super) block: u64,
    /// Of what the page cache writes out at once, and a multiple of the block.
    pub(super) unit: u64,
}

/// The descriptor for direct requests to a file, and what goes with it.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    rules: DirectRules,
    spans: Spans,
    bounces: Bounces,
}

impl Direct {
    /// Opens `file`, which is open already, once more for direct requests.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the system or the file system has none.
    pub(super) fn open(file: &File, writable: bool) -> Result<Self> {
        let (file, rules) = sys::open_direct(file, writable)?;
        Ok(Self::new(file, rules))
    }

    fn new(file: File, rules: DirectRules) -> Self {
        Self {
            file,
            rules,
            spans: Spans::default(),
            bounces: Bounces::new(rules.memory),
        }
    }

    /// The descriptor.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the host takes a request for `buf` at `offset` as it is.
    pub(super) fn takes(&self, buf: &[u8], offset: u64) -> bool {
        let block = self.rules.block;
        offset.is_multiple_of(block)
            && (buf.len() as u64).is_multiple_of(block)
            && buf.as_ptr().addr().is_multiple_of(self.rules.memory)
    }

    /// Keeps others from changing what `len` bytes from `offset` share a unit with.
    pub(super) fn hold(&self, offset: u64, len: u64) -> Result<Held<'_>> {
        let unit = self.rules.unit;
        let end = offset.checked_add(len).ok_or_else(|| past_end(offset))?;
        let end = align_up(end, unit).unwrap_or(u64::MAX);
        Ok(self.spans.hold(align_down(offset, unit)..end))
    }

    /// Keeps others from changing anything.
    pub(super) fn hold_all(&self) -> Held<'_> {
        self.spans.hold(0..u64::MAX)
    }

    /// Fills `buf` from byte `offset`.
    pub(super) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.takes(buf, offset) {
            return self.read_whole(buf, offset);
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset
                .checked_add(done as u64)
                .ok_or(ErrorKind::UnexpectedEof)?;
            let skip = self.inside_block(at);
            let len = (buf.len() - done).min(BOUNCE_BYTES - skip);
            let mut bounce = self.bounces.take();
            let blocks = &mut bounce.bytes()[..self.up(skip + len)];
            // The file may end inside the last of them.
            if self.read_some(blocks, at - skip as u64)? < skip + len {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            buf[done..done + len].copy_from_slice(&blocks[skip..skip + len]);
            done += len;
        }
        Ok(())
    }

    /// Writes `buf` at byte `offset` of a file that `len` tells the length of, and that is `cached` the other
    /// way.
    pub(super) fn write_at(
        &self,
        buf: &[u8],
        offset: u64,
        cached: &File,
        len: impl Fn() -> Result<u64>,
    ) -> Result<()> {
        let _held = self.hold(offset, buf.len() as u64)?;
        let mut done = 0;
        while done < buf.len() {
            done += self.write_some(&buf[done..], offset + done as u64, cached, &len)?;
        }
        Ok(())
    }

    /// Writes the first bytes of `buf`, which is not empty, and tells how many.
    fn write_some(
        &self,
        buf: &[u8],
        at: u64,
        cached: &File,
        len: &impl Fn() -> Result<u64>,
    ) -> Result<usize> {
        let block = usize::try_from(self.rules.block).expect("at most 64 KiB");
        let skip = self.inside_block(at);
        let whole = buf.len() - buf.len() % block;
        if whole > 0 && self.takes(&buf[..whole], at) {
            sys::write_all_at(&self.file, &buf[..whole], at)?;
            return Ok(whole);
        }
        // From here on places are counted from the start of the first block.
        let start = at - skip as u64;
        let mut end = (skip + buf.len()).min(BOUNCE_BYTES);
        if skip > 0 || !end.is_multiple_of(block) {
            let there = len()?;
            let is_there = |end: usize| {
                let end = start.checked_add(end as u64);
                end.is_some_and(|end| end <= there)
            };
            if (skip > 0 || end < block) && !is_there(block) {
                let part = &buf[..(block - skip).min(buf.len())];
                sys::write_all_at(cached, part, at)?;
                return Ok(part.len());
            }
            if !is_there(self.up(end)) && end > block {
                // The last block is for the next turn.
                end -= end % block;
            }
        }
        let mut bounce = self.bounces.take();
        let blocks = &mut bounce.bytes()[..self.up(end)];
        if skip > 0 {
            self.read_whole(&mut blocks[..block], start)?;
        }
        let last = end - end % block;
        if last < end && (last > 0 || skip == 0) {
            self.read_whole(&mut blocks[last..], start + last as u64)?;
        }
        blocks[skip..end].copy_from_slice(&buf[..end - skip]);
        sys::write_all_at(&self.file, blocks, start)?;
        Ok(end - skip)
    }

    /// How far into its block byte `at` lies.
    fn inside_block(&self, at: u64) -> usize {
        usize::try_from(at % self.rules.block).expect("at most 64 KiB")
    }

    /// `len` as bytes of whole blocks.
    fn up(&self, len: usize) -> usize {
        let block = usize::try_from(self.rules.block).expect("at most 64 KiB");
        len.next_multiple_of(block)
    }

    /// Fills `buf`, whole blocks in aligned memory, from byte `offset`.
    fn read_whole(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_some(buf, offset)? == buf.len() {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The same as far as the file goes, and tells how far that was.
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match sys::read_once_at(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => {
                    done += n;
                    // Only the end of the file divides a block.
                    if !(n as u64).is_multiple_of(self.rules.block) {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(shuttle)))]
mod tests;
