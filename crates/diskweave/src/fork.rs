//! A disk that becomes the base of the one in its place.
//!
//! ```text
//!   disk ─► image          disk ─┐                 disk ─► child ──┐
//!                    ─►          ├─► image    ─►                   │ parent
//!                          base ─┘                 base ─► image ◄─┘
//!                       a second name            a child takes the first
//! ```
//!
//! At every instant there is a disk under the first name, and it reads the same. What a step needs is
//! durable before the step is taken.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_chain::Chain;
use blockdev_core::locate::ChainPolicy;
use blockdev_core::{
    BlockDevice, Error, ErrorKind, ExtentKind, FileId, FileRole, Layer, LockMode, NameKind,
    OpenMode, ReadOnlyStorage, Result,
};

use crate::clone::{ChildImage, Naming};
use crate::convert::NewFiles;
use crate::place::{self, Keep, already_there, directory_of, sync_directory};
use crate::{OpenDisk, identity, registry};

/// What a fork came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forked {
    /// The disk is a new child of the base.
    Now,
    /// It was already, and nothing has been written to it since: an earlier call was cut off at its
    /// end, or is repeated.
    Before,
}

/// Gives the disk at `disk` the name `base`, and puts a new child of it in its place, which reads the
/// same and takes what is written from then on.
///
/// Under the name `disk` there is a disk at every instant, which reads the same: a crash leaves the old
/// one or the child. Where it was cut off by a crash, the same call again finishes it. The child has
/// the permissions and the owner of the disk (no access lists, no extended attributes), and names the
/// base from its own directory; a symbolic link at `disk` is followed and stays.
///
/// The disk is locked meanwhile, and refused when somebody uses it. `open` says of what format it is,
/// where that is not to be guessed; no file that it names is opened. `image` says what the child is: a
/// raw disk gets a child of another format, so that one must be said, and whoever opened the disk as
/// raw must not do so any more.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when `base` is there already and is another file, when it is the disk
/// itself, when it is in another directory while the disk names files from its own, and for a raw disk
/// where no format is said; [`ErrorKind::Locked`] when another process uses the disk;
/// [`ErrorKind::Unsupported`] where the host gives the file no second name (hard link) there, and for a
/// format that has no parents; [`ErrorKind::NoSpace`], [`ErrorKind::Io`]. The disk is then as it was,
/// and `base` is not there unless it was; if only the last step failed, that of making the new name
/// durable, it is forked.
///
/// # Example
///
/// ```no_run
/// use diskweave::{ChildImage, OpenDisk, fork};
///
/// // What `disk.qcow2` is now stays in `monday.qcow2`.
/// fork("vm/disk.qcow2", "vm/monday.qcow2", &OpenDisk::new(), &ChildImage::LikeBase)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
pub fn fork(
    disk: impl AsRef<Path>,
    base: impl AsRef<Path>,
    open: &OpenDisk,
    image: &ChildImage,
) -> Result<Forked> {
    let (disk, base) = (disk.as_ref(), base.as_ref());
    step_by_step(disk, base, open, image, &Host, &mut |_, _| Ok(()))
}

/// What a fork does to names and to make things durable; tests put a telling one in its place.
trait Names {
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_directory(&self, directory: &Path) -> Result<()>;
    fn sync_file(&self, file: &File) -> io::Result<()>;
}

/// The host's own calls.
struct Host;

impl Names for Host {
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        sync_directory(directory)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }
}

/// What has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing yet but looking.
    Locked,
    /// The second name is there.
    Linked,
    /// And durable.
    LinkDurable,
    /// The child is there under a name of its own, and durable.
    ChildMade,
    /// It has the owner and the permissions of the disk.
    ChildOwned,
    /// It has the disk's name.
    Renamed,
    /// And that is durable.
    Done,
}

/// Names that are taken back when the next step fails.
#[derive(Debug, Default)]
struct Undo {
    link: Option<PathBuf>,
    child: Option<PathBuf>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        for name in [self.child.take(), self.link.take()].into_iter().flatten() {
            // Nothing can be done about a failure; the same call again makes use of what is left.
            let _ = fs::remove_file(name);
        }
    }
}

