//! Keeping what a disk was: inside the image, and in an overlay.
//!
//! `cargo run --example snapshots`

// An example shows what it does.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use diskweave::core::BlockDevice;
use diskweave::core::locate::ChainPolicy;
use diskweave::{
    ChildImage, CreateBase, OpenDisk, Search, SnapshotChange, SnapshotName, change_snapshot,
    create_base, dependents, fork,
};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    for line in run(dir.path())? {
        println!("{line}");
    }
    Ok(())
}

/// Does it all in `dir`, and tells what the disk read at each point.
pub fn run(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut told = Vec::new();
    let path = dir.join("disk.qcow2");
    let open = OpenDisk::new().policy(ChainPolicy::Beneath(dir.to_path_buf()));
    create_base(&path, 1 << 30, &CreateBase::new())?;
    write(&open, &path, "installed")?;

    // Inside: a snapshot is taken, the disk goes on, and goes back.
    snapshot(&open, &path, SnapshotChange::Create("clean".into()))?;
    write(&open, &path, "broken   ")?;
    told.push(format!("after the accident: {}", read(&open, &path)?));
    let clean = SnapshotName::Name("clean".into());
    let as_it_was = open.clone().snapshot(clean);
    told.push(format!("the snapshot: {}", read(&as_it_was, &path)?));
    snapshot(&open, &path, SnapshotChange::Apply("clean".into()))?;
    snapshot(&open, &path, SnapshotChange::Delete("clean".into()))?;
    told.push(format!("gone back: {}", read(&open, &path)?));

    // Outside: what the disk is now becomes a base, which nobody writes to, and the disk an overlay.
    let monday = dir.join("monday.qcow2");
    fork(&path, &monday, &open, &ChildImage::LikeBase)?;
    write(&open, &path, "tuesday  ")?;
    told.push(format!("the overlay: {}", read(&open, &path)?));
    told.push(format!("the base: {}", read(&open, &monday)?));
    let found = dependents(&monday, dir, &Search::new())?;
    told.push(format!("the base may go: {}", found.is_free()));

    // Back to the base: the overlay goes, and the base has its name again.
    std::fs::rename(&monday, &path)?;
    told.push(format!("monday again: {}", read(&open, &path)?));
    Ok(told)
}

fn write(open: &OpenDisk, path: &Path, text: &str) -> diskweave::core::Result<()> {
    let disk = open.clone().writable().open(path)?;
    disk.write_at(text.as_bytes(), 0)?;
    disk.flush()?;
    disk.close()
}

fn read(open: &OpenDisk, path: &Path) -> Result<String, Box<dyn Error>> {
    let mut bytes = [0; 9];
    open.open(path)?.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8(bytes.into())?.trim_end().into())
}

fn snapshot(open: &OpenDisk, path: &Path, change: SnapshotChange) -> diskweave::core::Result<()> {
    let mut disk = open.clone().writable().open(path)?;
    change_snapshot(&mut disk, &change)?;
    disk.close()
}
