//! Body of the fuzz target for chains: images of any format over each other, names and all, under
//! each policy. The ordinary tests replay it.

use std::path::{Component, Path};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use blockdev_core::locate::{ChainPolicy, Opener, Wanted};
use blockdev_core::{
    BlockDevice, Error, ErrorKind, Extents, FileOptions, Limits, MemoryStorage, OpenOptions,
    Result, Storage,
};

use crate::{ImageInfo, OpenDisk};

/// Where the members are said to lie.
const ROOT: &str = "/images";
/// Extents walked and read of one disk; the rest is more of the same.
const EXTENTS: usize = 64;
/// Bytes read of one extent.
const PIECE: usize = 64 << 10;

/// Files in memory: the first is the top. A name with a digit means that member, any other name the
/// next in line.
struct Members {
    files: Vec<Arc<dyn Storage>>,
    next: AtomicUsize,
    opened: Mutex<Vec<Asked>>,
}

/// How a file was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Freely,
    Beneath,
}

impl Members {
    fn file(&self, path: &Path) -> Result<Arc<dyn Storage>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let digit = name.chars().find_map(|letter| letter.to_digit(10));
        let line = self.next.fetch_add(1, Ordering::Relaxed);
        let index = digit.map_or(line, |digit| digit as usize);
        let gone = || Error::new(ErrorKind::Io, "no such file");
        self.files.get(index).cloned().ok_or_else(gone)
    }

    fn note(&self, asked: Asked) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.push(asked);
    }
}

impl Opener for Members {
    fn open(&self, path: &Path, _: FileOptions) -> Result<Arc<dyn Storage>> {
        self.note(Asked::Freely);
        self.file(path)
    }

    fn open_beneath(&self, root: &Path, name: &Path, _: FileOptions) -> Result<Arc<dyn Storage>> {
        self.note(Asked::Beneath);
        assert_eq!(root, Path::new(ROOT), "the policy's own directory");
        let plain = |part| matches!(part, Component::Normal(_));
        assert!(name.components().all(plain), "{} leads out", name.display());
        self.file(name)
    }
}

/// Opens the first of `members` with the others at hand, under the policy that `choice` names, and
/// reads what can be read. No file may be opened but by what the policy allows.
pub fn chain_mixed(choice: u8, members: Vec<Vec<u8>>) {
    let files = members
        .into_iter()
        .map(|bytes| Arc::new(MemoryStorage::from(bytes)) as Arc<dyn Storage>);
    let members = Arc::new(Members {
        files: files.collect(),
        next: AtomicUsize::new(0),
        opened: Mutex::default(),
    });
    let handles = Arc::clone(&members);
    let policy = match choice % 4 {
        0 => ChainPolicy::Deny,
        1 => ChainPolicy::Handles(Arc::new(move |wanted: &Wanted<'_>| {
            let name = wanted.reference.names.first();
            let name = name.map_or("", |name| name.stored.as_ref());
            Ok(handles.file(Path::new(name)).ok())
        })),
        2 => ChainPolicy::Beneath(ROOT.into()),
        _ => ChainPolicy::Any,
    };
    let mut limits = Limits::default();
    limits.metadata_cache_bytes = 1 << 20;
    limits.chain_depth = 8;
    let open = OpenDisk::new()
        .policy(policy)
        .options(OpenOptions::read_only().with_limits(limits))
        .verify_linkage(choice & 4 == 0)
        .opener(Arc::clone(&members) as Arc<dyn Opener>);
    if let Ok((disk, _)) = open.open_partial(Path::new(ROOT).join("top-0")) {
        assert!(disk.layer_count() <= 8, "deeper than the limit");
        let _ = ImageInfo::of_chain(&disk);
        let size = disk.size();
        let mut buffer = vec![0; PIECE];
        for extent in Extents::new(&disk, 0, size).take(EXTENTS) {
            let Ok((start, extent)) = extent else { break };
            assert!(
                extent.len > 0 && start + extent.len <= size,
                "an extent inside the disk"
            );
            let len = usize::try_from(extent.len).map_or(PIECE, |len| len.min(PIECE));
            let _ = disk.read_at(&mut buffer[..len], start);
            let _ = disk.read_at(&mut buffer[..len], start + extent.len - len as u64);
        }
    }
    let opened = members
        .opened
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let (top, rest) = opened.split_first().expect("the top is opened");
    assert_eq!(*top, Asked::Freely, "the caller names the top");
    match choice % 4 {
        0 | 1 => assert!(rest.is_empty(), "a file was opened by its name"),
        2 => assert!(!rest.contains(&Asked::Freely), "opened past the directory"),
        _ => {}
    }
}
