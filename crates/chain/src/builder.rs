//! From a top image to the whole chain.

use std::borrow::Cow;
use std::path::Path;

use blockdev_core::locate::{ChainPolicy, HostOpener, Opener};
use blockdev_core::{Error, ErrorKind, FormatDriver, LockMode, OpenMode, OpenOptions, Result};

use crate::chain::Chain;
use crate::follow::Search;
use crate::link::{Link, Quoted};
use crate::protocol;
use crate::top::{Source, Top};

/// Opens an image and the parents it names, as far as a policy allows.
///
/// Parents are opened read-only, unless [`writable_layer`](Self::writable_layer) says otherwise, with the
/// options of the top in all else. Their format is what the
/// image above declares or the caller says; it is never guessed.
///
/// # Example
///
/// ```no_run
/// use std::path::Path;
/// use std::sync::Arc;
/// use blockdev_chain::{ChainBuilder, Top};
/// use blockdev_core::locate::ChainPolicy;
/// use blockdev_core::{FileOptions, FileStorage, FormatDriver, RawDriver};
///
/// let drivers: [&dyn FormatDriver; 1] = [&RawDriver]; // and those of the format crates
/// let path = Path::new("images/child.vhdx");
/// let file = Arc::new(FileStorage::open(path, FileOptions::read_only())?);
/// let chain = ChainBuilder::new(&drivers)
///     .policy(ChainPolicy::Beneath("images".into()))
///     .build(Top::storage(file, "vhdx").at(path))?;
/// for link in chain.links() {
///     let _ = (link.path, link.format, link.size);
/// }
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ChainBuilder<'a> {
    pub(crate) drivers: &'a [&'a dyn FormatDriver],
    pub(crate) opener: &'a dyn Opener,
    pub(crate) policy: ChainPolicy,
    pub(crate) lock: LockMode,
    pub(crate) verify_linkage: bool,
    options: OpenOptions,
    parent_format: Option<String>,
    layer_formats: Vec<(u32, String)>,
    writable_layers: Vec<u32>,
}

