//! Who needs a file: to be asked before it is deleted or changed.
//!
//! Files are known by what they are (device and file number), never by their names. Where an image
//! cannot be followed to its end the answer is that nobody knows, never that it does not depend.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_chain::Chain;
use blockdev_core::locate::{ChainPolicy, Opener};
use blockdev_core::{
    Error, ErrorKind, FileId, FileOptions, FileRole, HostFile, LockMode, Result, Storage,
};

use crate::{OpenDisk, identity};

/// Whether an image depends on a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Dependence {
    /// The file is one of its parents, or holds the data of one of them or its own.
    Yes,
    /// It is none of them, and there are no others.
    No,
    /// Its files could not all be found out, for this reason; those that could are others.
    Unknown(Error),
}

impl Dependence {
    /// Whether `chain` depends on the file `file`. What the top image is in does not count: it does
    /// not depend on itself.
    #[must_use]
    pub fn of_chain(chain: &Chain, file: FileId) -> Self {
        Self::of_layers(chain, file, None)
    }

    fn of_layers(chain: &Chain, file: FileId, problem: Option<Error>) -> Self {
        let mut unknown = problem;
        let mut note = |text: String, kind| {
            unknown.get_or_insert_with(|| Error::new(kind, text));
        };
        for (depth, layer) in chain.layers().enumerate() {
            let places = [(HostFile::Image, depth > 0), (HostFile::Data, true)];
            for (place, counts) in places {
                match layer.host(place).map(Storage::identity) {
                    Some(Some(found)) if counts && found == file => return Self::Yes,
                    Some(None) if counts => note(
                        format!("a file {depth} below the top is in a storage without identity"),
                        ErrorKind::Unsupported,
                    ),
                    _ => {}
                }
            }
            let mut refs = layer.file_refs().iter();
            let has_data = refs.any(|file| file.role == FileRole::Data);
            if has_data && layer.host(HostFile::Data).is_none() {
                let text = format!("the data file of the image {depth} below the top is not open");
                note(text, ErrorKind::NeedsParent);
            }
        }
        if chain.is_detached() {
            note("a parent is not open".into(), ErrorKind::NeedsParent);
        }
        unknown.map_or(Self::No, Self::Unknown)
    }

    /// True for [`Yes`](Self::Yes).
    #[must_use]
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }

    /// True for [`No`](Self::No): then the file can go as far as this image is concerned.
    #[must_use]
    pub fn is_no(&self) -> bool {
        matches!(self, Self::No)
    }
}

/// Whether the image at `path` depends on the file at `file`: has it as a parent at any depth, or as an
/// external data file. `open` says which files may be looked into; what may not is unknown.
///
/// # Errors
/// [`ErrorKind::Io`] where there is no file at `file`, [`ErrorKind::Unsupported`] where it has no
/// identity. Whatever is wrong with the image is the reason of [`Dependence::Unknown`].
///
/// # Example
///
/// ```no_run
/// use diskweave::core::locate::ChainPolicy;
/// use diskweave::{OpenDisk, depends_on};
///
/// let open = OpenDisk::new().policy(ChainPolicy::Any);
/// if depends_on("vm/disk.qcow2", "snapshots/monday.qcow2", &open)?.is_no() {
///     // As far as this disk is concerned, the snapshot can go.
/// }
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn depends_on(
    path: impl AsRef<Path>,
    file: impl AsRef<Path>,
    open: &OpenDisk,
) -> Result<Dependence> {
    Ok(dependence(path.as_ref(), known(file.as_ref())?, open))
}

fn dependence(path: &Path, file: FileId, open: &OpenDisk) -> Dependence {
    match open.open_partial(path) {
        Ok((chain, problem)) => Dependence::of_layers(&chain, file, problem),
        Err(error) => Dependence::Unknown(error),
    }
}

fn known(file: &Path) -> Result<FileId> {
    identity::of_target(file)?.ok_or_else(|| {
        let text = format!("the host cannot tell {file:?} from other files");
        Error::new(ErrorKind::Unsupported, text)
    })
}

/// How [`dependents`] looks for images.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Search {
    /// How images are opened. Default: with files below the directory that is searched, whether in use
    /// or not.
    pub open: Option<OpenDisk>,
    /// Directories below that are searched too: so many levels. Default none.
    pub depth: u32,
    /// Most entries of directories that are looked at. Default a million.
    pub most_entries: u64,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            open: None,
            depth: 0,
            most_entries: 1_000_000,
        }
    }
}

impl Search {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, opening images as `open` says.
    #[must_use]
    pub fn open(mut self, open: OpenDisk) -> Self {
        self.open = Some(open);
        self
    }

    /// The same, so many levels of directories deep.
    #[must_use]
    pub fn depth(mut self, levels: u32) -> Self {
        self.depth = levels;
        self
    }

