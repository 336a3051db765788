//! Opening a disk: the file, its format, its parents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_chain::{Chain, ChainBuilder, Top};
use blockdev_core::locate::{ChainPolicy, HostOpener, Opener};
use blockdev_core::{
    Error, ErrorKind, FileId, FileOptions, LockMode, OpenMode, OpenOptions, RawDriver, Result,
    Storage,
};
use blockdev_core::{FormatDriver, Layer};

use crate::SnapshotName;
use crate::foreign;
use crate::registry::{driver, drivers, open_snapshot, probe, taken_for};

/// How to open a disk. By default: read-only, its format guessed, alone.
///
/// # Example
///
/// ```no_run
/// use diskweave::OpenDisk;
///
/// // A file that holds a disk and nothing else, and must not be taken for anything else.
/// let disk = OpenDisk::new().format("raw").open("disk.img")?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
#[derive(Clone)]
pub struct OpenDisk {
    format: Option<String>,
    policy: ChainPolicy,
    options: OpenOptions,
    lock: Option<LockMode>,
    verify_linkage: bool,
    parent_format: Option<String>,
    snapshot: Option<SnapshotName>,
    opener: Arc<dyn Opener>,
}

impl std::fmt::Debug for OpenDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenDisk")
            .field("format", &self.format)
            .field("policy", &self.policy)
            .field("options", &self.options)
            .field("lock", &self.lock)
            .field("verify_linkage", &self.verify_linkage)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

impl Default for OpenDisk {
    fn default() -> Self {
        Self::new()
    }
}

/// A file with the format it is to be opened as.
pub(crate) struct OpenFile {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) path: PathBuf,
    pub(crate) driver: &'static dyn FormatDriver,
    guessed: bool,
}

