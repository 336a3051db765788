//! Layers from some depth down to the bottom: how a request falls through them.
//!
//! ```text
//!   request   ▏───────────────────────────▏
//!   layer 0   ████········████·············     ░ past the end of a shorter layer: zeros at once,
//!   layer 1       ██······    ······▏░░░░░░       whatever deeper layers hold there
//!   layer 2         ······    ██████            · what is left falls to the next layer
//!   bottom          000000                      0 zeros, or an error if the bottom names a parent
//! ```
//!
//! Layers from some depth down to the bottom never change while they are open. What a request finds out
//! about them is remembered in [`Hints`], and those that hold nothing are not asked again.

use std::ops::Range;

use blockdev_core::{
    Below, BelowRun, ByteRange, Error, ErrorKind, Extent, ExtentKind, Holes, Result, fits,
};

use crate::hints::{GRANULE, Hints, MOST_LAYERS};
use crate::link::Link;

/// How far beyond a request one look at the layers goes, up to the next multiple. As many clusters of a
/// usual size as cost less to look at than to read one of them.
const LOOK_AHEAD: u64 = 4 << 20;
/// Runs of the layer that decides which one look ahead takes in.
const MOST_RUNS: u32 = 64;

/// Some layers, upper first. None at all reads as zeros.
#[derive(Clone, Copy)]
pub(crate) struct Stack<'a> {
    links: &'a [Link],
    /// How many layers of the chain are above these.
    above: usize,
    /// Others are below that do not count: what these do not hold is not zeros.
    is_cut: bool,
    /// What is known of those that never change.
    known: Option<Known<'a>>,
}

/// Hints about the layers from one on.
#[derive(Clone, Copy)]
struct Known<'a> {
    hints: &'a Hints,
    first: usize,
}

/// Who decides what is at some place.
struct Decision {
    /// The number of the layer; that of the bottom's parent when none does.
    at: usize,
    /// Bytes that the layers above it reach past, and hold nothing of.
    clear: u64,
    /// What it is in that layer; `None` when that one ends before, or there is none.
    extent: Option<Extent>,
}

/// The number of the first of `links` that never changes while it is open, as all below it; `None`
/// where there are not two of them, so that there is nothing to remember.
pub(crate) fn first_fixed(links: &[Link]) -> Option<usize> {
    let changing = links.iter().rposition(|link| !link.layer.info().read_only);
    let first = changing.map_or(0, |at| at + 1);
    (2..=MOST_LAYERS)
        .contains(&(links.len() - first))
        .then_some(first)
}

impl<'a> Stack<'a> {
    /// The whole chain.
    pub(crate) fn whole(links: &'a [Link]) -> Self {
        Self::below(links, 0)
    }

    /// These, which are below so many others.
    pub(crate) fn below(links: &'a [Link], above: usize) -> Self {
        Self {
            links,
            above,
            is_cut: false,
            known: None,
        }
    }

    /// The same, of which others below are cut off: what is left to them is told from zeros.
    pub(crate) fn cut_off(links: &'a [Link], above: usize) -> Self {
        Self {
            is_cut: true,
            ..Self::below(links, above)
        }
    }

    /// The same with what is known of the layers from number `first` on, none of which ever changes.
    pub(crate) fn with_hints(self, hints: &'a Hints, first: usize) -> Self {
        let known = Some(Known { hints, first });
        Self { known, ..self }
    }

    /// What is below the top of these.
    pub(crate) fn below_top(self) -> Self {
        Self {
            links: self.links.get(1..).unwrap_or_default(),
            above: self.above + 1,
            is_cut: self.is_cut,
            known: self.known.and_then(Known::below_top),
        }
    }

