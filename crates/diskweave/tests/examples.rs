//! The examples do what they say.

// Here a failure is a panic; each example also has a `main`, which is not run here.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::path::Path;
use std::time::Duration;

#[path = "../examples/cow_pool.rs"]
mod cow_pool;
#[path = "../examples/read_ext4.rs"]
mod read_ext4;
#[path = "../examples/snapshots.rs"]
mod snapshots;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_file_is_read_out_of_ext4_in_a_mixed_chain() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        read_ext4::run(dir.path()).unwrap(),
        "Read out of an ext4 file system, in a partition, in a chain of images.\n"
    );
    assert_eq!(names(dir.path()), ["base.vhdx", "middle.vhdx", "top.qcow2"]);
}

#[test]
fn snapshots_inside_and_outside_keep_what_the_disk_was() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        snapshots::run(dir.path()).unwrap(),
        [
            "after the accident: broken",
            "the snapshot: installed",
            "gone back: installed",
            "the overlay: tuesday",
            "the base: installed",
            "the base may go: false",
            "monday again: installed",
        ]
    );
    assert_eq!(names(dir.path()), ["disk.qcow2"]);
}

#[test]
fn the_disks_of_a_pool_are_made_at_once_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let times = cow_pool::run(dir.path()).unwrap();
    assert_eq!(times.len(), 64);
    assert_eq!(names(dir.path()), ["base.qcow2"]);
    // A thousand times what is needed on a machine that has nothing else to do: no copy of anything
    // is that fast.
    assert!(times[32] < Duration::from_secs(1), "{:?}", times[32]);
}
