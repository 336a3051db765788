//! Writing disks out as raw images.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diskweave::chain::{Chain, ChainBuilder, Top};
use diskweave::core::{ErrorKind, FileOptions, FileStorage, MemoryStorage, Storage};
use diskweave::{ConvertOptions, NoProgress, OpenDisk, Progress, convert_to_raw, drivers};
use support::{MIB, beneath, full, names, save, to_raw, unlocked};
use testkit::counting::{CountingStorage, Fault, FaultyStorage, Op};
use testkit::oracle::QemuIo;
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder, chain_disk};

fn open_in_memory(storage: Arc<dyn Storage>) -> Chain {
    ChainBuilder::new(drivers())
        .build(Top::storage(storage, "vhdx"))
        .unwrap()
}

fn in_memory(image: &VhdxBuilder) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::from(image.build().to_vec()))
}

/// A disk of 12 MiB: data, zeros of all sorts, a block with a few bytes in it.
fn varied() -> VhdxBuilder {
    let few = vec![(700, vec![1; 30]), (300_000, vec![2; 5000])];
    VhdxBuilder::new(12 * MIB)
        .block(0, BlockContent::full(BlockData::Pattern(1)))
        .block(1, BlockContent::Zero)
        .block(3, BlockContent::full(BlockData::Byte(0)))
        .block(4, BlockContent::full(BlockData::Pieces(few)))
        .block(7, BlockContent::Unmapped { kept: None })
        .block(10, BlockContent::full(BlockData::Pattern(2)))
        .block(11, BlockContent::full(BlockData::Pattern(3)))
}

fn options(change: impl FnOnce(&mut ConvertOptions)) -> ConvertOptions {
    let mut options = ConvertOptions::default();
    change(&mut options);
    options
}

/// Stops the operation after some bytes.
struct StopAfter(AtomicU64);

impl Progress for StopAfter {
    fn advance(&self, bytes: u64) {
        let left = self.0.load(Ordering::SeqCst).saturating_sub(bytes);
        self.0.store(left, Ordering::SeqCst);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

#[test]
fn a_cancelled_conversion_leaves_an_old_destination_as_it_was_and_makes_no_new_one() {
    let disk = open_in_memory(in_memory(&full(8)));
    for after in [0, 1, MIB, 5 * MIB] {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        std::fs::write(&old, "precious").unwrap();
        for destination in [old.clone(), dir.path().join("new")] {
            let stop = StopAfter(AtomicU64::new(after));
            let stopped = convert_to_raw(&disk, &destination, &ConvertOptions::default(), &stop);
            assert!(stopped.is_err());
            assert_eq!(names(dir.path()), ["old"]);
            assert_eq!(std::fs::read(&old).unwrap(), b"precious");
        }
    }
}

#[test]
fn a_source_that_fails_anywhere_leaves_no_half_made_destination() {
    let image = varied();
    let mut failures = 0;
    for nth in 1.. {
        let storage = FaultyStorage::new(in_memory(&image));
        let disk = open_in_memory(storage.clone());
        storage.fail(Op::Read, nth, Fault::Io);
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("raw");
        std::fs::write(&destination, "precious").unwrap();
        let result = to_raw(&disk, &destination);
        assert_eq!(names(dir.path()), ["raw"]);
        if storage.hit() {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(std::fs::read(&destination).unwrap(), b"precious");
            failures += 1;
        } else {
            result.unwrap();
            assert_eq!(std::fs::read(&destination).unwrap(), chain_disk(&[&image]));
            break;
        }
    }
    assert!(failures >= 4, "{failures}");
}

#[test]
fn a_detached_child_is_not_converted_into_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let base = full(2);
    let child = VhdxBuilder::child_of(&base, "base.vhdx");
    let child = save(dir.path(), "child.vhdx", &child);
    let disk = OpenDisk::new().open(&child).unwrap();
    for sparse_bytes in [0, 4096] {
        let options = options(|options| options.sparse_bytes = sparse_bytes);
        let refused =
            convert_to_raw(&disk, dir.path().join("raw"), &options, &NoProgress).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NeedsParent);
        assert_eq!(names(dir.path()), ["child.vhdx"]);
    }
}

