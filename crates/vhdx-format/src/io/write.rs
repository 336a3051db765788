//! Writing guest bytes: over what is present in this file, else to where it becomes present.
//!
//! ```text
//!   block is              sectors written go                      then
//!   present               in place, without a lock                –
//!   partially present     in place, with what completes them      bits are set; all of them: fully present
//!   not, over a parent    to a new block, with what completes     bits and entries, or fully present
//!   not, over zeros       to a new block of zeros                 fully present
//! ```

use std::ops::Range;

use blockdev_core::{Below, ExtentKind, Result, ZeroFlags};

use super::engine::Engine;
use crate::image::VhdxImage;
use crate::meta::bat::{ReadSemantics, Source};
use crate::ondisk::bat_entry::PayloadState;

/// What a request puts into its range.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// As many bytes as the range has.
    Bytes(&'a [u8]),
    Zeros(ZeroFlags),
}

/// Guest bytes of one block that become present.
#[derive(Debug)]
struct Arrival {
    block: u64,
    guest: Range<u64>,
    /// Where the block is.
    place: u64,
    kind: ArrivalKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArrivalKind {
    /// Sectors are added to a block that is partially present.
    Sectors,
    /// The block is new, and zeros are around what is written.
    OverZeros { is_fresh: bool },
    /// The block is new, and the parent's bytes are around what is written.
    OverParent { is_fresh: bool },
}

impl VhdxImage {
    /// Writes `buf` at guest byte `offset`; the range lies inside the disk.
    pub(crate) fn write_guest(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        let engine = self.engine()?;
        let mut done = 0;
        while done < buf.len() {
            self.announce(engine)?;
            let _pin = engine.pins.enter();
            let at = offset + done as u64;
            let left = &buf[done..];
            let end = at + left.len() as u64;
            let in_block = at..end.min(self.geometry.block_range(self.geometry.block_of(at)).end);
            let run = self.next_run(at, left.len() as u64, ReadSemantics::Effective)?;
            let as_index = |len: u64| usize::try_from(len).expect("no longer than the buffer");
            // A run that ends inside the block is one of scattered sectors: they go all together.
            if run.kind == ExtentKind::Data && at + run.len >= in_block.end {
                let len = as_index(run.len);
                let host = run.host.expect("stored bytes have a place");
                let outcome = self.storage.write_at(&left[..len], host.offset);
                engine.wrote();
                outcome?;
                done += len;
            } else {
                let len = as_index(in_block.end - at);
                self.put_in_block(engine, in_block, Content::Bytes(&left[..len]), below)?;
                done += len;
            }
        }
        Ok(())
    }

    /// Puts `content` into `guest`, which lies in one block. The caller holds a pin.
    pub(crate) fn put_in_block(
        &self,
        engine: &Engine,
        guest: Range<u64>,
        content: Content<'_>,
        below: &dyn Below,
    ) -> Result<()> {
        let block = self.geometry.block_of(guest.start);
        let sectors = self.geometry.sectors_around(&guest);
        let mut state = engine.lock();
        let (source, held) = loop {
            state = engine.idle(state, &sectors);
            let source = self.block_source(block)?;
            let held = match source {
                Source::Data(_) | Source::Partial(_) => sectors.clone(),
                Source::Absent | Source::Zero => self.geometry.block_range(block),
            };
            if !state.is_busy(&held) {
                break (source, held);
            }
            state = engine.idle(state, &held);
        };
        let (place, kind) = match source {
            Source::Data(place) => {
                drop(state);
                let outcome = self.put(place, block, &guest, content);
                engine.wrote();
                return outcome;
            }
            Source::Partial(place) => (place, ArrivalKind::Sectors),
            Source::Absent | Source::Zero => {
                let found = self.take_space(&mut state, self.geometry.block_size())?;
                let is_fresh = found.is_fresh;
                let kind = if source == Source::Absent && self.has_parent() {
                    ArrivalKind::OverParent { is_fresh }
                } else {
                    ArrivalKind::OverZeros { is_fresh }
                };
                (found.place, kind)
            }
        };
        let _held = engine.hold(&mut state, held);
        drop(state);
        let arrival = Arrival {
            block,
            guest,
            place,
            kind,
        };
        let outcome = self
            .fill(engine, &arrival, content, below)
            .and_then(|()| self.map(engine, &arrival));
        if outcome.is_err() && arrival.kind != ArrivalKind::Sectors {
            let len = self.geometry.block_size();
            let mut state = engine.lock();
            self.look_for_space(&mut state)?.give_back(place, len);
        }
        outcome
    }

