//! What images from strangers cannot make the library do.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diskweave::core::locate::ChainPolicy;
use diskweave::core::{BlockDevice, ErrorKind, Limits, OpenOptions, ZeroFlags};
use diskweave::vhdx::Uuid;
use diskweave::{
    CommitOptions, Comparison, ImageInfo, NewImage, NoProgress, OpenDisk, apply, check, commit,
    compare, create, rebase, stream, vhdx_child,
};
use support::{MIB, beneath, full, names, save, to_raw};
use testkit::corpus::sha256_file;
use testkit::counting::CountingOpener;
use testkit::vhdx_builder::{BlockContent, BlockData, ParentLocator, VhdxBuilder, ids};

/// A directory of images, a parent outside of it that must stay closed, and a child for each way of
/// naming it.
struct Trap {
    dir: tempfile::TempDir,
    canary: PathBuf,
    children: Vec<(&'static str, PathBuf)>,
}

fn trap() -> Trap {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    std::fs::create_dir_all(images.join("sub")).unwrap();
    // A good parent, so that whoever opens it has no reason to stop.
    let parent = full(2);
    let canary = save(dir.path(), "canary.vhdx", &parent);
    let mut children = Vec::new();
    let mut child = |what: &'static str, name: &str| {
        let image = VhdxBuilder::child_of(&parent, name)
            .block(0, BlockContent::partial(BlockData::Pattern(5), 3..9));
        children.push((what, save(&images, &format!("{what}.vhdx"), &image)));
    };
    child("dotdot", r"..\canary.vhdx");
    child("down-and-up", "sub/../../canary.vhdx");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&canary, images.join("link.vhdx")).unwrap();
        std::os::unix::fs::symlink(dir.path(), images.join("sub/up")).unwrap();
        child("symlink", "link.vhdx");
        child("nested-symlink", "sub/up/canary.vhdx");
    }
    let absolute = canary.to_str().unwrap();
    for (what, name) in [
        ("absolute", absolute.to_string()),
        ("extended", format!(r"\\?\{absolute}")),
    ] {
        let locator =
            ParentLocator::relative(ids::DEFAULT_DATA_WRITE, &name).absolute_win32_path(&name);
        let image = VhdxBuilder::new(2 * MIB).differencing(locator);
        children.push((what, save(&images, &format!("{what}.vhdx"), &image)));
    }
    // Over a file of another format, as which it is declared.
    let raw = OpenDisk::new().format("raw").open(&canary).unwrap();
    let foreign = [
        ("foreign", Path::new("../canary.vhdx")),
        ("foreign-absolute", &*canary),
    ];
    for (what, name) in foreign {
        let path = images.join(format!("{what}.vhdx"));
        let mut options = vhdx_child(&raw, name, &path).unwrap();
        let paths = &mut options.parent.as_mut().unwrap().paths;
        if name.has_root() {
            paths.relative = None;
        } else {
            paths.absolute = None;
        }
        create(&path, &NewImage::Vhdx(options), Some(2 * MIB), Some(&raw)).unwrap();
        children.push((what, path));
    }
    drop(raw);
    Trap {
        dir,
        canary,
        children,
    }
}

/// Every verb of the facade on the image at `path`, opened as `open` says. What fails, fails.
fn every_verb(open: &OpenDisk, path: &Path, scratch: &Path) {
    let _ = check(path, open);
    let Ok((disk, _)) = open.open_partial(path) else {
        return;
    };
    let _ = open.open(path);
    let _ = ImageInfo::of_chain(&disk);
    let _ = disk.extents(0, u64::MAX).count();
    let mut buf = vec![0; 1 << 20];
    let _ = disk.read_at(&mut buf, 0);
    let _ = compare(&disk, &disk, false, &NoProgress);
    let _ = to_raw(&disk, &scratch.join("raw"));
    let _ = disk.close();
    let _ = commit(path, open, &CommitOptions::default(), &NoProgress);
    let _ = stream(path, open, None, &NoProgress);
    let _ = rebase(path, open, None, &NoProgress);
    let plain = scratch.join("plain.vhdx");
    let size = Some(2 * MIB);
    let options = NewImage::Vhdx(diskweave::vhdx::CreateOptions::new(0));
    create(&plain, &options, size, None).unwrap();
    let _ = apply(path, open, &plain, &OpenDisk::new(), &NoProgress);
}

