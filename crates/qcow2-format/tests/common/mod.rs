//! What several tests of this crate need.
#![allow(dead_code, clippy::unwrap_used)] // each test binary takes its part; helpers fail as tests do

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use blockdev_core::{CheckReport, FileOptions, FileStorage, MemoryStorage, Storage};
use qcow2_format::{OpenOptions, Qcow2Image};
use testkit::oracle::{QemuImg, QemuIo};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn file(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, FileOptions::read_only()).expect("the file can be opened"))
}

pub(crate) fn memory(bytes: &[u8]) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::from(bytes.to_vec()))
}

pub(crate) fn open(storage: Arc<dyn Storage>) -> blockdev_core::Result<Qcow2Image> {
    Qcow2Image::open(storage, &OpenOptions::read_only())
}

pub(crate) fn check(storage: Arc<dyn Storage>) -> blockdev_core::Result<CheckReport> {
    qcow2_format::check(storage, &OpenOptions::read_only())
}

pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).expect("a small number")
}

/// The tools that make and judge images.
pub(crate) fn qemu() -> Option<(QemuImg, QemuIo)> {
    Some((QemuImg::find()?, QemuIo::find()?))
}

/// An image made by `qemu-img create` with `options` and written to by `qemu-io`.
pub(crate) fn made(dir: &Path, name: &str, size: u64, options: &str, commands: &[&str]) -> Vec<u8> {
    let (img, io) = qemu().expect("the caller looked for it");
    let path = dir.join(name);
    img.create("qcow2", &path, size, options)
        .unwrap_or_else(|error| panic!("{options}: {error}"));
    if !commands.is_empty() {
        io.run("qcow2", &path, commands)
            .unwrap_or_else(|error| panic!("{options}: {error}"));
    }
    std::fs::read(&path).unwrap()
}

pub(crate) fn be32(image: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(image[at..at + 4].try_into().unwrap())
}

pub(crate) fn be64(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

pub(crate) fn set32(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn set64(image: &mut [u8], at: usize, value: u64) {
    image[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Where the first L2 table lies, and where its first entry that is not 0.
pub(crate) fn first_l2(image: &[u8]) -> (usize, usize) {
    let l1 = index(be64(image, 40));
    let table = (0..)
        .map(|n| be64(image, l1 + n * 8))
        .find(|entry| *entry != 0);
    let table = index(table.unwrap() & 0x00FF_FFFF_FFFF_FE00);
    let entry = (0..)
        .map(|n| table + n * 8)
        .find(|at| be64(image, *at) != 0);
    (table, entry.unwrap())
}

/// Runs `body`, which must come to its end within `most`.
pub(crate) fn quickly(what: &str, most: Duration, body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let (done, wait) = channel();
        scope.spawn(move || {
            body();
            let _ = done.send(());
        });
        if wait.recv_timeout(most) == Err(RecvTimeoutError::Timeout) {
            // The thread cannot be stopped, and waiting for it would hang the run.
            let _ = writeln!(std::io::stderr(), "{what} takes longer than {most:?}");
            std::process::abort();
        }
    });
}
