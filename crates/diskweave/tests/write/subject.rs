//! A chain as the proofs drive it: its files in memory, found by the names of files in a directory that hold
//! nothing.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diskweave::chain::Chain;
use diskweave::core::locate::{ChainPolicy, Opener};
use diskweave::core::{
    CheckReport, ErrorKind, FileId, FileOptions, HostExtent, LockMode, MemoryStorage,
    ReadOnlyStorage, Result, Storage, SyncKind,
};
use diskweave::{
    CommitOptions, NoProgress, OpenDisk, apply, commit, rebase, relink, resize, stream,
};
use testkit::crash::{Control, CrashSubject, Image};

/// One file of a chain: its name, which ends in its format.
pub(crate) type Name = &'static str;

/// Chains of the files of these names; the first is the top.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: Arc<tempfile::TempDir>,
    names: Vec<Name>,
    /// Parents are verified by their content.
    verified: bool,
}

impl Files {
    pub(crate) fn new(names: &[Name]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        Self {
            dir: Arc::new(dir),
            names: names.to_vec(),
            verified: true,
        }
    }

    /// The same, where the parent becomes one that the top does not know.
    pub(crate) fn unverified(mut self) -> Self {
        self.verified = false;
        self
    }

    pub(crate) fn path(&self, name: Name) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How images are opened where the files are `files`.
    pub(crate) fn disk(&self, name: Name, files: &[Arc<dyn Storage>]) -> OpenDisk {
        let placed = Placed {
            subject: self.clone(),
            files: files.to_vec(),
        };
        OpenDisk::new()
            .policy(ChainPolicy::Beneath(self.dir.path().to_path_buf()))
            .opener(Arc::new(placed))
            .verify_linkage(self.verified)
            .format(format_of(name))
    }

    /// Does what `what` says, once more if it was done already.
    fn operate(&self, files: &[Arc<dyn Storage>], what: &str) -> Result<()> {
        let top = self.names[0];
        let (path, open) = (self.path(top), self.disk(top, files));
        let words: Vec<&str> = what.split(' ').collect();
        let name_of = |word: &str| {
            let mut names = self.names.iter();
            *names
                .find(|name| **name == word)
                .expect("a file of the story")
        };
        let file = |word: &str| self.path(name_of(word));
        let mut options = CommitOptions::default();
        match words[..] {
            ["commit"] => drop(commit(path, &open, &options, &NoProgress)?),
            ["commit", "keep"] => {
                options.keep = true;
                commit(path, &open, &options, &NoProgress)?;
            }
            ["commit", "into", base] => {
                options.base = Some(file(base));
                commit(path, &open, &options, &NoProgress)?;
            }
            ["commit", from, "into", base] => {
                options.base = Some(file(base));
                options.top = Some(file(from));
                commit(path, &open, &options, &NoProgress)?;
            }
            ["rebase"] => drop(rebase(path, &open, None, &NoProgress)?),
            ["rebase", base] => {
                let parent = self.disk(name_of(base), files).open(file(base))?;
                rebase(path, &open, Some((&parent, Path::new(base))), &NoProgress)?;
            }
            ["relink", base] => {
                let parent = self.disk(name_of(base), files).open(file(base))?;
                relink(path, &open, &parent, base)?;
            }
            ["stream"] => drop(stream(path, &open, None, &NoProgress)?),
            ["stream", base] => drop(stream(path, &open, Some(&file(base)), &NoProgress)?),
            ["apply", "to", base] => {
                let disk = self.disk(name_of(base), files);
                apply(path, &open, file(base), &disk, &NoProgress)?;
            }
            _ => unreachable!("{what}"),
        }
        Ok(())
    }

    fn open_top(&self, files: &[Arc<dyn Storage>], writable: bool) -> Result<Chain> {
        let open = self.disk(self.names[0], files);
        let open = if writable { open.writable() } else { open };
        open.open(self.path(self.names[0]))
    }
}

fn format_of(name: Name) -> &'static str {
    name.rsplit('.').next().expect("a name with an ending")
}

impl CrashSubject for Files {
    type Device = Chain;

    fn format(&self) -> &str {
        "chain"
    }