    /// These layers, upper first.
    pub(crate) fn links(self) -> &'a [Link] {
        self.links
    }

    /// How many layers these are.
    pub(crate) fn depth(self) -> usize {
        self.links.len()
    }

    /// The place among these of the layer that decides `extent`, told by [`status`](Self::status),
    /// counted from the bottom: 1 is the bottom itself.
    pub(crate) fn height_of(self, extent: &Extent) -> usize {
        let depth = usize::try_from(extent.depth).unwrap_or(usize::MAX);
        (self.above + self.links.len()).saturating_sub(depth)
    }

    /// True when the bottom names a parent that is not here.
    pub(crate) fn is_detached(self) -> bool {
        let bottom = self.links.last();
        self.is_cut || bottom.is_some_and(|link| link.parent().is_some())
    }

    /// Fills `buf` from byte `offset`. Asks for no memory unless a layer leaves more than one hole, or hints
    /// have to be made room for.
    pub(crate) fn read(self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, u64::MAX)?;
        let Some(known) = self.known else {
            let left = self.fall(buf, offset, 0..self.links.len(), None)?;
            return self.end(buf, offset, &left);
        };
        if known.first == 0 {
            return self.read_fixed(known, buf, offset);
        }
        let left = self.fall(buf, offset, 0..known.first, None)?;
        for hole in left.iter() {
            self.read_fixed(known, hole.slice_of(buf, offset), hole.start())?;
        }
        Ok(())
    }

    /// The same of the layers that never change alone.
    fn read_fixed(self, known: Known<'_>, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let (at, rest) = (offset + done as u64, &mut buf[done..]);
            let len = rest.len() as u64;
            let (skip, piece, note) = match known.hints.find(at, len) {
                Some((skip, run)) => (skip, run, None),
                // What is short is looked for as it is read, in one descent for all of it.
                None => match self.look_ahead(known, at, len) {
                    Some((skip, run)) if run >= len => (skip, run, None),
                    _ => (0, len, Some(known)),
                },
            };
            let piece = usize::try_from(piece).expect("no longer than the buffer");
            let piece = &mut rest[..piece];
            let left = self.fall(piece, at, known.first + skip..self.links.len(), note)?;
            self.end(piece, at, &left)?;
            done += piece.len();
        }
        Ok(())
    }

    /// Finds out and notes from which layer the bytes at `offset` and behind them come. What is wrong
    /// there is for the read to meet.
    #[cold]
    fn look_ahead(self, known: Known<'_>, offset: u64, len: u64) -> Option<(usize, u64)> {
        let start = offset - offset % GRANULE;
        let end = start.checked_next_multiple_of(LOOK_AHEAD)?;
        let end = if end == start {
            start.checked_add(LOOK_AHEAD)?
        } else {
            end
        };
        let found = self.decide(known.first, start, end - start).ok()?;
        let mut held = found.extent.map_or(found.clear, |extent| extent.len);
        if let (Some(_), Some(link)) = (found.extent, self.links.get(found.at)) {
            let clear = found.clear.min(link.layer.info().size - start);
            for _ in 0..MOST_RUNS {
                if held >= clear {
                    break;
                }
                match link.layer.next_extent(start + held, clear - held) {
                    Ok(next) if next.kind != ExtentKind::Absent => held += next.len,
                    _ => break,
                }
            }
        }
        known.hints.note(start, held, found.at - known.first);
        known.hints.find(offset, len)
    }

    /// Fills what the layers numbered `layers` hold of `buf`, and gives what none of them does. What it
    /// shows is noted where `known` says.
    fn fall(
        self,
        buf: &mut [u8],
        offset: u64,
        layers: Range<usize>,
        known: Option<Known<'_>>,
    ) -> Result<Holes> {
        let (mut wanted, mut layers) = (Holes::new(), layers);
        // Most requests end with the first layer that is asked: there is nothing to keep account of.
        if known.is_none()
            && let Some(first) = layers.next()
        {
            self.ask(first, buf, offset, &mut wanted)?;
        } else if let Some(whole) = ByteRange::new(offset, buf.len() as u64) {
            wanted.push(whole);
        }
        let mut left = Holes::new();
        for at in layers {
            if wanted.is_empty() {
                break;
            }
            left.clear();
            for hole in wanted.iter() {
                self.ask(at, hole.slice_of(buf, offset), hole.start(), &mut left)?;
            }
            if let Some(known) = known {
                known.note_decided(&wanted, &left, at);
            }
            std::mem::swap(&mut wanted, &mut left);
        }
        if let Some(known) = known {
            known.note_decided(&wanted, &Holes::new(), self.links.len());
        }
        Ok(wanted)
    }

    /// Fills what layer number `at` decides of `buf`, and adds the rest to `left`.
    #[inline]
    fn ask(self, at: usize, buf: &mut [u8], offset: u64, left: &mut Holes) -> Result<()> {
        let layer = &self.links[at].layer;
        let inside = layer.info().size.saturating_sub(offset);
        let inside = usize::try_from(inside).map_or(buf.len(), |inside| inside.min(buf.len()));
        let (held, past) = buf.split_at_mut(inside);
        if !past.is_empty() {
            past.fill(0);
        }
        if held.is_empty() {
            return Ok(());
        }
        let read = layer.read_at(held, offset, left);
        read.map_err(|error| self.place(at, error))
    }

    /// What nobody holds.
    #[inline]
    fn end(self, buf: &mut [u8], offset: u64, left: &Holes) -> Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        for hole in left.iter() {
            if self.is_detached() {
                return Err(needs_parent(hole.start()));
            }
            hole.slice_of(buf, offset).fill(0);
        }
        Ok(())
    }

    /// What the run that starts at `offset` is, in at most `len` bytes; `len` is not 0.
    pub(crate) fn status(self, offset: u64, len: u64) -> Result<Extent> {
        let Decision { at, clear, extent } = self.decide(0, offset, len)?;
        if let Some(extent) = extent {
            let depth = u32::try_from(self.above + at).unwrap_or(u32::MAX);
            return Ok(Extent { depth, ..extent });
        }
        // Nobody holds it, and the layer above is the last that could have. Past the end of a shorter
        // layer zeros are certain even where the bottom names a parent that is not here.
        let kind = if at < self.links.len() && self.is_detached() {
            ExtentKind::Zero
        } else {
            ExtentKind::Absent
        };
        let above = at.checked_sub(1).map_or(0, |last| self.above + last);
        Ok(Extent {
            depth: u32::try_from(above).unwrap_or(u32::MAX),
            ..Extent::new(kind, clear)
        })
    }

    /// Who decides what the run at `offset` is, of the layers from number `first` on, and in at most
    /// `len` bytes; `len` is not 0.
    fn decide(self, first: usize, offset: u64, len: u64) -> Result<Decision> {
        let mut clear = len;
        let mut at = first;
        // The first layer of which it was not known that it holds nothing.
        let mut asked = first;
        let mut extent = None;
        while let Some(link) = self.links.get(at) {
            if let Some(known) = self.known.filter(|known| known.first == at)
                && let Some((skip @ 1.., run)) = known.hints.find(offset, clear)
            {
                clear = run;
                at += skip;
                asked = at;
                continue;
            }
            let inside = link.layer.info().size.saturating_sub(offset).min(clear);
            if inside == 0 {
                break;
            }
            let found = link.layer.next_extent(offset, inside);
            let found = found.map_err(|error| self.place(at, error))?;
            debug_assert!(found.len > 0 && found.len <= inside);
            if found.kind != ExtentKind::Absent {
                extent = Some(found);
                break;
            }
            clear = found.len;
            at += 1;
        }
        if let Some(known) = self.known.filter(|known| at > asked && at >= known.first) {
            let held = extent.map_or(clear, |extent| extent.len);
            known.hints.note(offset, held, at - known.first);
        }
        Ok(Decision { at, clear, extent })
    }

    /// `error` of one of these layers, named unless it is the chain's top, which the caller knows.
    #[cold]
    fn place(self, at: usize, error: Error) -> Error {
        match (self.above + at, self.links.get(at)) {
            (1.., Some(link)) => link.blame(error),
            _ => error,
        }
    }
}

