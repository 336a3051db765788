//! Layers as one disk.

use std::fmt;

use blockdev_core::{
    Below, BlockDevice, DeviceInfo, DiscardMode, Error, ErrorKind, Extent, FileId, FileRef, Layer,
    Result, Storage, ZeroFlags, fits,
};

use crate::hints::Hints;
use crate::link::{LayerInfo, Link};
use crate::stack::{Stack, first_fixed, needs_parent};
use crate::view::View;

/// Several images, each the parent of the one above, as one disk of the top image's size.
///
/// Reads fall through the holes of each layer to the next; a parent shorter than the disk reads as
/// zeros past its end, whatever lies deeper. Only the top is ever changed.
///
/// A chain whose bottom names a parent that is not open is *detached*: what its layers hold can be
/// read, the rest is [`ErrorKind::NeedsParent`] and so is every change, since a partial write would
/// have to carry up bytes that nobody can read.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_chain::Chain;
/// use blockdev_core::{BlockDevice, MemoryStorage, RawLayer};
///
/// let storage = Arc::new(MemoryStorage::from(vec![1; 8192]));
/// let disk = Chain::from_layers(vec![Box::new(RawLayer::open(storage)?)])?;
/// assert_eq!(disk.size(), 8192);
/// assert_eq!(disk.layer_count(), 1);
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub struct Chain {
    /// Top first; never empty.
    links: Vec<Link>,
    detached: bool,
    /// Where there are two layers or more that never change, the number of the first, and what is known.
    known: Option<(usize, Hints)>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("layers", &self.links().collect::<Vec<_>>())
            .field("detached", &self.detached)
            .finish()
    }
}

impl Chain {
    /// The chain of `layers`, the top first, as they are: the caller answers for their belonging
    /// together. [`ChainBuilder`](crate::ChainBuilder) finds and checks parents.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no layer.
    pub fn from_layers(layers: Vec<Box<dyn Layer>>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a chain needs at least one layer",
            ));
        }
        let links = layers.into_iter().map(|layer| Link::given(layer, None));
        Ok(Self::from_links(links.collect()))
    }

    /// The chain of `links`, of which there is at least one.
    pub(crate) fn from_links(links: Vec<Link>) -> Self {
        debug_assert!(!links.is_empty());
        let detached = Stack::whole(&links).is_detached();
        let known = first_fixed(&links).map(|first| (first, Hints::new()));
        Self {
            links,
            detached,
            known,
        }
    }

    /// The layers, and what is known of them.
    fn stack(&self) -> Stack<'_> {
        let whole = Stack::whole(&self.links);
        match &self.known {
            Some((first, hints)) => whole.with_hints(hints, *first),
            None => whole,
        }
    }

    /// The same with `top` over it, which the caller answers for.
    #[must_use]
    pub fn under(mut self, top: Box<dyn Layer>) -> Self {
        self.links.insert(0, Link::given(top, None));
        Self::from_links(self.links)
    }

    /// The top image.
    #[must_use]
    pub fn top(&self) -> &dyn Layer {
        &*self.links[0].layer
    }

    /// The top, for what changes it as a whole, with what lies below it and how long that is.
    pub fn top_mut(&mut self) -> (&mut dyn Layer, impl Below + '_, u64) {
        self.split(0)
    }

    /// The same of the layer at `depth`, if there is one. It can be changed if it was opened for that:
    /// [`ChainBuilder::writable_layer`](crate::ChainBuilder::writable_layer).
    pub fn layer_mut(&mut self, depth: u32) -> Option<(&mut dyn Layer, impl Below + '_, u64)> {
        let at = usize::try_from(depth).ok()?;
        (at < self.links.len()).then(|| self.split(at))
    }

    /// The layer `at` so many below the top, what is below it, and how long that is.
    fn split(&mut self, at: usize) -> (&mut dyn Layer, Stack<'_>, u64) {
        if let Some((first, hints)) = &mut self.known
            && *first <= at
        {
            // What it is to become is not known.
            *hints = Hints::new();
        }
        let (upper, below) = self.links.split_at_mut(at + 1);
        let size = below.first().map_or(0, |link| link.layer.info().size);
        (&mut *upper[at].layer, Stack::below(below, at + 1), size)
    }

    /// The whole chain as a disk to be read only.
    #[must_use]
    pub fn whole(&self) -> View<'_> {
        View::new(&self.links, 0)
    }

    /// The disk of the layers from `depth` down, to be read only; `None` where there are not so many.
    /// It is what a disk is whose top they are.
    #[must_use]
    pub fn view(&self, depth: u32) -> Option<View<'_>> {
        let at = usize::try_from(depth).ok()?;
        let links = self.links.get(at..).filter(|links| !links.is_empty())?;
        Some(View::new(links, at))
    }

    /// The depth of the layer whose file is `identity`, if one is.
    #[must_use]
    pub fn depth_of(&self, identity: FileId) -> Option<u32> {
        let mut links = self.links.iter();
        let at = links.position(|link| link.identity == Some(identity))?;
        u32::try_from(at).ok()
    }

    /// True when the top is what its file is, as an image of its format; false where the caller gave it as a
    /// layer, which may be an internal snapshot.
    #[must_use]
    pub fn is_of_file(&self) -> bool {
        self.links[0].is_file
    }

    /// The layers, top first, for operations on chains.
    pub(crate) fn all_links(&self) -> &[Link] {
        &self.links
    }

    /// The layer at `depth`, 0 being the top: the one an [`Extent`] of that depth is from.
    #[must_use]
    pub fn layer(&self, depth: u32) -> Option<&dyn Layer> {
        let link = self.links.get(usize::try_from(depth).ok()?)?;
        Some(&*link.layer)
    }

    /// The layers, top first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &dyn Layer> {
        self.links.iter().map(|link| &*link.layer)
    }

    /// How many layers there are, the top included.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.links.len()
    }

    /// What there is to tell about each layer, top first.
    pub fn links(&self) -> impl Iterator<Item = LayerInfo<'_>> {
        (0..).zip(&self.links).map(|(depth, link)| LayerInfo {
            depth,
            path: link.path.as_deref(),
            data_path: link.data_path.as_deref(),
            found: &link.found,
            format: link.layer.info().format,
            content_id: link.layer.content_id(),
            size: link.layer.info().size,
        })
    }

    /// True when the bottom names a parent that is not open.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// The parent that a detached chain lacks, as the bottom image names it.
    #[must_use]
    pub fn missing_parent(&self) -> Option<&FileRef> {
        self.links.last().and_then(Link::parent)
    }

    /// The host file and byte offset in it where `extent`, told by this chain, is stored.
    #[must_use]
    pub fn host_of(&self, extent: &Extent) -> Option<(&dyn Storage, u64)> {
        let place = extent.host?;
        let file = self.layer(extent.depth)?.host(place.file)?;
        Some((file, place.offset))
    }

    /// Takes the chain apart, top first.
    #[must_use]
    pub fn into_layers(self) -> Vec<Box<dyn Layer>> {
        self.links.into_iter().map(|link| link.layer).collect()
    }

    /// Closes every layer, the top first.
    ///
    /// # Errors
    /// The first failure met; the other layers are closed all the same.
    pub fn close(self) -> Result<()> {
        let mut outcome = Ok(());
        for link in self.links {
            outcome = outcome.and(link.layer.close());
        }
        outcome
    }

    /// Checks that `len` bytes from `offset` may be changed.
    fn check_writable(&self, offset: u64, len: u64) -> Result<()> {
        let info = self.info();
        if info.read_only || !info.caps.write {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the disk is opened read-only",
            ));
        }
        if self.detached {
            return Err(needs_parent(offset));
        }
        fits(offset, len, info.size)
    }
}

