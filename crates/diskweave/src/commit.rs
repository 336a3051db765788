//! What is in upper images, moved into a lower one.
//!
//! ```text
//!   1   the child of BASE records that BASE is about to change     (a VHDX, which knows it by its content)
//!   ── barrier ──
//!   2   what the layers above hold is written into BASE            hidden by these layers all along
//!   ── barrier ──
//!   3   the top is emptied, or whoever was above the merged layers refers to BASE
//!   4   the child of BASE knows it by what it holds now
//! ```
//!
//! The disk reads the same at every instant; an interrupted run is finished by another.

use std::path::{Path, PathBuf};

use blockdev_chain::Chain;
use blockdev_core::{Error, ErrorKind, Layer, OpenMode, Result};

use crate::names::ParentName;
use crate::rebase::{Found, check_sectors};
use crate::{OpenDisk, Progress, registry};

/// Which layers are moved, and into which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// The uppermost of the layers that are moved. Default: the image itself, the top. If it is one of its
    /// parents, the image above that one refers to the base afterwards.
    pub top: Option<PathBuf>,
    /// The layer that they are moved into. Default: the one right below.
    pub base: Option<PathBuf>,
    /// Leave in the image what was moved. Default: an image that was moved into its own parent is emptied.
    pub keep: bool,
}

/// What moving layers came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// Bytes written into the base.
    pub bytes: u64,
    /// The base.
    pub base: PathBuf,
    /// The image holds nothing any more.
    pub is_emptied: bool,
    /// Images that the disk does not need any more: their content is in the base, and nobody of this chain
    /// refers to them.
    pub unneeded: Vec<PathBuf>,
}

/// Moves what the image at `path`, and others below it, hold into one of its parents, which is made longer
/// where it is too short. The disk reads the same.
///
/// Whoever else has that parent below (other children of it, or of the layers between) reads what was
/// written into it: that nobody has is for the caller to know ([`OpenDisk`]'s locks keep away those who use
/// it now).
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for an image without parent, for layers that are not in its
/// chain or not in this order, and when `progress` cancels; [`Locked`](ErrorKind::Locked) when one of the
/// files is in use; [`Unsupported`](ErrorKind::Unsupported) for a layer with internal snapshots that is
/// moved, which would not read the same over the changed base; those of opening the chain, of reading and
/// of writing. Another run finishes then. [`ParentMismatch`](ErrorKind::ParentMismatch) where the image above
/// those that are moved cannot have the base below it, whose sectors are others.
///
/// # Example
///
/// ```no_run
/// use diskweave::core::locate::ChainPolicy;
/// use diskweave::{CommitOptions, NoProgress, OpenDisk, commit};
///
/// let open = OpenDisk::new().policy(ChainPolicy::Beneath("images".into()));
/// commit("images/child.qcow2", &open, &CommitOptions::default(), &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn commit(
    path: impl AsRef<Path>,
    open: &OpenDisk,
    options: &CommitOptions,
    progress: &dyn Progress,
) -> Result<Committed> {
    let path = path.as_ref();
    let plan = Plan::new(path, open, options)?;
    let mut chain = open.open_layers(path, &plan.writable)?;
    plan.expect_same(&chain)?;
    registry::announce_change(&mut chain, plan.into)?;
    let size = chain.layer(plan.from).map_or(0, |layer| layer.info().size);
    if let Some((base, below, below_size)) = chain.layer_mut(plan.into)
        && base.info().size < size
    {
        registry::resize_layer(base, size, &below, below_size)?;
    }
    let bytes = chain.merge(plan.from, plan.into, progress)?;
    let is_emptied = plan.empties && empty(&chain)?;
    plan.settle(chain, open)?;
    plan.relink_above(open)?;
    Ok(Committed {
        bytes,
        base: plan.base.path,
        is_emptied,
        unneeded: plan.unneeded,
    })
}