/// Told after each step, and able to stop there: with what was done taken back, or not.
type Watcher<'a> = &'a mut dyn FnMut(Step, &mut Undo) -> Result<()>;

fn step_by_step(
    disk: &Path,
    base: &Path,
    open: &OpenDisk,
    image: &ChildImage,
    names: &dyn Names,
    watcher: Watcher<'_>,
) -> Result<Forked> {
    let disk = fs::canonicalize(disk)?;
    let base = absolute(base)?;
    refuse_itself(&disk, &base)?;
    let subject = Subject::open(&disk, open)?;
    let linked = match base.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
        Ok(_) if identity::of_entry(&base)? == Some(subject.id) => true,
        Ok(_) if subject.is_new_child_of(&base)? => {
            names.sync_directory(directory_of(&base))?;
            names.sync_directory(directory_of(&disk))?;
            return Ok(Forked::Before);
        }
        Ok(_) => return Err(already_there(&base)),
    };
    subject.refuse_wandering(&base)?;
    subject.refuse_silent_change(image)?;
    let mut undo = Undo::default();
    watcher(Step::Locked, &mut undo)?;

    if !linked {
        names
            .link(&disk, &base)
            .map_err(|error| no_second_name(&base, error))?;
        undo.link = Some(base.clone());
    }
    subject.is_at(&base)?;
    watcher(Step::Linked, &mut undo)?;
    names.sync_directory(directory_of(&base))?;
    watcher(Step::LinkDurable, &mut undo)?;

    let (path, file) = subject.new_file()?;
    undo.child = Some(path.clone());
    subject.fill_child(&path, &file, &base, image)?;
    watcher(Step::ChildMade, &mut undo)?;
    subject.hand_over(&file)?;
    names.sync_file(&file)?;
    watcher(Step::ChildOwned, &mut undo)?;

    subject.is_at(&disk)?;
    names.rename(&path, &disk)?;
    // From here on the base is what the child reads from.
    (undo.child, undo.link) = (None, None);
    watcher(Step::Renamed, &mut undo)?;
    names.sync_directory(directory_of(&disk))?;
    watcher(Step::Done, &mut undo)?;
    Ok(Forked::Now)
}

/// The disk that is forked, open and locked.
struct Subject {
    path: PathBuf,
    id: FileId,
    image: Chain,
}

impl Subject {
    fn open(path: &Path, open: &OpenDisk) -> Result<Self> {
        let alone = open.clone().policy(ChainPolicy::Deny);
        // Only who could write to it can keep all others away.
        let exclusive = alone.writable().lock(LockMode::Exclusive);
        let file = exclusive.open_file(path)?;
        let Some(id) = file.storage.identity() else {
            let text = "the host cannot tell this file from others";
            return Err(Error::new(ErrorKind::Unsupported, text));
        };
        let mut options = open.core_options().clone();
        options.mode = OpenMode::ReadOnly;
        let storage = Arc::new(ReadOnlyStorage::new(file.storage));
        let layer = file.driver.open(storage, &options)?;
        Ok(Self {
            path: path.to_path_buf(),
            id,
            image: Chain::from_layers(vec![layer])?,
        })
    }

    fn layer(&self) -> &dyn Layer {
        self.image.top()
    }

    /// Checks that it is still this file that has the name `path`, and not the only name it has.
    fn is_at(&self, path: &Path) -> Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            if path.symlink_metadata()?.nlink() < 2 {
                let text = format!("{path:?} is the same name as that of the disk");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        }
        if identity::of_entry(path)? == Some(self.id) {
            return Ok(());
        }
        let text = format!("{path:?} has become another file meanwhile");
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    /// True when the image refers to `base` as its parent and holds nothing itself.
    fn is_new_child_of(&self, base: &Path) -> Result<bool> {
        let directory = directory_of(&self.path);
        let wanted = identity::of_entry(base)?;
        let mut parents = self.layer().file_refs().iter();
        let Some(parent) = parents.find(|file| file.role == FileRole::Parent) else {
            return Ok(false);
        };
        let mut paths = parent.names.iter().filter_map(|name| name.path.as_deref());
        // The first name that leads anywhere is the one that a reader takes.
        let found = paths.find_map(|path| identity::of_target(&directory.join(path)).ok());
        if wanted.is_none() || found != Some(wanted) {
            return Ok(false);
        }
        let size = self.image.size();
        let mut at = 0;
        while at < size {
            let extent = self.layer().next_extent(at, size - at)?;
            if extent.kind != ExtentKind::Absent {
                return Ok(false);
            }
            at += extent.len;
        }
        Ok(true)
    }