#[test]
fn every_number_of_workers_and_every_grain_of_holes_gives_the_same_bytes() {
    let image = varied();
    let right = chain_disk(&[&image]);
    let disk = open_in_memory(in_memory(&image));
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    for workers in [1, 2, 3, 4, 5, 6, 7, 8, 1_000_000] {
        let workers = NonZeroUsize::new(workers).unwrap();
        let options = options(|options| options.workers = workers);
        convert_to_raw(&disk, &raw, &options, &NoProgress).unwrap();
        assert_eq!(std::fs::read(&raw).unwrap(), right, "{workers} workers");
    }
    for sparse_bytes in [0, 1, 512, 1000, 4096, 1 << 20, 1 << 30] {
        let options = options(|options| options.sparse_bytes = sparse_bytes);
        convert_to_raw(&disk, &raw, &options, &NoProgress).unwrap();
        assert_eq!(std::fs::read(&raw).unwrap(), right, "-S {sparse_bytes}");
    }
}

#[test]
fn a_disk_of_no_bytes_is_an_empty_file() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, raw) = (dir.path().join("empty"), dir.path().join("raw"));
    std::fs::write(&empty, b"").unwrap();
    std::fs::write(&raw, b"old").unwrap();
    let disk = OpenDisk::new().open(&empty).unwrap();
    to_raw(&disk, &raw).unwrap();
    assert_eq!(std::fs::read(&raw).unwrap(), b"");
}

#[test]
fn zeros_become_holes_unless_every_byte_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    let disk = open_in_memory(in_memory(&varied()));
    let allocated = |options: &ConvertOptions| {
        convert_to_raw(&disk, &raw, options, &NoProgress).unwrap();
        let file = unlocked(&raw);
        assert_eq!(file.len().unwrap(), 12 * MIB);
        file.allocated_len().unwrap()
    };
    // Three full blocks, and two pieces of a few pages.
    let sparse = allocated(&ConvertOptions::default());
    assert!(
        (3 * MIB..3 * MIB + (64 << 10)).contains(&sparse),
        "{sparse}"
    );
    let dense = allocated(&options(|options| options.sparse_bytes = 0));
    assert!(dense >= 12 * MIB, "{dense}");
}

#[test]
fn an_empty_disk_of_64_gib_is_a_few_reads_and_no_time() {
    let counted = CountingStorage::new(in_memory(&VhdxBuilder::new(64 << 30)));
    let disk = open_in_memory(counted.clone());
    counted.reset();
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    let started = Instant::now();
    to_raw(&disk, &raw).unwrap();
    let elapsed = started.elapsed();
    // 65,536 entries of the BAT are 131 pages, in a memory that knows no holes.
    let reads = counted.count(Op::Read);
    assert!(reads <= 131 + 8, "{reads} reads");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    let file = unlocked(&raw);
    assert_eq!(file.len().unwrap(), 64 << 30);
    assert!(file.allocated_len().unwrap() <= 4096);
}

#[test]
fn an_empty_disk_of_64_gib_in_a_sparse_file_is_read_at_its_edges_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "empty.vhdx", &VhdxBuilder::new(64 << 30));
    let counted = CountingStorage::new(Arc::new(unlocked(&path)));
    let disk = open_in_memory(counted.clone());
    counted.reset();
    to_raw(&disk, &dir.path().join("raw")).unwrap();
    let reads = counted.count(Op::Read);
    assert!(reads <= 40, "{reads} reads");
}

#[cfg(unix)]
#[test]
fn a_new_file_is_as_private_as_the_umask_wants_and_an_old_one_as_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = open_in_memory(in_memory(&full(1)));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    let plain = dir.path().join("plain");
    std::fs::File::create(&plain).unwrap();
    let raw = dir.path().join("raw");
    to_raw(&disk, &raw).unwrap();
    assert_eq!(mode(&raw), mode(&plain));
    for bits in [0o600, 0o640, 0o664] {
        std::fs::set_permissions(&raw, std::fs::Permissions::from_mode(bits)).unwrap();
        to_raw(&disk, &raw).unwrap();
        assert_eq!(mode(&raw) & 0o7777, bits);
    }
}

#[cfg(unix)]
#[test]
fn what_replaces_a_private_file_is_private_while_it_is_made() {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Mutex;

    /// Looks at every file of a directory while it is told of progress.
    struct Onlooker(PathBuf, Mutex<Vec<u32>>);

    impl Progress for Onlooker {
        fn advance(&self, _: u64) {
            for entry in std::fs::read_dir(&self.0).unwrap() {
                let mode = entry.unwrap().metadata().unwrap().permissions().mode();
                self.1.lock().unwrap().push(mode & 0o777);
            }
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, "secret").unwrap();
    std::fs::set_permissions(&raw, std::fs::Permissions::from_mode(0o600)).unwrap();
    let onlooker = Onlooker(dir.path().to_path_buf(), Mutex::default());
    let disk = open_in_memory(in_memory(&full(2)));
    convert_to_raw(&disk, &raw, &ConvertOptions::default(), &onlooker).unwrap();
    let seen = onlooker.1.into_inner().unwrap();
    assert!(seen.len() >= 4, "the old file and the new one, twice");
    assert!(seen.iter().all(|mode| *mode == 0o600), "{seen:?}");
}

#[test]
fn whoever_has_the_old_destination_open_keeps_reading_it_whole() {
    use std::io::Read;
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, "all of the old").unwrap();
    let mut old = std::fs::File::open(&raw).unwrap();
    to_raw(&open_in_memory(in_memory(&full(1))), &raw).unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "all of the old");
    assert_eq!(std::fs::read(&raw).unwrap(), chain_disk(&[&full(1)]));
}