/// False where the format keeps what it holds.
fn empty(chain: &Chain) -> Result<bool> {
    match chain.empty_top() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// One of the images of the chain.
struct Image {
    path: PathBuf,
    /// `None` for the top, which is opened as the caller says.
    format: Option<&'static str>,
}

impl Image {
    fn at(chain: &Chain, depth: u32) -> Option<Self> {
        let link = chain.links().find(|link| link.depth == depth)?;
        Some(Self {
            path: link.path?.to_path_buf(),
            format: (depth > 0).then_some(link.format),
        })
    }

    fn how(&self, open: &OpenDisk) -> OpenDisk {
        match self.format {
            Some(format) => open.clone().format(format),
            None => open.clone(),
        }
    }

    fn open(&self, open: &OpenDisk, mode: OpenMode) -> Result<Box<dyn Layer>> {
        self.how(open).open_alone(&self.path, mode)
    }
}

/// What is to be done, found out before anything is opened for writing.
struct Plan {
    from: u32,
    into: u32,
    base: Found,
    /// Depths of the layers that are opened for writing.
    writable: Vec<u32>,
    /// The layer right above the base knows it by its content.
    child_knows_base: bool,
    empties: bool,
    /// The image above those that are moved, if there is one, and the name by which it is to call the base.
    above: Option<(Image, PathBuf)>,
    /// The image above that one, if it knows it by its content.
    witness: Option<Image>,
    unneeded: Vec<PathBuf>,
}

impl Plan {
    fn new(path: &Path, open: &OpenDisk, options: &CommitOptions) -> Result<Self> {
        let chain = open.open_layers(path, &[])?;
        let depth_of = |layer: &Path| {
            let identity = open.identity_of(layer)?;
            let depth = identity.and_then(|identity| chain.depth_of(identity));
            depth.ok_or_else(|| {
                let text = format!("{} is not in the chain of the image", layer.display());
                Error::new(ErrorKind::InvalidInput, text)
            })
        };
        let from = options.top.as_deref().map_or(Ok(0), depth_of)?;
        let into = match options.base.as_deref() {
            Some(base) => depth_of(base)?,
            None => from.saturating_add(1),
        };
        if from >= into {
            let text = "the layer that is moved into must be below those that are moved";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let Some(child) = chain
            .layer(into - 1)
            .filter(|_| chain.layer(into).is_some())
        else {
            let text = "the image has no parent to move anything into";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        // What is above these reads the same over the base, its snapshots too.
        let mut moved = (from..into).filter_map(|depth| chain.layer(depth));
        moved.try_for_each(registry::refuse_snapshots)?;
        let base = Found::at(&chain, into)?;
        let child_knows_base = registry::knows_parent_by_content(child);
        let empties = from == 0 && into == 1 && !options.keep;
        let mut writable = vec![into];
        if child_knows_base || empties {
            writable.push(into - 1);
        }
        let above = from.checked_sub(1).and_then(|depth| chain.layer(depth));
        if let (Some(above), Some(base)) = (above, chain.layer(into)) {
            check_sectors(above, base)?;
        }
        let image = |above: u32| Image::at(&chain, from.checked_sub(above)?);
        let above = match image(1) {
            Some(above) => {
                let name = base.name_for(&above.path, &*open.current_opener())?;
                Some((above, name))
            }
            None => None,
        };
        let witness = image(2).filter(|_| {
            let layer = from.checked_sub(2).and_then(|depth| chain.layer(depth));
            layer.is_some_and(registry::knows_parent_by_content)
        });
        // The image itself is what the disk is called by.
        let merged = (from..into).filter(|_| from > 0);
        let unneeded = merged.filter_map(|depth| Image::at(&chain, depth).map(|image| image.path));
        Ok(Self {
            from,
            into,
            writable,
            child_knows_base,
            empties,
            above,
            witness,
            unneeded: unneeded.collect(),
            base,
        })
    }

    /// Refuses a chain that has become another since the plan was made.
    fn expect_same(&self, chain: &Chain) -> Result<()> {
        let link = chain.links().find(|link| link.depth == self.into);
        if link.is_some_and(|link| link.path == Some(&*self.base.path)) {
            return Ok(());
        }
        let text = "the chain was changed by somebody else meanwhile";
        Err(Error::new(ErrorKind::Locked, text))
    }

    /// Closes the chain, and has the child of the base know it by what it holds now.
    fn settle(&self, chain: Chain, open: &OpenDisk) -> Result<()> {
        if !self.child_knows_base {
            return chain.close();
        }
        let at = usize::try_from(self.into - 1).expect("a depth of this chain");
        let mut layers = chain.into_layers();
        let below = layers.split_off(at + 1);
        let mut child = layers.pop().expect("the layer above the base");
        let closing = layers.into_iter().chain(below);
        closing.map(Layer::close).fold(Ok(()), Result::and)?;
        // By its file it is known only when nobody writes to that any more.
        let base = self.base.open(open)?;
        registry::settle_change(&mut *child, base.top())?;
        child.close()
    }

    /// Has the image above those that were moved refer to the base.
    fn relink_above(&self, open: &OpenDisk) -> Result<()> {
        let Some((above, name)) = &self.above else {
            return Ok(());
        };
        let mut witness = match &self.witness {
            Some(witness) => Some(witness.open(open, OpenMode::ReadWrite)?),
            None => None,
        };
        if let Some(witness) = &mut witness {
            let parent = above.open(open, OpenMode::ReadOnly)?;
            registry::announce_rewrite(&mut **witness, &*parent)?;
        }
        let how = above.how(open).writable();
        let base = self.base.open(open)?;
        let opener = open.current_opener();
        let name = ParentName::of(name, &*opener);
        registry::set_parent(how.open_file(&above.path)?, how.core_options(), &base, name)?;
        let Some(mut witness) = witness else {
            return Ok(());
        };
        let parent = above.open(open, OpenMode::ReadOnly)?;
        registry::settle_change(&mut *witness, &*parent)?;
        witness.close()
    }
}
