//! One step down: the names of one reference, tried in order.

use std::path::Path;
use std::sync::Arc;

use blockdev_core::locate::{ChainPolicy, Found, Wanted};
use blockdev_core::{
    Error, ErrorKind, FileName, FileOptions, FileRef, FormatDriver, LockMode, NameKind, OpenMode,
    OpenOptions, Result, Storage,
};

use crate::builder::ChainBuilder;
use crate::link::{FoundBy, Link};
use crate::refusal::{Refusal, Refusals, Stage};
use crate::verify;

impl ChainBuilder<'_> {
    /// Opens the file that `name`, given by the image of `link`, leads to, as `mode` has it. It is not
    /// locked: a ring is to be told from a lock, so that waits until the file is known to be another one.
    pub(crate) fn follow_name(
        &self,
        name: &FileName,
        link: &Link,
        mode: OpenMode,
    ) -> Result<Found, Refusal> {
        let Some(path) = &name.path else {
            return Err(self.meaningless(name));
        };
        let dir = match self.directory(link.path.as_deref()) {
            // From the working directory, as QEMU has it.
            _ if name.kind == NameKind::Protocol => Path::new(""),
            Some(dir) => dir,
            None if path.has_root() => Path::new(""),
            None => return Err(Refusal::missing("the image that names it has no directory")),
        };
        let file = match mode {
            OpenMode::ReadOnly => FileOptions::read_only(),
            OpenMode::ReadWrite => FileOptions::read_write(),
        };
        let unlocked = file.with_lock(LockMode::None);
        let found = self.policy.follow(name, dir, self.opener, unlocked);
        found.map_err(Refusal::by_opener)
    }

    /// Of a name that has no path here.
    fn meaningless(&self, name: &FileName) -> Refusal {
        // Under the policy of any names a parent's has been made a path; of data files none is.
        let could_be = name.kind == NameKind::Protocol && !matches!(self.policy, ChainPolicy::Any);
        if could_be && self.opener.is_remote(Path::new(&name.stored)) {
            let text = "no server is asked because an image names it";
            return Refusal::by_opener(Error::new(ErrorKind::Policy, text));
        }
        Refusal::missing("the name means nothing on this host")
    }

    /// The lock on a file that was found by name and is used as `mode` has it; none where the caller
    /// wants none.
    pub(crate) fn lock_for(&self, mode: OpenMode) -> LockMode {
        match (self.lock, mode) {
            (LockMode::None, _) => LockMode::None,
            (_, OpenMode::ReadWrite) => LockMode::Exclusive,
            (lock, OpenMode::ReadOnly) => lock,
        }
    }
}

/// The search for the parent of one image.
pub(crate) struct Search<'a> {
    pub(crate) builder: &'a ChainBuilder<'a>,
    pub(crate) options: &'a OpenOptions,
    /// The chain so far.
    pub(crate) links: &'a [Link],
    /// Its last image, the one that refers.
    pub(crate) child: &'a Link,
    pub(crate) reference: &'a FileRef,
    /// Of the parent's declared format.
    pub(crate) driver: &'a dyn FormatDriver,
    /// The caller answers for the format of this very file.
    pub(crate) vouched: bool,
}

impl Search<'_> {
    /// The parent, opened and checked.
    pub(crate) fn run(&self) -> Result<Link> {
        match &self.builder.policy {
            ChainPolicy::Handles(resolver) => {
                let wanted = Wanted {
                    reference: self.reference,
                    child: self.child.layer.info(),
                };
                let storage = resolver.resolve(&wanted)?.ok_or_else(|| {
                    let message = format!("no file was supplied for the parent of {}", self.child);
                    Error::new(ErrorKind::NeedsParent, message)
                })?;
                self.adopt(storage, None, FoundBy::Handle)
                    .map_err(|refusal| {
                        let child = self.child;
                        refusal
                            .error
                            .context(format_args!("the file supplied as parent of {child}"))
                    })
            }
            _ => self.by_name(),
        }
    }

    fn by_name(&self) -> Result<Link> {
        let mut refusals = Refusals::default();
        for name in &self.reference.names {
            match self.try_name(name) {
                Ok(link) => return Ok(link),
                // The right file is most likely there: another candidate would be a worse answer.
                Err(refusal) if refusal.error.kind() == ErrorKind::Locked => {
                    let parent = FoundBy::Name(name.clone());
                    let context = format!("parent {parent} of {}", self.child);
                    return Err(refusal.error.context(context));
                }
                Err(refusal) => refusals.push(name, refusal),
            }
        }
        Err(refusals.into_error("parent", self.child))
    }

    fn try_name(&self, name: &FileName) -> Result<Link, Refusal> {
        let mode = self.options.mode;
        let found = self.builder.follow_name(name, self.child, mode)?;
        self.adopt(
            found.storage,
            Some(&found.path),
            FoundBy::Name(name.clone()),
        )
    }

    /// Makes the file at hand the parent, if it is the one.
    fn adopt(
        &self,
        storage: Arc<dyn Storage>,
        path: Option<&Path>,
        found: FoundBy,
    ) -> Result<Link, Refusal> {
        let unusable = |error| Refusal::new(Stage::Found, error);
        let identity = storage.identity();
        verify::no_ring(self.links, identity).map_err(unusable)?;
        let lock = self.builder.lock_for(self.options.mode);
        if path.is_some() && lock != LockMode::None {
            storage.lock(lock).map_err(unusable)?;
        }
        if self.distrusts_declarations() {
            verify::no_contradiction(&*storage, self.driver, self.builder.drivers)
                .map_err(unusable)?;
        }
        let layer = self.driver.open(storage, self.options).map_err(unusable)?;
        let mismatch = |error| Refusal::new(Stage::Mismatched, error);
        let (child, verify) = (self.child.layer.info(), self.builder.verify_linkage);
        verify::check_parent(self.reference, child, &*layer, verify).map_err(mismatch)?;
        Ok(Link {
            layer,
            path: path.map(Path::to_path_buf),
            data_path: None,
            found,
            identity,
            is_file: true,
        })
    }

    /// True where the child's word on its parent's format is not enough: a guest that could write a
    /// header into its raw disk must not choose how the disk is read, nor a stranger's image how
    /// another file is.
    fn distrusts_declarations(&self) -> bool {
        !self.vouched && matches!(self.builder.policy, ChainPolicy::Beneath(_))
    }
}
