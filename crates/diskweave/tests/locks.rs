//! Other processes: QEMU's tools respect our locks and we respect theirs.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use diskweave::OpenDisk;
use diskweave::core::{ErrorKind, FileOptions, FileStorage, LockMode, OpenOptions};
use support::MIB;
use testkit::oracle::{QemuImg, QemuIo};

struct Tools {
    img: QemuImg,
    io: QemuIo,
    _alone: MutexGuard<'static, ()>,
}

fn tools() -> Option<Tools> {
    // One test at a time: a process that another test starts shares our open files, and with them
    // our locks, for the moment before it becomes another program.
    static ALONE: Mutex<()> = Mutex::new(());
    Some(Tools {
        img: QemuImg::find()?,
        io: QemuIo::find()?,
        _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
    })
}

/// An image made by QEMU, and the format that this library opens it as.
fn images(tools: &Tools, dir: &tempfile::TempDir) -> Vec<(PathBuf, &'static str, &'static str)> {
    // The lock is the file's, whatever is in it: a qcow2 is just bytes here.
    let images = [("vhdx", "vhdx"), ("raw", "raw"), ("qcow2", "raw")];
    images
        .map(|(format, ours)| {
            let path = dir.path().join(format);
            tools.img.create(format, &path, 8 * MIB, "").unwrap();
            (path, format, ours)
        })
        .to_vec()
}

fn locked<T: std::fmt::Debug>(result: diskweave::core::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Locked);
}

#[test]
fn an_image_that_qemu_writes_to_is_locked_for_us_unless_unprotected() {
    let Some(tools) = tools() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (path, format, ours) in images(&tools, &dir) {
        let held = tools.io.hold_writable(format, &path).unwrap();
        let open = OpenDisk::new().format(ours);
        locked(open.open(&path));
        locked(FileStorage::open(&path, FileOptions::read_write()));
        locked(diskweave::check(&path, &open));
        open.clone()
            .lock(LockMode::Unprotected)
            .open(&path)
            .unwrap();
        drop(held);
        open.open(&path).unwrap();
    }
}

#[test]
fn an_image_that_qemu_reads_may_be_read_and_not_written() {
    let Some(tools) = tools() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (path, format, ours) in images(&tools, &dir) {
        let held = tools.io.hold_read_only(format, &path).unwrap();
        let disk = OpenDisk::new().format(ours).open(&path).unwrap();
        locked(FileStorage::open(&path, FileOptions::read_write()));
        drop(held);
        // Two readers of ours are no harm either, and a third of QEMU's.
        let second = OpenDisk::new().format(ours).open(&path).unwrap();
        tools.img.info(format, &path).unwrap();
        drop((disk, second));
        FileStorage::open(&path, FileOptions::read_write()).unwrap();
    }
}

#[test]
fn an_image_that_we_write_to_is_locked_for_qemu() {
    let Some(tools) = tools() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (path, format, ours) in images(&tools, &dir) {
        let writable = OpenDisk::new()
            .format(ours)
            .options(OpenOptions::read_write());
        let disk = writable.open(&path).unwrap();
        let says_locked = |complaint: String| {
            assert!(complaint.contains("lock"), "{format}: {complaint}");
        };
        says_locked(tools.io.hold_writable(format, &path).unwrap_err());
        if format != "raw" {
            // Of a raw disk QEMU lets readers and a writer share.
            let copy = dir.path().join("copy");
            says_locked(tools.img.info(format, &path).unwrap_err());
            says_locked(tools.img.to_raw(format, &path, &copy).unwrap_err());
            says_locked(tools.io.hold_read_only(format, &path).unwrap_err());
        }
        drop(disk);
        tools.img.info(format, &path).unwrap();
    }
}

#[test]
fn an_image_that_we_read_can_be_read_by_qemu_and_not_written() {
    let Some(tools) = tools() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (path, format, ours) in images(&tools, &dir) {
        let disk = OpenDisk::new().format(ours).open(&path).unwrap();
        tools.img.info(format, &path).unwrap();
        let reader = tools.io.hold_read_only(format, &path).unwrap();
        let complaint = tools.io.hold_writable(format, &path).unwrap_err();
        assert!(complaint.contains("lock"), "{format}: {complaint}");
        drop((disk, reader));
        drop(tools.io.hold_writable(format, &path).unwrap());
    }
}

#[test]
fn a_parent_that_another_process_writes_to_is_locked_and_its_child_says_so() {
    let Some(tools) = tools() else { return };
    let dir = tempfile::tempdir().unwrap();
    let base = support::full(2);
    let parent = support::save(dir.path(), "base.vhdx", &base);
    let child = testkit::vhdx_builder::VhdxBuilder::child_of(&base, "base.vhdx");
    let child = support::save(dir.path(), "child.vhdx", &child);
    let held = tools.io.hold_writable("vhdx", &parent).unwrap();
    let refused = support::beneath(&child).open(&child).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    assert!(refused.to_string().contains("base.vhdx"), "{refused}");
    let torn = support::beneath(&child).lock(LockMode::Unprotected);
    assert_eq!(torn.open(&child).unwrap().layer_count(), 2);
    drop(held);
    // And held for as long as the chain is open.
    let chain = support::beneath(&child).open(&child).unwrap();
    assert!(tools.io.hold_writable("vhdx", &parent).is_err());
    drop(chain);
}