#[test]
fn by_default_no_verb_opens_anything_but_the_image_itself() {
    let trap = trap();
    for (what, child) in &trap.children {
        let opener = CountingOpener::new();
        let open = OpenDisk::new().opener(opener.clone());
        every_verb(&open, child, trap.dir.path());
        assert_eq!(opener.opens(&trap.canary), 0, "{what}");
        assert_eq!(opener.opens(child), opener.total(), "{what}");
        assert!(opener.total() > 5, "{what}: every verb opens the image");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn below_a_directory_no_name_and_no_link_leads_out_of_it() {
    use testkit::counting::Canary;
    let trap = trap();
    for (what, child) in &trap.children {
        let canary = Canary::watch(&trap.canary);
        every_verb(&beneath(child), child, trap.dir.path());
        canary.assert_never_opened();
        let refused = beneath(child).open(child).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Policy, "{what}: {refused}");
        // It is a good parent: nothing but the policy kept it closed.
        let trusting = OpenDisk::new().policy(ChainPolicy::Any);
        assert_eq!(trusting.open(child).unwrap().layer_count(), 2, "{what}");
    }
}

#[test]
fn a_format_that_the_file_contradicts_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let base = full(2);
    let child = VhdxBuilder::child_of(&base, "base.vhdx");
    let path = save(dir.path(), "child.vhdx", &child);
    // A VHDX child says that its parent is VHDX: bytes without its mark are not, nor is a qcow2.
    let mut qcow2 = vec![0; 1 << 20];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    for content in [vec![0; 1 << 20], qcow2, Vec::new()] {
        std::fs::write(dir.path().join("base.vhdx"), content).unwrap();
        let refused = beneath(&path).open(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotRecognised, "{refused}");
    }
    let raw = dir.path().join("raw");
    std::fs::write(&raw, vec![0; 1 << 20]).unwrap();
    let refused = OpenDisk::new().format("vhdx").open(&raw).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotRecognised);
    let unknown = OpenDisk::new().format("floppy").open(&raw).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);
    assert!(unknown.to_string().contains("floppy"), "{unknown}");
}

#[test]
fn a_file_of_a_format_this_build_cannot_read_is_not_taken_for_a_raw_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let marks: [(usize, &[u8], &str); 4] = [
        (0, b"KDMV\x01\0\0\0", "vmdk"),
        (0, b"# Disk DescriptorFile\n", "vmdk"),
        (64, b"\x7f\x10\xda\xbe", "vdi"),
        (0, b"conectix", "vpc"),
    ];
    for (at, mark, name) in marks {
        let mut bytes = vec![0; 8192];
        bytes[at..at + mark.len()].copy_from_slice(mark);
        std::fs::write(&path, &bytes).unwrap();
        let refused = OpenDisk::new().open(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{name}");
        assert!(refused.to_string().contains(name), "{refused}");
        // Whoever knows better may say so.
        let disk = OpenDisk::new().format("raw").open(&path).unwrap();
        assert_eq!(disk.size(), 8192);
    }
}

#[test]
fn images_that_name_each_other_in_a_ring_are_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let itself = VhdxBuilder::new(MIB)
        .data_write_guid(one)
        .differencing(ParentLocator::relative(one, "self.vhdx"));
    let itself = save(dir.path(), "self.vhdx", &itself);
    let first = VhdxBuilder::new(MIB)
        .data_write_guid(one)
        .differencing(ParentLocator::relative(two, "second.vhdx"));
    let first = save(dir.path(), "first.vhdx", &first);
    let second = VhdxBuilder::new(MIB)
        .data_write_guid(two)
        .differencing(ParentLocator::relative(one, "first.vhdx"));
    let second = save(dir.path(), "second.vhdx", &second);
    // Another name for the same file hides nothing.
    let hidden = dir.path().join("hidden.vhdx");
    std::fs::hard_link(&itself, &hidden).unwrap();
    for path in [itself, first, second, hidden] {
        for open in [beneath(&path), OpenDisk::new().policy(ChainPolicy::Any)] {
            let started = Instant::now();
            let refused = open.open(&path).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
            assert!(refused.to_string().contains("ring"), "{refused}");
            assert!(started.elapsed() < Duration::from_millis(500));
        }
    }
}

/// Images over each other, the last one the top.
fn tower(dir: &Path, depth: usize) -> PathBuf {
    let mut image = VhdxBuilder::new(MIB);
    let mut path = save(dir, "0.vhdx", &image);
    for n in 1..depth {
        image = VhdxBuilder::child_of(&image, &format!("{}.vhdx", n - 1));
        path = save(dir, &format!("{n}.vhdx"), &image);
    }
    path
}