    /// Where payload block `block` comes from at this moment.
    pub(crate) fn block_source(&self, block: u64) -> Result<Source> {
        let index = self.geometry.payload_index(block);
        self.tables.source(index, || {
            let page = self.tables.bat_page(index)?;
            let source = self.source(&page, block, ReadSemantics::Effective)?;
            Ok(source.expect("the page was asked for"))
        })
    }

    /// Puts `content` into `guest` of a block that lies at `place`.
    pub(crate) fn put(
        &self,
        place: u64,
        block: u64,
        guest: &Range<u64>,
        content: Content<'_>,
    ) -> Result<()> {
        let at = place + (guest.start - self.geometry.block_range(block).start);
        match content {
            Content::Bytes(bytes) => self.storage.write_at(bytes, at),
            Content::Zeros(flags) => self.zero_in_place(at, guest.end - guest.start, flags),
        }
    }

    /// Writes what arrives, and the bytes that complete its first and its last sector.
    fn fill(
        &self,
        engine: &Engine,
        arrival: &Arrival,
        content: Content<'_>,
        below: &dyn Below,
    ) -> Result<()> {
        let (block, place, guest) = (arrival.block, arrival.place, &arrival.guest);
        let is_new = match arrival.kind {
            ArrivalKind::Sectors => false,
            ArrivalKind::OverZeros { is_fresh } | ArrivalKind::OverParent { is_fresh } => {
                if !is_fresh {
                    self.clear_space(place, self.geometry.block_size())?;
                }
                true
            }
        };
        let sectors = self.geometry.sectors_around(guest);
        let (lead, trail) = (sectors.start..guest.start, guest.end..sectors.end);
        let mut edges = Vec::new();
        for edge in [lead, trail] {
            let carries = match arrival.kind {
                _ if edge.is_empty() => false,
                ArrivalKind::OverZeros { .. } => false,
                ArrivalKind::OverParent { .. } => true,
                ArrivalKind::Sectors => !self.is_present(block, &edge)?,
            };
            if carries {
                let mut bytes = vec![0; buffer_len(&edge)];
                below.read_at(&mut bytes, edge.start)?;
                edges.push((edge, bytes));
            }
        }
        let outcome = match content {
            // One write for all of it.
            Content::Bytes(middle) if !edges.is_empty() => {
                let (mut start, mut gathered) = (guest.start, middle.to_vec());
                for (edge, bytes) in edges {
                    if edge.end <= guest.start {
                        start = edge.start;
                        gathered.splice(..0, bytes);
                    } else {
                        gathered.extend(bytes);
                    }
                }
                let range = start..start + gathered.len() as u64;
                self.put(place, block, &range, Content::Bytes(&gathered))
            }
            Content::Bytes(_) => self.put(place, block, guest, content),
            Content::Zeros(_) => {
                let zeroed = if is_new {
                    Ok(())
                } else {
                    self.put(place, block, guest, content)
                };
                edges.iter().fold(zeroed, |outcome, (edge, bytes)| {
                    outcome.and_then(|()| self.put(place, block, edge, Content::Bytes(bytes)))
                })
            }
        };
        engine.wrote();
        outcome
    }

    /// Makes the mapping say that what arrived is there.
    fn map(&self, engine: &Engine, arrival: &Arrival) -> Result<()> {
        let (block, place) = (arrival.block, arrival.place);
        let sectors = self.geometry.sectors_around(&arrival.guest);
        let mut state = self.with_room(engine)?;
        match arrival.kind {
            ArrivalKind::Sectors => self.add_present(block, place, &sectors),
            ArrivalKind::OverParent { .. }
                if sectors != self.geometry.block_range_in_disk(block) =>
            {
                self.set_partial(&mut state, block, place, &sectors)
            }
            ArrivalKind::OverZeros { .. } | ArrivalKind::OverParent { .. } => {
                self.set_payload(block, PayloadState::FullyPresent, place)
            }
        }
    }
}

fn buffer_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).expect("less than a sector")
}