    /// The same with another limit.
    #[must_use]
    pub fn most_entries(mut self, most: u64) -> Self {
        self.most_entries = most;
        self
    }
}

/// What [`dependents`] found, each list in the order of the names.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Dependents {
    /// Images that depend on the file.
    pub dependent: Vec<PathBuf>,
    /// Images that do not, and files that are none.
    pub independent: Vec<PathBuf>,
    /// Images, and directories, of which it could not be told, and why.
    pub unknown: Vec<(PathBuf, Error)>,
}

impl Dependents {
    /// True when nothing that was found needs the file.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.dependent.is_empty() && self.unknown.is_empty()
    }
}

/// Looks at every regular file in `directory` and tells which depend on `file`. Symbolic links are not
/// followed, formats are guessed by their marks, and what bears none is raw, which depends on nothing;
/// `file` itself, under all its names, is left out.
///
/// Images elsewhere are not seen: that nothing here depends on the file is no promise for them.
///
/// # Errors
/// [`ErrorKind::Io`] where there is no file at `file` or no such directory;
/// [`ErrorKind::LimitExceeded`] with more entries than the limit.
///
/// # Example
///
/// ```no_run
/// use diskweave::{Search, dependents};
///
/// let found = dependents("images/base.qcow2", "images", &Search::new())?;
/// if found.is_free() {
///     std::fs::remove_file("images/base.qcow2")?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn dependents(
    file: impl AsRef<Path>,
    directory: impl AsRef<Path>,
    search: &Search,
) -> Result<Dependents> {
    let root = directory.as_ref();
    let root = match root.as_os_str().is_empty() {
        true => Path::new("."),
        false => root,
    };
    let file = known(file.as_ref())?;
    let open = search.open.clone().unwrap_or_else(|| {
        let beneath = OpenDisk::new().policy(ChainPolicy::Beneath(root.to_path_buf()));
        beneath.lock(LockMode::Unprotected)
    });
    let mut left = search.most_entries;
    let mut found = Dependents::default();
    let mut directories = vec![(root.to_path_buf(), 0)];
    while let Some((directory, level)) = directories.pop() {
        let entries = match entries(&directory, &mut left) {
            Ok(entries) => entries,
            Err(error) if level == 0 || error.kind() == ErrorKind::LimitExceeded => {
                return Err(error);
            }
            Err(error) => {
                found.unknown.push((directory, error));
                continue;
            }
        };
        for (path, kind) in entries {
            match kind {
                Entry::Directory if level < search.depth => directories.push((path, level + 1)),
                Entry::File(Some(id)) if id == file => {}
                Entry::File(_) => found.add(root, path, file, &open),
                Entry::Directory | Entry::Other => {}
            }
        }
    }
    found.dependent.sort();
    found.independent.sort();
    found.unknown.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

impl Dependents {
    fn add(&mut self, root: &Path, path: PathBuf, file: FileId, open: &OpenDisk) {
        let open = open.clone().opener(Arc::new(Pinned {
            root: root.to_path_buf(),
            path: path.clone(),
            opener: open.current_opener(),
        }));
        match dependence(&path, file, &open) {
            Dependence::Yes => self.dependent.push(path),
            Dependence::No => self.independent.push(path),
            Dependence::Unknown(error) => self.unknown.push((path, error)),
        }
    }
}

/// What an entry of a directory is.
enum Entry {
    File(Option<FileId>),
    Directory,
    Other,
}

/// The entries of `directory`, as many of them as are `left`.
fn entries(directory: &Path, left: &mut u64) -> Result<Vec<(PathBuf, Entry)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        *left = left.checked_sub(1).ok_or_else(|| {
            let text = "there are more entries to look at than the limit allows";
            Error::new(ErrorKind::LimitExceeded, text)
        })?;
        let kind = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => Entry::File(identity::of_entry(&path)?),
            Ok(metadata) if metadata.is_dir() => Entry::Directory,
            Ok(_) => Entry::Other,
            // It has gone since the directory was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        entries.push((path, kind));
    }
    Ok(entries)
}

/// Opens the one file at `path` through no symbolic link below `root`, should it have become one since
/// its directory was read; other files as ever.
struct Pinned {
    root: PathBuf,
    path: PathBuf,
    opener: Arc<dyn Opener>,
}

impl Opener for Pinned {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        match path.strip_prefix(&self.root) {
            Ok(name) if path == self.path => self.opener.open_beneath(&self.root, name, options),
            _ => self.opener.open(path, options),
        }
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        self.opener.open_beneath(root, name, options)
    }

    fn is_remote(&self, name: &Path) -> bool {
        self.opener.is_remote(name)
    }
}
