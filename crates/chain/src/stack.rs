//! Layers from some depth down to the bottom: how a request falls through them.
//!
//! ```text
//!   request   ▏───────────────────────────▏
//!   layer 0   ████········████·············     ░ past the end of a shorter layer: zeros at once,
//!   layer 1       ██······    ······▏░░░░░░       whatever deeper layers hold there
//!   layer 2         ······    ██████            · what is left falls to the next layer
//!   bottom          000000                      0 zeros, or an error if the bottom names a parent
//! ```

use blockdev_core::{Below, ByteRange, Error, ErrorKind, Extent, ExtentKind, Holes, Result, fits};

use crate::link::Link;

/// Some layers, upper first. None at all reads as zeros.
#[derive(Clone, Copy)]
pub(crate) struct Stack<'a> {
    links: &'a [Link],
    /// How many layers of the chain are above these.
    above: usize,
    /// Others are below that do not count: what these do not hold is not zeros.
    is_cut: bool,
}

impl<'a> Stack<'a> {
    /// The whole chain.
    pub(crate) fn whole(links: &'a [Link]) -> Self {
        Self::below(links, 0)
    }

    /// What is below the top of the whole chain `links`.
    pub(crate) fn below_top(links: &'a [Link]) -> Self {
        Self::below(links.get(1..).unwrap_or_default(), 1)
    }

    /// These, which are below so many others.
    pub(crate) fn below(links: &'a [Link], above: usize) -> Self {
        Self {
            links,
            above,
            is_cut: false,
        }
    }

    /// The same, of which others below are cut off: what is left to them is told from zeros.
    pub(crate) fn cut_off(links: &'a [Link], above: usize) -> Self {
        Self {
            is_cut: true,
            ..Self::below(links, above)
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

    /// Fills `buf` from byte `offset`. Asks for no memory unless a layer leaves very many holes.
    pub(crate) fn read(self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, u64::MAX)?;
        let mut wanted = Holes::new();
        if let Some(whole) = ByteRange::new(offset, buf.len() as u64) {
            wanted.push(whole);
        }
        let mut left = Holes::new();
        for (at, link) in self.links.iter().enumerate() {
            left.clear();
            let size = link.layer.info().size;
            for hole in wanted.iter() {
                let inside = hole.end().min(size).saturating_sub(hole.start());
                let piece = hole.slice_of(buf, offset);
                // The whole hole fitted into memory, so its part does.
                let (held, past) = piece.split_at_mut(usize::try_from(inside).unwrap_or(0));
                past.fill(0);
                if !held.is_empty() {
                    let read = link.layer.read_at(held, hole.start(), &mut left);
                    read.map_err(|error| self.place(at, error))?;
                }
            }
            std::mem::swap(&mut wanted, &mut left);
            if wanted.is_empty() {
                return Ok(());
            }
        }
        let detached = self.is_detached();
        for hole in wanted.iter() {
            if detached {
                return Err(needs_parent(hole.start()));
            }
            hole.slice_of(buf, offset).fill(0);
        }
        Ok(())
    }

    /// What the run that starts at `offset` is, in at most `len` bytes; `len` is not 0.
    pub(crate) fn status(self, offset: u64, len: u64) -> Result<Extent> {
        let mut len = len;
        let mut depth = 0;
        for (at, link) in self.links.iter().enumerate() {
            let inside = link.layer.info().size.saturating_sub(offset).min(len);
            if inside == 0 {
                // Nobody holds it, and the layer above is the last that could have. Zeros are
                // certain even where the bottom names a parent that is not here.
                let kind = if self.is_detached() {
                    ExtentKind::Zero
                } else {
                    ExtentKind::Absent
                };
                return Ok(Extent {
                    depth,
                    ..Extent::new(kind, len)
                });
            }
            depth = u32::try_from(self.above + at).unwrap_or(u32::MAX);
            let found = link.layer.next_extent(offset, inside);
            let extent = found.map_err(|error| self.place(at, error))?;
            debug_assert!(extent.len > 0 && extent.len <= inside);
            if extent.kind != ExtentKind::Absent {
                return Ok(Extent { depth, ..extent });
            }
            len = extent.len;
        }
        Ok(Extent {
            depth,
            ..Extent::new(ExtentKind::Absent, len)
        })
    }

    /// `error` of one of these layers, named unless it is the chain's top, which the caller knows.
    fn place(self, at: usize, error: Error) -> Error {
        match (self.above + at, self.links.get(at)) {
            (1.., Some(link)) => link.blame(error),
            _ => error,
        }
    }
}

/// What a layer asks for the bytes that complete a unit of its own.
impl Below for Stack<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read(buf, offset)
    }
}

/// The answer of a detached chain where it holds nothing.
pub(crate) fn needs_parent(offset: u64) -> Error {
    Error::new(
        ErrorKind::NeedsParent,
        format!("the bytes at {offset:#x} are in a parent image, which is not open"),
    )
}
