//! Making guest bytes zeros: by the state of whole blocks, else in place.

use std::ops::Range;

use blockdev_core::{Below, ErrorKind, ExtentKind, Result, ZeroFlags};

use super::engine::Engine;
use super::write::Content;
use crate::image::{DiskType, VhdxImage};
use crate::meta::bat::{ReadSemantics, Source};
use crate::ondisk::bat_entry::PayloadState;

impl VhdxImage {
    /// Makes `len` bytes from guest byte `offset` zeros; the range lies inside the disk.
    pub(crate) fn zero_guest(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        let flags = ZeroFlags {
            may_unmap: flags.may_unmap && !self.keeps_blocks(),
            ..flags
        };
        self.for_each_part(offset, len, |engine, part, run| {
            let is_zero = match run {
                ExtentKind::Zero => true,
                ExtentKind::Absent => !self.has_parent(),
                ExtentKind::Data | ExtentKind::Compressed => false,
            };
            if is_zero {
                return Ok(Done::Run);
            }
            self.announce(engine)?;
            self.zero_in_block(engine, part, flags, below)?;
            Ok(Done::Part)
        })
    }

    /// Makes `guest`, which lies in one block, zeros.
    fn zero_in_block(
        &self,
        engine: &Engine,
        guest: Range<u64>,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        let block = self.geometry.block_of(guest.start);
        if guest == self.geometry.block_range_in_disk(block)
            && self.zero_by_state(engine, block, flags, PayloadState::Zero)?
        {
            return Ok(());
        }
        self.put_in_block(engine, guest, Content::Zeros(flags), below)
    }

    /// Makes payload block `block` zeros by `zeros`, a state that says so, and gives its space back.
    /// False when its space is to stay its own.
    pub(crate) fn zero_by_state(
        &self,
        engine: &Engine,
        block: u64,
        flags: ZeroFlags,
        zeros: PayloadState,
    ) -> Result<bool> {
        let whole = self.geometry.block_range(block);
        let mut state = self.ready(engine, &whole)?;
        match self.block_source(block)? {
            Source::Data(place) | Source::Partial(place) => {
                if !flags.may_unmap {
                    return Ok(false);
                }
                self.set_payload(block, zeros, 0)?;
                state.free_later(place, self.geometry.block_size());
            }
            Source::Absent if self.has_parent() => self.set_payload(block, zeros, 0)?,
            Source::Absent | Source::Zero => {}
        }
        Ok(true)
    }

    /// Makes `len` bytes from byte `at` of the file zeros.
    pub(crate) fn zero_in_place(&self, at: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        if flags.may_unmap {
            match self.storage.punch_hole(at, len) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                other => return other,
            }
        }
        if flags.no_fallback {
            // Whether the host zeroes at once or byte by byte is not known before it is asked.
            return Err(ErrorKind::Unsupported.into());
        }
        self.storage.zero_range(at, len)
    }

    /// True for a disk whose blocks keep their space whatever happens (§2.6.2.1).
    pub(crate) fn keeps_blocks(&self) -> bool {
        self.disk_type() == DiskType::Fixed
    }

    /// Goes through the range by `visit`, which is shown each block's part of it and what the run
    /// is that begins there, and says how far it came.
    pub(crate) fn for_each_part(
        &self,
        offset: u64,
        len: u64,
        visit: impl Fn(&Engine, Range<u64>, ExtentKind) -> Result<Done>,
    ) -> Result<()> {
        let engine = self.engine()?;
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let _pin = engine.pins.enter();
            let run = self.next_run(at, end - at, ReadSemantics::Effective)?;
            let block = self.geometry.block_range(self.geometry.block_of(at));
            let part = at..end.min(block.end);
            let part_end = part.end;
            at = match visit(engine, part, run.kind)? {
                Done::Run => at + run.len,
                Done::Part => part_end,
            };
        }
        Ok(())
    }
}

/// What a visit has seen to.
pub(crate) enum Done {
    /// The whole run.
    Run,
    /// The part in the first block.
    Part,
}