    fn open(&self, files: &[Arc<dyn Storage>], writable: bool) -> Result<Chain> {
        self.open_top(files, writable)
    }

    /// Every image by itself, whether the disk needs it or not.
    fn check(&self, files: &[Arc<dyn Storage>]) -> Result<CheckReport> {
        let mut all = CheckReport::default();
        for name in &self.names {
            let checked = diskweave::check(self.path(name), &self.disk(name, files))?;
            if let Some(report) = checked.report {
                for finding in report.findings {
                    all.push(finding, 100);
                }
            }
        }
        Ok(all)
    }

    fn close(&self, device: Chain) -> Result<()> {
        device.close()
    }

    fn control(
        &self,
        mut device: Chain,
        files: &[Arc<dyn Storage>],
        control: Control,
    ) -> Result<Chain> {
        match control {
            Control::Resize(size) => {
                resize(&mut device, size)?;
                return Ok(device);
            }
            Control::Other(what) => {
                device.close()?;
                self.operate(files, what)?;
            }
            other => unreachable!("{other:?}"),
        }
        self.open_top(files, true)
    }

    fn resume(&self, files: &[Arc<dyn Storage>], control: Control) -> Result<Option<Chain>> {
        let Control::Other(what) = control else {
            return Ok(None);
        };
        match self.operate(files, what) {
            // It was all but over: the layers that were to be merged are out of the chain.
            Err(error) if error.kind() == ErrorKind::InvalidInput && what.contains(" into ") => {}
            other => other?,
        }
        self.open_top(files, true).map(Some)
    }
}

/// Files by the paths of those that stand for them.
struct Placed {
    subject: Files,
    files: Vec<Arc<dyn Storage>>,
}

impl Opener for Placed {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        let path = fs::canonicalize(path)?;
        let mut names = (0..).zip(&self.subject.names);
        let is_it = |name| fs::canonicalize(self.subject.path(name)).ok() == Some(path.clone());
        let (number, _) = names
            .find(|(_, name)| is_it(name))
            .expect("a file of the story");
        let inner = Arc::clone(&self.files[usize::try_from(number).unwrap()]);
        let inner: Arc<dyn Storage> = match options.writable {
            true => inner,
            false => Arc::new(ReadOnlyStorage::new(inner)),
        };
        let file = fs::File::options().write(true).open(&path)?;
        if path.extension().is_some_and(|format| format != "vhdx") {
            file.set_modified(time_of(&*inner)?)?;
        }
        Ok(Arc::new(Identified {
            number,
            file,
            inner,
        }))
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        self.open(&root.join(name), options)
    }
}

/// A time by which a file with the content of `storage` is told from others: what is in memory keeps none, and
/// children know a raw image or a qcow2 by it.
fn time_of(storage: &dyn Storage) -> Result<SystemTime> {
    let mut bytes = vec![0; usize::try_from(storage.len()?).unwrap()];
    storage.read_at(&mut bytes, 0)?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    // Within some years of the beginning.
    Ok(UNIX_EPOCH + Duration::from_nanos(hasher.finish() >> 8))
}

/// A file in memory, told from the others; its fingerprint is that of the file which stands for it.
#[derive(Debug)]
struct Identified {
    number: u64,
    file: fs::File,
    inner: Arc<dyn Storage>,
}

impl Storage for Identified {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.inner.sync(kind)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.punch_hole(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.zero_range(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.allocate(offset, len)
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        self.inner.next_extent(offset)
    }

    fn identity(&self) -> Option<FileId> {
        let file = self.number;
        Some(FileId { space: 0, file })
    }

    fn lock(&self, _: LockMode) -> Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn as_file(&self) -> Option<&fs::File> {
        Some(&self.file)
    }
}

/// Empty files, for images to be made in.
pub(crate) fn empty(count: usize) -> Vec<Arc<dyn Storage>> {
    (0..count)
        .map(|_| Arc::new(MemoryStorage::default()) as Arc<dyn Storage>)
        .collect()
}

/// What `storage` holds.
pub(crate) fn image(storage: &Arc<dyn Storage>) -> Image {
    let mut bytes = vec![0; usize::try_from(storage.len().unwrap()).unwrap()];
    storage.read_at(&mut bytes, 0).unwrap();
    Image::from(&bytes[..])
}