impl std::fmt::Debug for ChainBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainBuilder")
            .field("policy", &self.policy)
            .field("lock", &self.lock)
            .field("verify_linkage", &self.verify_linkage)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<'a> ChainBuilder<'a> {
    /// Opens images of the formats in `drivers`: read-only, with no parent, until told otherwise.
    #[must_use]
    pub fn new(drivers: &'a [&'a dyn FormatDriver]) -> Self {
        Self {
            drivers,
            opener: &HostOpener,
            policy: ChainPolicy::Deny,
            lock: LockMode::Shared,
            verify_linkage: true,
            options: OpenOptions::read_only(),
            parent_format: None,
            layer_formats: Vec::new(),
            writable_layers: Vec::new(),
        }
    }

    /// Which names may be followed. Default: none, so that only the top is opened.
    #[must_use]
    pub fn policy(mut self, policy: ChainPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How the top is opened, if it is not open yet; and the parents, but read-only. The limit on
    /// depth and the budget of metadata pages are for the chain as a whole.
    #[must_use]
    pub fn options(mut self, options: OpenOptions) -> Self {
        self.options = options;
        self
    }

    /// Who turns paths into open files. Default: [`HostOpener`].
    #[must_use]
    pub fn opener(mut self, opener: &'a dyn Opener) -> Self {
        self.opener = opener;
        self
    }

    /// The lock held on parents that were found by name. Default: [`LockMode::Shared`].
    #[must_use]
    pub fn lock(mut self, lock: LockMode) -> Self {
        self.lock = lock;
        self
    }

    /// Whether a parent must bear the content fingerprint that its child recorded. Default: yes.
    #[must_use]
    pub fn verify_linkage(mut self, verify: bool) -> Self {
        self.verify_linkage = verify;
        self
    }

    /// The format of parents whose child declares none; and where linkage is not verified, also of
    /// parents of a child that recorded the identity of one of its own format, which says no more of
    /// them then.
    #[must_use]
    pub fn parent_format(mut self, format: impl Into<String>) -> Self {
        self.parent_format = Some(format.into());
        self
    }

    /// The format of the layer at `depth`, 1 being the top's parent, whatever its child declares
    /// and whatever mark the file bears.
    #[must_use]
    pub fn layer_format(mut self, depth: u32, format: impl Into<String>) -> Self {
        self.layer_formats.push((depth, format.into()));
        self
    }

    /// Has the layer at `depth`, 1 being the top's parent, opened for writing, with nobody else using it:
    /// for what changes it through the chain, such as [`Chain::merge`]. Requests to the chain as a disk
    /// go to its top all the same.
    #[must_use]
    pub fn writable_layer(mut self, depth: u32) -> Self {
        self.writable_layers.push(depth);
        self
    }

    /// Opens `top` and every parent down to the bottom. Under [`ChainPolicy::Deny`] the top alone,
    /// detached if it names a parent.
    ///
    /// # Errors
    /// Those of the top's format; and of its parents:
    /// - [`ErrorKind::Policy`] where the policy forbids every name, or the format is not declared;
    /// - [`ErrorKind::NeedsParent`] where no file is found;
    /// - [`ErrorKind::ParentMismatch`] where one is found that is not the child's parent;
    /// - [`ErrorKind::NotRecognised`] where it is not of the declared format;
    /// - [`ErrorKind::Corrupt`] where images name each other in a ring;
    /// - [`ErrorKind::LimitExceeded`] where the chain is deeper than the limit;
    /// - [`ErrorKind::Locked`] where another process writes to it;
    /// - those of its format.
    pub fn build(&self, top: Top) -> Result<Chain> {
        match self.build_partial(top)? {
            (chain, None) => Ok(chain),
            (_, Some(error)) => Err(error),
        }
    }

    /// As [`build`](Self::build), but where a parent cannot be opened, gives the layers above it as
    /// a detached chain, together with what is wrong. For describing damaged chains.
    ///
    /// # Errors
    /// Only those of opening the top.
    pub fn build_partial(&self, top: Top) -> Result<(Chain, Option<Error>)> {
        let options = self.options.clone().with_cache(self.options.page_cache());
        let mut links = vec![self.open_top(top, &options)?];
        if let Err(error) = self.attach_data(&[], &mut links[0]) {
            return Ok((Chain::from_links(links), Some(error)));
        }
        let mut for_parents = options;
        let problem = loop {
            for_parents.mode = self.mode_at(links.len());
            match self.next_parent(&links, &for_parents) {
                Ok(Some(link)) => links.push(link),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        Ok((Chain::from_links(links), problem))
    }

    fn mode_at(&self, depth: usize) -> OpenMode {
        let mut writable = self.writable_layers.iter();
        match writable.any(|layer| usize::try_from(*layer) == Ok(depth)) {
            true => OpenMode::ReadWrite,
            false => OpenMode::ReadOnly,
        }
    }

    fn open_top(&self, top: Top, options: &OpenOptions) -> Result<Link> {
        let (layer, is_file) = match top.source {
            Source::Layer(layer) => (layer, false),
            Source::Storage { storage, format } => {
                (self.driver(&format)?.open(storage, options)?, true)
            }
        };
        Ok(Link {
            is_file,
            ..Link::given(layer, top.path)
        })
    }

    /// The parent of the last of `links`; `None` when there is none, or none may be opened.
    fn next_parent(&self, links: &[Link], options: &OpenOptions) -> Result<Option<Link>> {
        let Some((child, reference)) = links.last().and_then(|l| Some((l, l.parent()?))) else {
            return Ok(None);
        };
        if let ChainPolicy::Deny = self.policy {
            return Ok(None);
        }
        let depth = u32::try_from(links.len()).unwrap_or(u32::MAX);
        let limit = options.limits.chain_depth;
        if depth >= limit {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("{child} names a parent, but the chain has its limit of {limit} layers"),
            ));
        }
        let reference = match self.policy {
            ChainPolicy::Any => {
                let named = |error: Error| error.context(format_args!("parent of {child}"));
                protocol::resolved(reference, self.opener).map_err(named)?
            }
            _ => Cow::Borrowed(reference),
        };
        // Where the identity that a child records is not asked for, neither is its parent's being of its
        // own kind, which goes without saying. Another kind it would have said.
        let own_kind = reference.format.as_deref() == Some(child.layer.info().format);
        let any_kind = !self.verify_linkage && own_kind && !reference.expected.is_empty();
        let general = self.parent_format.as_ref();
        // Of several words of the caller the last one counts.
        let mut by_caller = self.layer_formats.iter().rev();
        let by_caller = by_caller.find(|(layer, _)| *layer == depth);
        let format = by_caller
            .map(|(_, format)| format)
            .or(general.filter(|_| any_kind))
            .or(reference.format.as_ref())
            .or(general);
        let Some(format) = format else {
            return Err(Error::new(
                ErrorKind::Policy,
                format!("{child} does not declare its parent's format, which is never guessed"),
            ));
        };
        let driver = self
            .driver(format)
            .map_err(|error| error.context(format_args!("parent of {child}")))?;
        let search = Search {
            builder: self,
            options,
            links,
            child,
            reference: &reference,
            driver,
            vouched: by_caller.is_some(),
        };
        let mut parent = search.run()?;
        self.attach_data(links, &mut parent)?;
        Ok(Some(parent))
    }

    fn driver(&self, format: &str) -> Result<&'a dyn FormatDriver> {
        let mut drivers = self.drivers.iter();
        let driver = drivers.find(|driver| driver.name() == format).copied();
        driver.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("no driver for format {}", Quoted(format)),
            )
        })
    }

    /// The directory that relative names of the image at `path` start from.
    pub(crate) fn directory<'b>(&'b self, path: Option<&'b Path>) -> Option<&'b Path> {
        match (path, &self.policy) {
            (Some(path), _) if self.opener.is_remote(path) => None,
            (Some(path), _) => Some(path.parent().unwrap_or(path)),
            (None, ChainPolicy::Beneath(root)) => Some(root),
            (None, _) => None,
        }
    }
}
