//! A format of a few lines of text, and files that exist in memory only.
//!
//! ```text
//!   FAKE
//!   size 4096
//!   data 0 512 7            offset, length, byte
//!   id 1
//!   format fake             of the parent
//!   expect 2                fingerprint of the parent
//!   sector 4096             logical, own and the parent's
//!   broken                  fails when it is read
//!   relative base.fake      names of the parent, in order
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use blockdev_core::locate::Opener;
use blockdev_core::{
    CheckReport, ContentId, Error, ErrorKind, FileId, FileName, FileOptions, FileRef, FileRole,
    FormatDriver, Layer, LockMode, MemoryStorage, NameKind, OpenMode, OpenOptions, ProbeInput,
    RawDriver, Result, Storage,
};

use super::sparse::SparseLayer;

/// A format by its name and mark.
pub(super) struct FakeDriver(&'static str, &'static str);

/// Two formats with marks, and raw.
pub(super) const DRIVERS: &[&dyn FormatDriver] = &[
    &FakeDriver("fake", "FAKE"),
    &FakeDriver("other", "OTHER"),
    &RawDriver,
];

pub(super) fn id(number: u8) -> ContentId {
    ContentId([number; 16])
}

fn name(kind: NameKind, stored: &str) -> FileName {
    // A name with a colon means nothing here.
    let path = (!stored.contains(':')).then(|| stored.into());
    FileName {
        kind,
        stored: stored.replace("\\n", "\n"),
        path,
    }
}

impl FormatDriver for FakeDriver {
    fn name(&self) -> &'static str {
        self.0
    }

    fn probe(&self, input: &ProbeInput<'_>) -> bool {
        input.head.starts_with(self.1.as_bytes())
    }

    fn open(&self, storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Box<dyn Layer>> {
        let mut text = vec![0; usize::try_from(storage.len()?).unwrap()];
        storage.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        if lines.next() != Some(self.1) {
            return Err(Error::new(ErrorKind::NotRecognised, "another mark"));
        }
        let mut layer = SparseLayer::new(4096, 512);
        layer.info.format = self.0;
        let mut parent = FileRef {
            role: FileRole::Parent,
            names: Vec::new(),
            format: None,
            expected: Vec::new(),
            logical_sector_size: None,
        };
        let mut has_parent = false;
        for line in lines {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let mut names = |kind| {
                has_parent = true;
                parent.names.push(name(kind, value));
            };
            match key {
                "size" => layer.info.size = value.parse().unwrap(),
                "data" => {
                    let numbers: Vec<u64> =
                        value.split(' ').map(|word| word.parse().unwrap()).collect();
                    let byte = u8::try_from(numbers[2]).unwrap();
                    layer = layer.with(numbers[0], numbers[0] + numbers[1], byte);
                }
                "id" => layer.id = Some(id(value.parse().unwrap())),
                "sector" => layer.info.logical_sector_size = value.parse().unwrap(),
                "format" => parent.format = Some(value.into()),
                "expect" => parent.expected.push(id(value.parse().unwrap())),
                "same-sector" => {
                    parent.logical_sector_size = Some(layer.info.logical_sector_size);
                }
                "broken" => layer.broken = true,
                "nameless" => has_parent = true,
                "relative" => names(NameKind::Relative),
                "volume" => names(NameKind::Volume),
                "absolute" => names(NameKind::Absolute),
                "protocol" => names(NameKind::Protocol),
                _ => return Err(Error::corrupt("line", 0, format!("unknown key {key}"))),
            }
        }
        layer.refs.extend(has_parent.then_some(parent));
        if options.mode == OpenMode::ReadWrite {
            layer = layer.writable();
        }
        layer.cache.clone_from(&options.cache);
        layer.host = storage;
        Ok(layer.boxed())
    }

    fn check(&self, _: Arc<dyn Storage>, _: &OpenOptions) -> Result<Option<CheckReport>> {
        Ok(None)
    }
}

/// Files by path; notes which are opened and how they are locked.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<PathBuf, Arc<File>>,
    opened: Mutex<Vec<PathBuf>>,
}

#[derive(Debug)]
pub(super) struct File {
    bytes: MemoryStorage,
    in_use: bool,
    locks: Mutex<Vec<LockMode>>,
}

impl Storage for File {
    fn len(&self) -> Result<u64> {
        self.bytes.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.bytes.read_at(buf, offset)
    }

    fn identity(&self) -> Option<FileId> {
        self.bytes.identity()
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        self.locks.lock().unwrap().push(mode);
        if self.in_use {
            return Err(ErrorKind::Locked.into());
        }
        Ok(())
    }
}

impl Files {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn with(mut self, path: &str, text: &str) -> Self {
        self.add(path, text, false);
        self
    }

    /// The same with a file that another process writes to.
    pub(super) fn with_used(mut self, path: &str, text: &str) -> Self {
        self.add(path, text, true);
        self
    }

    fn add(&mut self, path: &str, text: &str, in_use: bool) {
        let file = File {
            bytes: MemoryStorage::from(text.as_bytes().to_vec()),
            in_use,
            locks: Mutex::default(),
        };
        self.files.insert(path.into(), Arc::new(file));
    }

    /// The file itself, opened by nobody.
    pub(super) fn file(&self, path: &str) -> Arc<dyn Storage> {
        Arc::clone(&self.files[Path::new(path)]) as Arc<dyn Storage>
    }

    /// Paths opened so far, in order.
    pub(super) fn opened(&self) -> Vec<PathBuf> {
        self.opened.lock().unwrap().clone()
    }

    /// Locks taken on the file so far.
    pub(super) fn locks(&self, path: &str) -> Vec<LockMode> {
        self.files[Path::new(path)].locks.lock().unwrap().clone()
    }
}

impl Opener for Files {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        assert!(!options.writable, "parents are opened for reading only");
        self.opened.lock().unwrap().push(path.into());
        match self.files.get(path) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn Storage>),
            None => Err(std::io::Error::from(std::io::ErrorKind::NotFound).into()),
        }
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        self.open(&root.join(name), options)
    }

    fn is_remote(&self, name: &Path) -> bool {
        name.to_string_lossy().starts_with("nbd:")
    }
}