impl<'a> Known<'a> {
    /// The same, numbered from the layer below the top; `None` when hints are about the top too.
    fn below_top(self) -> Option<Self> {
        let first = self.first.checked_sub(1)?;
        Some(Self { first, ..self })
    }

    /// Notes that layer number `at` decided of `wanted` what it did not leave. Whoever decides a part of a
    /// granule first is met once, since from then on it is not wanted as a whole.
    fn note_decided(self, wanted: &Holes, left: &Holes, at: usize) {
        let skip = at - self.first;
        let mut left = left.iter().peekable();
        for hole in wanted.iter() {
            let mut from = hole.start();
            loop {
                let next = left.next_if(|next| next.end() <= hole.end());
                let to = next.map_or(hole.end(), |next| next.start());
                self.note_piece(hole, from, to, skip);
                match next {
                    Some(next) => from = next.end(),
                    None => break,
                }
            }
        }
    }

    /// Notes that what lies from `from` to `to` in `hole` was decided, and the granules at either end that
    /// lie in it.
    fn note_piece(self, hole: ByteRange, from: u64, to: u64, skip: usize) {
        if from == to {
            return;
        }
        self.hints.note(from, to - from, skip);
        for edge in [from, to] {
            let start = edge - edge % GRANULE;
            let inside = start >= hole.start() && hole.end() - start >= GRANULE;
            if edge != start && inside {
                self.hints.note_mixed(start, skip);
            }
        }
    }
}

/// What a layer asks for the bytes that complete a unit of its own.
impl Below for Stack<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read(buf, offset)
    }

    fn next_run(&self, offset: u64, len: u64) -> Result<BelowRun> {
        let run = self.status(offset, len)?;
        let is_zero = match run.kind {
            ExtentKind::Zero => true,
            ExtentKind::Absent => !self.is_detached(),
            ExtentKind::Data | ExtentKind::Compressed => false,
        };
        Ok(BelowRun {
            len: run.len,
            is_zero,
        })
    }
}

/// The answer of a detached chain where it holds nothing.
pub(crate) fn needs_parent(offset: u64) -> Error {
    Error::new(
        ErrorKind::NeedsParent,
        format!("the bytes at {offset:#x} are in a parent image, which is not open"),
    )
}