#[test]
fn a_chain_deeper_than_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let top = tower(dir.path(), 65);
    let refused = beneath(&top).open(&top).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    let second = dir.path().join("63.vhdx");
    assert_eq!(beneath(&second).open(&second).unwrap().layer_count(), 64);
    let mut limits = Limits::default();
    limits.chain_depth = 65;
    let options = OpenOptions::read_only().with_limits(limits);
    let deeper = beneath(&top).options(options);
    assert_eq!(deeper.open(&top).unwrap().layer_count(), 65);
}

#[test]
fn a_guest_cannot_make_its_guessed_raw_disk_something_else_on_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let marks: [(u64, &[u8]); 3] = [
        (0, b"vhdxfile"),
        (0, b"QFI\xfb\0\0\0\x03"),
        (64, b"\x7f\x10\xda\xbe"),
    ];
    for (at, mark) in marks {
        std::fs::write(&path, vec![1; 64 << 10]).unwrap();
        let guessed = OpenDisk::new().options(OpenOptions::read_write());
        let disk = guessed.open(&path).unwrap();
        let refused = disk.write_at(mark, at).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Policy);
        // Nor in two steps, the second of which completes the mark.
        disk.write_at(&mark[..3], at).unwrap();
        let refused = disk.write_at(&mark[3..], at + 3).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Policy);
        disk.write_at(mark, at + 512).unwrap();
        disk.write_zeroes(0, 512, ZeroFlags::default()).unwrap();
        disk.close().unwrap();
        assert!(OpenDisk::new().open(&path).unwrap().info().format == "raw");
        // Said to be raw it is the guest's own.
        let said = guessed.format("raw").open(&path).unwrap();
        said.write_at(mark, at).unwrap();
    }
}

#[test]
fn an_image_opened_read_only_takes_no_change_by_any_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "disk.vhdx", &full(2));
    let before = sha256_file(&path);
    let disk = OpenDisk::new().open(&path).unwrap();
    testkit::conformance::refuses_changes(&disk);
    disk.close().unwrap();
    assert_eq!(sha256_file(&path), before);
}

#[test]
fn a_disk_is_never_converted_onto_itself_or_onto_what_it_is_read_from() {
    let dir = tempfile::tempdir().unwrap();
    let base = full(2);
    let parent = save(dir.path(), "base.vhdx", &base);
    let child = VhdxBuilder::child_of(&base, "base.vhdx");
    let child = save(dir.path(), "child.vhdx", &child);
    let linked = dir.path().join("linked.vhdx");
    std::fs::hard_link(&parent, &linked).unwrap();
    let before = [&parent, &child].map(|path| sha256_file(path));
    let listed = names(dir.path());
    let disk = beneath(&child).open(&child).unwrap();
    let winding = dir.path().join("./child.vhdx");
    for destination in [&child, &parent, &linked, &winding] {
        let refused = to_raw(&disk, destination).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    }
    // Nor where the lock would not tell.
    let disk = beneath(&child)
        .lock(diskweave::core::LockMode::None)
        .open(&child)
        .unwrap();
    let refused = to_raw(&disk, &parent).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!([&parent, &child].map(|path| sha256_file(path)), before);
    assert_eq!(names(dir.path()), listed);
}

#[test]
fn handles_given_by_the_caller_are_the_only_files_used() {
    use diskweave::core::locate::Handles;
    let trap = trap();
    let (_, child) = &trap.children[0];
    let opener = CountingOpener::new();
    let storage = Arc::new(support::unlocked(&trap.canary));
    let handles = Handles::new().with(r"..\canary.vhdx", storage);
    let open = OpenDisk::new()
        .opener(opener.clone())
        .policy(ChainPolicy::Handles(Arc::new(handles)));
    let disk = open.open(child).unwrap();
    assert_eq!(disk.layer_count(), 2);
    assert_eq!((opener.opens(&trap.canary), opener.total()), (0, 1));
    let parent = OpenDisk::new().open(&trap.canary).unwrap();
    let result = compare(&disk, &parent, false, &NoProgress).unwrap();
    assert!(matches!(result, Comparison::ContentDiffers { offset } if offset == 3 * 512));
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_or_a_directory_in_a_parents_place_neither_hangs_nor_opens() {
    use rustix::fs::{FileType, Mode};
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.vhdx");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    std::fs::create_dir(dir.path().join("directory.vhdx")).unwrap();
    for name in ["pipe.vhdx", "directory.vhdx"] {
        let child = VhdxBuilder::child_of(&full(1), name);
        let child = save(dir.path(), "child.vhdx", &child);
        assert!(beneath(&child).open(&child).is_err());
        let trusting = OpenDisk::new().policy(ChainPolicy::Any);
        assert!(trusting.open(&child).is_err());
        let refused = OpenDisk::new().open(dir.path().join(name)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
}