impl BlockDevice for Chain {
    fn info(&self) -> &DeviceInfo {
        self.top().info()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        self.stack().read(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_writable(offset, buf.len() as u64)?;
        self.top().write_at(buf, offset, &self.stack().below_top())
    }

    /// One descent through the layers; the depth and host place are those of the layer that
    /// decides. Runs that an upper layer's grain has cut are joined by
    /// [`extents`](BlockDevice::extents).
    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        if len == 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "block status of no bytes",
            ));
        }
        fits(offset, len, self.size())?;
        self.stack().status(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_writable(offset, len)?;
        let below = self.stack().below_top();
        write_zeros(self.top(), offset, len, flags, &below)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable(offset, len)?;
        if !self.info().caps.discard {
            // Leave to free space, not an order: the bytes read as before.
            return Ok(());
        }
        self.top().discard(offset, len, DiscardMode::Best)
    }

    /// The parents are never changed, so only the top has anything to make durable.
    fn flush(&self) -> Result<()> {
        self.top().flush()
    }
}

/// Makes `len` bytes from `offset` read as zeros in `layer`, which is over `below`.
pub(crate) fn write_zeros(
    layer: &dyn Layer,
    offset: u64,
    len: u64,
    flags: ZeroFlags,
    below: &dyn Below,
) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    if layer.info().caps.write_zeroes {
        return layer.zero(offset, len, flags, below);
    }
    if flags.no_fallback {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the format writes zeros only byte by byte",
        ));
    }
    let mut done = 0;
    while done < len {
        let piece = usize::try_from(len - done).map_or(ZEROS.len(), |n| n.min(ZEROS.len()));
        layer.write_at(&ZEROS[..piece], offset + done, below)?;
        done += piece as u64;
    }
    Ok(())
}
