//! Children that the library makes: each reads as its parent, under the library and under libvhdi, and
//! notices when the parent is written to.

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blockdev_chain::{Chain, ChainBuilder, Top};
use blockdev_core::locate::ChainPolicy;
use blockdev_core::{BlockDevice, ErrorKind, FileOptions, FileStorage, FormatDriver, OpenOptions};
use blockdev_core::{LockMode, RawDriver, Storage};
use testkit::corpus::sha256_virtual;
use testkit::counting::CountingOpener;
use testkit::oracle::Libvhdi;
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder, chain_disk};
use vhdx_format::{BatEntry, CreateOptions, ParentPaths, Uuid, VhdxImage, VhdxWriter, known};

use crate::shapes::full_base;
use crate::support::{DRIVERS, MIB, open, open_with, save};

/// Makes the file `name` in `dir` an empty image by `options`.
fn make(dir: &Path, name: &str, options: CreateOptions) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap();
    let file = FileStorage::open(&path, FileOptions::read_write()).unwrap();
    let writer = VhdxWriter::create(Arc::new(file), options).unwrap();
    writer.finish().unwrap();
    path
}

/// The options of a child of the VHDX `parent`, which is beside it.
fn of(parent: &Path) -> CreateOptions {
    let storage = FileStorage::open(parent, FileOptions::read_only()).unwrap();
    let image = VhdxImage::open(Arc::new(storage), &OpenOptions::read_only()).unwrap();
    let name = ParentPaths::relative(parent.file_name().unwrap()).unwrap();
    CreateOptions::child_of(&image, name).unwrap()
}

/// The same over a raw file.
fn of_raw(parent: &Path) -> CreateOptions {
    let storage = FileStorage::open(parent, FileOptions::read_only()).unwrap();
    let layer = RawDriver
        .open(Arc::new(storage), &OpenOptions::read_only())
        .unwrap();
    let name = ParentPaths::relative(parent.file_name().unwrap()).unwrap();
    CreateOptions::child_of_other(&*layer, name).unwrap()
}

fn content(chain: &Chain) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(chain.size()).unwrap()];
    chain.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_child_reads_as_its_parent_whatever_their_sizes_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let base = full_base(VhdxBuilder::new(8 * MIB));
    let parent = save(dir.path(), "base.vhdx", &base);
    let disk = chain_disk(&[&base]);
    for (size, block) in [
        (8 * MIB, 1 << 20),
        (8 * MIB, 32 << 20),
        (3 * MIB, 2 << 20),
        (21 * MIB, 1 << 20),
    ] {
        let mut options = of(&parent);
        options.virtual_size = size;
        options.block_size = block;
        let child = make(dir.path(), "child.vhdx", options);
        // A child of the child adds nothing either.
        let top = make(dir.path(), "top.vhdx", of(&child));
        let mut expected = disk.clone();
        expected.resize(usize::try_from(size).unwrap(), 0);
        for (path, layers) in [(&child, 2), (&top, 3)] {
            let chain = open(path).unwrap();
            assert_eq!(chain.layer_count(), layers);
            assert!(content(&chain) == expected, "{size} bytes, {layers} layers");
        }
    }
}

/// Gives the first chunk of the image at `path` a sector bitmap block of zeros, which changes nothing:
/// libvhdi 20210425 takes one that is not there to begin at the first byte of the file, so that sectors
/// for which there are bits in "vhdxfile" are zeros to it.
fn add_bitmap_block(path: &Path) {
    let file = FileStorage::open(path, FileOptions::read_write()).unwrap();
    let tables = vhdx_format::inspect::region_tables(&file).unwrap();
    let mut regions = tables.copies[0].entries.iter();
    let bat = regions
        .find(|entry| entry.guid == known::BAT_REGION)
        .unwrap();
    let image = VhdxImage::open(Arc::new(file), &OpenOptions::read_only()).unwrap();
    let index = image.geometry().bitmap_index(0);
    let file = image.into_medium();
    let place = file.len().unwrap();
    file.set_len(place + MIB).unwrap();
    let entry = BatEntry::bitmap(place).0.to_le_bytes();
    file.write_at(&entry, bat.file_offset + index * 8).unwrap();
}