    /// Refuses a base elsewhere, from where the names that the image gives would lead elsewhere.
    fn refuse_wandering(&self, base: &Path) -> Result<()> {
        let (from, to) = (directory_of(&self.path), directory_of(base));
        if identity::of_target(from)? == identity::of_target(to)? {
            return Ok(());
        }
        let mut names = self.layer().file_refs().iter().flat_map(|file| &file.names);
        let Some(name) = names.find(|name| name.kind == NameKind::Relative) else {
            return Ok(());
        };
        let text = format!(
            "the disk names {:?} from its own directory, and would not find it from {to:?}: choose a \
             base in the same directory",
            name.stored
        );
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    /// Refuses to make a raw disk something else that nobody asked for.
    fn refuse_silent_change(&self, image: &ChildImage) -> Result<()> {
        if self.image.info().format != blockdev_core::FormatDriver::name(&blockdev_core::RawDriver)
            || *image != ChildImage::LikeBase
        {
            return Ok(());
        }
        let text = "a raw disk cannot be the child of another: say the format that it becomes";
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    /// The file that is to be the child, empty and nobody's yet. A rest of a call that was cut off
    /// goes: nobody else can be at work here, for the disk is locked.
    fn new_file(&self) -> Result<(PathBuf, File)> {
        let FileId { space, file } = self.id;
        let name = format!(".diskweave-fork-{space:x}-{file:x}.partial");
        let path = directory_of(&self.path).join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut new = File::options();
        new.read(true).write(true).create_new(true);
        #[cfg(unix)]
        {
            // Nobody's to read before it has the disk's permissions.
            use std::os::unix::fs::OpenOptionsExt;
            new.mode(0o600);
        }
        let file = new.open(&path)?;
        Ok((path, file))
    }

    fn fill_child(&self, path: &Path, file: &File, base: &Path, image: &ChildImage) -> Result<()> {
        let image = registry::child_image(&self.image, base, path, image, Naming::Relative)?;
        if image.data_file().is_some() {
            let text = "a child with a data file is not made in another disk's place";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let image_file = place::storage(file.try_clone()?, path, Keep::Durable)?;
        let files = NewFiles {
            image: image_file,
            data: None,
        };
        image.empty(self.image.size(), files)
    }

    /// Gives `file` the owner and the permissions of the disk.
    fn hand_over(&self, file: &File) -> Result<()> {
        let metadata = self.path.metadata()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, fchown};
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
                // Before the permissions, some of which a new owner would lose.
                fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
            }
        }
        Ok(file.set_permissions(metadata.permissions())?)
    }
}

/// The path of what is to be at `base`, in a directory that exists.
fn absolute(base: &Path) -> Result<PathBuf> {
    let Some(name) = base.file_name() else {
        let text = format!("{base:?} is no name for a file");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    };
    Ok(fs::canonicalize(directory_of(base))?.join(name))
}

fn refuse_itself(disk: &Path, base: &Path) -> Result<()> {
    let same_directory =
        identity::of_target(directory_of(disk))? == identity::of_target(directory_of(base))?;
    if same_directory && disk.file_name() == base.file_name() {
        let text = "the base is to have another name than the disk";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(())
}

fn no_second_name(base: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => already_there(base),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error.into(),
        // What a file system without hard links answers is told apart from a missing right by none.
        _ => {
            let text = format!(
                "the host does not give the disk the second name {base:?} (a hard link: on the same \
                 file system, which must have them): {error}"
            );
            Error::new(ErrorKind::Unsupported, text).caused_by(error)
        }
    }
}

#[cfg(all(test, unix, feature = "qcow2", feature = "vhdx"))]
mod tests;