#[test]
fn a_destination_in_use_is_locked_and_unharmed() {
    let Some(io) = QemuIo::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, vec![7; 4096]).unwrap();
    let disk = open_in_memory(in_memory(&full(1)));
    let writer = io.hold_writable("raw", &raw).unwrap();
    let refused = to_raw(&disk, &raw).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    drop(writer);
    let reader = FileStorage::open(&raw, FileOptions::read_only()).unwrap();
    let refused = to_raw(&disk, &raw).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    assert_eq!(std::fs::read(&raw).unwrap(), vec![7; 4096]);
    assert_eq!(names(dir.path()), ["raw"]);
    drop(reader);
    to_raw(&disk, &raw).unwrap();
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_written_through_and_stays_a_link() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let disk = open_in_memory(in_memory(&full(1)));
    let right = chain_disk(&[&full(1)]);
    std::fs::write(elsewhere.join("old"), "old").unwrap();
    // One to a file, one to a file that is not there yet, one to a link to that.
    let links = [
        ("to-old", "elsewhere/old", "old"),
        ("to-new", "elsewhere/new", "new"),
        ("to-link", "to-newer", "newer"),
    ];
    symlink("elsewhere/newer", dir.path().join("to-newer")).unwrap();
    for (name, target, file) in links {
        let link = dir.path().join(name);
        symlink(target, &link).unwrap();
        to_raw(&disk, &link).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(target));
        assert_eq!(
            std::fs::read(elsewhere.join(file)).unwrap(),
            right,
            "{name}"
        );
    }
    assert_eq!(names(&elsewhere), ["new", "newer", "old"]);
    let round = dir.path().join("round");
    symlink("round", &round).unwrap();
    assert_eq!(to_raw(&disk, &round).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(std::fs::read_link(&round).unwrap(), Path::new("round"));
}

#[test]
fn what_is_no_file_is_no_destination() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open_in_memory(in_memory(&full(1)));
    let refused = to_raw(&disk, dir.path()).unwrap_err();
    assert!(matches!(
        refused.kind(),
        ErrorKind::Unsupported | ErrorKind::Io
    ));
    let missing = dir.path().join("no/such/directory/raw");
    assert_eq!(to_raw(&disk, &missing).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn progress_counts_every_byte_once_whatever_is_skipped() {
    #[derive(Default)]
    struct Sum(AtomicU64, AtomicU64);
    impl Progress for Sum {
        fn start(&self, total: u64) {
            self.0.fetch_add(total, Ordering::SeqCst);
        }
        fn advance(&self, bytes: u64) {
            self.1.fetch_add(bytes, Ordering::SeqCst);
        }
    }
    let disk = open_in_memory(in_memory(&varied()));
    let dir = tempfile::tempdir().unwrap();
    for sparse_bytes in [0, 4096] {
        let sum = Sum::default();
        let options = options(|options| options.sparse_bytes = sparse_bytes);
        convert_to_raw(&disk, dir.path().join("raw"), &options, &sum).unwrap();
        assert_eq!(sum.0.into_inner(), 12 * MIB);
        assert_eq!(sum.1.into_inner(), 12 * MIB);
    }
}

#[test]
fn a_chain_is_written_out_as_the_one_disk_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let base = varied();
    save(dir.path(), "base.vhdx", &base);
    let top = VhdxBuilder::child_of(&base, "base.vhdx")
        .block(0, BlockContent::partial(BlockData::Pattern(9), 5..77))
        .block(10, BlockContent::Zero)
        .block(2, BlockContent::full(BlockData::Pattern(8)));
    let child = save(dir.path(), "top.vhdx", &top);
    let raw = dir.path().join("raw");
    to_raw(&beneath(&child).open(&child).unwrap(), &raw).unwrap();
    assert!(std::fs::read(&raw).unwrap() == chain_disk(&[&top, &base]));
}