#[test]
fn libvhdi_opens_a_child_with_its_parent_and_reads_the_same() {
    let Some(vhdi) = Libvhdi::find() else { return };
    for sector in [512, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let base = VhdxBuilder::new(8 * MIB)
            .logical_sector_size(sector)
            .physical_sector_size(4096);
        let parent = save(dir.path(), "base.vhdx", &full_base(base));
        let child = make(dir.path(), "child.vhdx", of(&parent));
        let top = make(dir.path(), "top.vhdx", of(&child));
        let ours = sha256_virtual(&open(&top).unwrap()).unwrap();
        add_bitmap_block(&child);
        add_bitmap_block(&top);
        assert_eq!(sha256_virtual(&open(&top).unwrap()).unwrap(), ours);
        assert_eq!(
            vhdi.sha256(&[&child, &parent]).unwrap(),
            (8 * MIB, ours.clone())
        );
        assert_eq!(
            vhdi.sha256(&[&top, &child, &parent]).unwrap(),
            (8 * MIB, ours)
        );
    }
}

#[test]
fn a_child_of_a_parent_with_a_dirty_log_reads_what_the_log_holds() {
    let dir = tempfile::tempdir().unwrap();
    let base = full_base(VhdxBuilder::new(4 * MIB))
        .pending_block(1, BlockContent::full(BlockData::Pattern(77)));
    let parent = save(dir.path(), "base.vhdx", &base);
    let child = make(dir.path(), "child.vhdx", of(&parent));
    let before = content(&open(&child).unwrap());
    assert!(before == chain_disk(&[&base]));
    // Replaying the log in the file changes nothing that a guest sees, so the child still belongs.
    let file = FileStorage::open(&parent, FileOptions::read_write()).unwrap();
    VhdxImage::open(Arc::new(file), &OpenOptions::read_write()).unwrap();
    assert!(content(&open(&child).unwrap()) == before);
}

#[test]
fn a_parent_whose_data_write_guid_changed_is_refused_unless_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let base = full_base(VhdxBuilder::new(2 * MIB));
    let parent = save(dir.path(), "base.vhdx", &base);
    let child = make(dir.path(), "child.vhdx", of(&parent));
    open(&child).unwrap();
    let changed = base.data_write_guid(Uuid::from_u128(9));
    save(dir.path(), "base.vhdx", &changed);
    judge_changed(dir.path(), &child);
}

/// The chain of `path` with its top opened for writing.
fn open_writable(path: &Path) -> Chain {
    let policy = ChainPolicy::Beneath(path.parent().unwrap().to_path_buf());
    let builder = ChainBuilder::new(DRIVERS)
        .policy(policy)
        .options(OpenOptions::read_write());
    let storage = Arc::new(FileStorage::open(path, FileOptions::read_write()).unwrap());
    builder
        .build(Top::storage(storage, "vhdx").at(path))
        .unwrap()
}

#[test]
fn a_parent_that_one_byte_was_written_to_is_refused_unless_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let base = full_base(VhdxBuilder::new(2 * MIB));
    let parent = save(dir.path(), "base.vhdx", &base);
    let child = make(dir.path(), "child.vhdx", of(&parent));
    // Opened for writing, and not written to.
    open_writable(&parent).close().unwrap();
    open(&child).unwrap();
    let chain = open_writable(&parent);
    chain.write_at(&[1], 5).unwrap();
    chain.close().unwrap();
    judge_changed(dir.path(), &child);
}

#[test]
fn a_new_child_takes_writes_and_its_parent_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let base = full_base(VhdxBuilder::new(2 * MIB));
    let disk = chain_disk(&[&base]);
    let parent = save(dir.path(), "base.vhdx", &base);
    let raw = dir.path().join("base.raw");
    std::fs::write(&raw, &disk).unwrap();
    for options in [of(&parent), of_raw(&raw)] {
        let before = [
            std::fs::read(&parent).unwrap(),
            std::fs::read(&raw).unwrap(),
        ];
        let child = make(dir.path(), "child.vhdx", options);
        let mut expected = disk.clone();
        let chain = open_writable(&child);
        for at in [700, MIB as usize - 3] {
            chain.write_at(&[9; 5], at as u64).unwrap();
            expected[at..at + 5].fill(9);
        }
        chain.close().unwrap();
        assert!(content(&open(&child).unwrap()) == expected);
        let after = [
            std::fs::read(&parent).unwrap(),
            std::fs::read(&raw).unwrap(),
        ];
        assert!(before == after);
    }
}