impl OpenDisk {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            format: None,
            policy: ChainPolicy::Deny,
            options: OpenOptions::read_only(),
            lock: None,
            verify_linkage: true,
            parent_format: None,
            snapshot: None,
            opener: Arc::new(HostOpener),
        }
    }

    /// The image's format; nothing is guessed then.
    #[must_use]
    pub fn format(mut self, format: impl Into<String>) -> Self {
        self.format = Some(format.into());
        self
    }

    /// Which other files the image may make the library open.
    #[must_use]
    pub fn policy(mut self, policy: ChainPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Mode, recovery, strictness and limits.
    #[must_use]
    pub fn options(mut self, options: OpenOptions) -> Self {
        self.options = options;
        self
    }

    /// The same, for writing; parents are only read.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.options.mode = OpenMode::ReadWrite;
        self
    }

    /// The lock held on every file; by default others may read what is read here, and nobody may
    /// use what is written here.
    #[must_use]
    pub fn lock(mut self, lock: LockMode) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Whether a parent must be the very one the child was made from. Default: yes.
    #[must_use]
    pub fn verify_linkage(mut self, verify: bool) -> Self {
        self.verify_linkage = verify;
        self
    }

    /// The format of parents whose child declares none; it is never guessed. With
    /// [`verify_linkage(false)`](Self::verify_linkage) also the format of a VHDX child's parent, which
    /// is a VHDX otherwise.
    #[must_use]
    pub fn parent_format(mut self, format: impl Into<String>) -> Self {
        self.parent_format = Some(format.into());
        self
    }

    /// The disk as an internal snapshot of the image has it, over the same parents. Default: as it
    /// is now.
    #[must_use]
    pub fn snapshot(mut self, snapshot: SnapshotName) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Who turns paths into open files. Default: the host.
    #[must_use]
    pub fn opener(mut self, opener: Arc<dyn Opener>) -> Self {
        self.opener = opener;
        self
    }

    /// Opens the disk at `path` with all the parents the policy allows it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Locked`], [`ErrorKind::Unsupported`] for what bears the mark
    /// of a format that is not read, and those of the format; [`ErrorKind::InvalidInput`] when there
    /// is no such snapshot, [`ErrorKind::Unsupported`] when the format has none; and those of
    /// [`ChainBuilder::build`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Chain> {
        let (builder, top) = self.prepare(path.as_ref())?;
        builder.build(top)
    }

    /// As [`open`](Self::open), but where a parent cannot be opened gives what is above it,
    /// together with what is wrong.
    ///
    /// # Errors
    /// Only those of the image at `path` itself.
    pub fn open_partial(&self, path: impl AsRef<Path>) -> Result<(Chain, Option<Error>)> {
        let (builder, top) = self.prepare(path.as_ref())?;
        builder.build_partial(top)
    }

    /// As [`open`](Self::open), with the layers at the depths of `writable` opened for writing, the top
    /// being at 0, and no other.
    pub(crate) fn open_layers(&self, path: &Path, writable: &[u32]) -> Result<Chain> {
        let mut disk = self.clone();
        disk.options.mode = match writable.contains(&0) {
            true => OpenMode::ReadWrite,
            false => OpenMode::ReadOnly,
        };
        let (builder, top) = disk.prepare(path)?;
        let below = writable.iter().filter(|depth| **depth > 0);
        let builder = below.fold(builder, |builder, depth| builder.writable_layer(*depth));
        builder.build(top)
    }

    /// The image at `path` and nothing of its parents.
    pub(crate) fn open_alone(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn Layer>> {
        let alone = self.clone().policy(ChainPolicy::Deny);
        let writable: &[u32] = match mode {
            OpenMode::ReadOnly => &[],
            OpenMode::ReadWrite => &[0],
        };
        let chain = alone.open_layers(path, writable)?;
        let top = chain.into_layers().into_iter().next();
        Ok(top.expect("a chain has a top"))
    }

    /// The image at `path` for reading, with its data file, whatever becomes of its parents.
    pub(crate) fn open_top(&self, path: &Path) -> Result<Box<dyn Layer>> {
        let (chain, _) = self.open_partial(path)?;
        let top = chain.into_layers().into_iter().next();
        Ok(top.expect("a chain has a top"))
    }

    /// The disk of `file`, which is open already.
    pub(crate) fn open_on(&self, file: &OpenFile) -> Result<Chain> {
        let (builder, top) = self.prepare_file(file)?;
        builder.build(top)
    }

    /// Which file of the host `path` is, where that can be told. It is not used otherwise.
    pub(crate) fn identity_of(&self, path: &Path) -> Result<Option<FileId>> {
        let unlocked = FileOptions::read_only().with_lock(LockMode::None);
        Ok(self.opener.open(path, unlocked)?.identity())
    }

    fn prepare(&self, path: &Path) -> Result<(ChainBuilder<'_>, Top)> {
        self.prepare_file(&self.open_file(path)?)
    }

    fn prepare_file(&self, file: &OpenFile) -> Result<(ChainBuilder<'_>, Top)> {
        let storage = Arc::clone(&file.storage);
        let mut options = self.options.clone();
        if file.guessed {
            // Only a raw image heeds it: a guest must not choose what its disk is taken for.
            options = options.with_raw_guard(Arc::new(taken_for));
        }
        let top = match &self.snapshot {
            None => Top::storage(storage, file.driver.name()),
            Some(snapshot) => {
                // One budget of pages for it and for its parents.
                options = options.clone().with_cache(options.page_cache());
                let format = file.driver.name();
                Top::layer(open_snapshot(format, storage, snapshot, &options)?)
            }
        };
        Ok((self.builder(options), top.at(&file.path)))
    }

    /// The image's own file and format, with no parent looked for.
    pub(crate) fn open_file(&self, path: &Path) -> Result<OpenFile> {
        let writable = self.options.mode == OpenMode::ReadWrite;
        let file = if writable {
            FileOptions::read_write()
        } else {
            FileOptions::read_only()
        };
        let file = file.with_lock(self.lock.unwrap_or(file.lock));
        if writable && file.lock == LockMode::Unprotected {
            let text = "an image that is written to is not shared with others that write to it";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let storage = self.opener.open(path, file)?;
        let (driver, guessed) = match &self.format {
            Some(name) => {
                let unknown =
                    || Error::new(ErrorKind::Unsupported, format!("unknown format {name:?}"));
                (driver(name).ok_or_else(unknown)?, false)
            }
            None => (guess(&*storage)?, true),
        };
        Ok(OpenFile {
            storage,
            path: path.to_path_buf(),
            driver,
            guessed,
        })
    }

    /// Whether a parent must be the one the child was made from.
    pub(crate) fn verifies_linkage(&self) -> bool {
        self.verify_linkage
    }

    /// Who turns paths into open files.
    pub(crate) fn current_opener(&self) -> Arc<dyn Opener> {
        Arc::clone(&self.opener)
    }

    /// The options under which the image itself is opened.
    pub(crate) fn core_options(&self) -> &OpenOptions {
        &self.options
    }

    fn builder(&self, options: OpenOptions) -> ChainBuilder<'_> {
        let builder = ChainBuilder::new(drivers())
            .policy(self.policy.clone())
            .options(options)
            .opener(&*self.opener)
            .verify_linkage(self.verify_linkage);
        let builder = match &self.parent_format {
            Some(format) => builder.parent_format(format),
            None => builder,
        };
        match self.lock {
            // Parents are only read, whatever is done to the top.
            Some(lock) if lock != LockMode::Exclusive => builder.lock(lock),
            _ => builder,
        }
    }
}

/// The format whose mark the file bears; raw where it bears none.
fn guess(storage: &dyn Storage) -> Result<&'static dyn FormatDriver> {
    if let Some(driver) = probe(storage)? {
        return Ok(driver);
    }
    match foreign::mark_of(storage)? {
        None => Ok(&RawDriver),
        // Its bytes are not a disk's, and whoever copied them as one would not notice.
        Some(name) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("it looks like a {name} image, which is not read; say raw to have its bytes"),
        )),
    }
}