#[test]
fn a_raw_parent_that_was_written_to_is_refused_unless_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("base.raw");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    std::fs::write(&parent, &bytes).unwrap();
    let child = make(dir.path(), "child.vhdx", of_raw(&parent));
    let mut expected = bytes.clone();
    expected.resize(bytes.len().next_multiple_of(512), 0);
    let chain = open(&child).unwrap();
    let formats: Vec<_> = chain.links().map(|link| link.format).collect();
    assert_eq!(formats, ["vhdx", "raw"], "the child says so by itself");
    assert!(content(&chain) == expected);
    drop(chain);
    let modified = std::fs::metadata(&parent).unwrap().modified().unwrap();
    let set = |time| {
        let file = File::options().write(true).open(&parent).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    // Touched; longer; and neither.
    set(modified + Duration::from_micros(1));
    judge_changed(dir.path(), &child);
    std::fs::write(&parent, vec![1; bytes.len() + 512]).unwrap();
    set(modified);
    judge_changed(dir.path(), &child);
    std::fs::write(&parent, &bytes).unwrap();
    set(modified);
    assert!(content(&open(&child).unwrap()) == expected);
}

/// The parent in `dir` is refused to `child`, and opens all the same for those who insist.
fn judge_changed(dir: &Path, child: &Path) {
    let refused = open(child).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch, "{refused}");
    let policy = ChainPolicy::Beneath(dir.to_path_buf());
    let insisting = ChainBuilder::new(DRIVERS)
        .policy(policy)
        .verify_linkage(false);
    assert_eq!(open_with(child, &insisting).unwrap().layer_count(), 2);
}

#[test]
fn a_raw_parent_is_opened_for_no_one_who_does_not_allow_it() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("base.raw");
    std::fs::write(&parent, vec![7; 4096]).unwrap();
    let child = make(dir.path(), "child.vhdx", of_raw(&parent));
    let opener = CountingOpener::new();
    let alone = ChainBuilder::new(DRIVERS).opener(&*opener);
    let chain = open_with(&child, &alone).unwrap();
    assert!(chain.is_detached());
    assert_eq!(opener.total(), 0);
    let refused = chain.read_at(&mut [0; 512], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsParent);
}

/// What the child says of its parent's format is a stranger's word: a file that bears another mark is
/// not read as raw for it.
#[test]
fn a_declared_raw_parent_that_bears_a_mark_is_not_read_as_raw() {
    let dir = tempfile::tempdir().unwrap();
    let parent = save(
        dir.path(),
        "base.vhdx",
        &full_base(VhdxBuilder::new(2 * MIB)),
    );
    let child = make(dir.path(), "child.vhdx", of_raw(&parent));
    let refused = open(&child).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotRecognised, "{refused}");
    let trusting = ChainBuilder::new(DRIVERS).policy(ChainPolicy::Any);
    assert_eq!(open_with(&child, &trusting).unwrap().layer_count(), 2);
}

#[test]
fn a_raw_parent_that_is_in_memory_is_not_the_one_that_was_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("base.raw");
    std::fs::write(&parent, vec![7; 4096]).unwrap();
    let child = make(dir.path(), "child.vhdx", of_raw(&parent));
    let handed = |storage: Arc<dyn Storage>| {
        let handles = blockdev_core::locate::Handles::new().with("base.raw", storage);
        let policy = ChainPolicy::Handles(Arc::new(handles));
        open_with(&child, &ChainBuilder::new(DRIVERS).policy(policy))
    };
    let memory = blockdev_core::MemoryStorage::from(vec![7; 4096]);
    let refused = handed(Arc::new(memory)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch, "{refused}");
    let options = FileOptions::read_only().with_lock(LockMode::None);
    handed(Arc::new(FileStorage::open(&parent, options).unwrap())).unwrap();
}
