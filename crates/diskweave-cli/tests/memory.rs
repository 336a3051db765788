//! How much memory the command takes. In a program of its own: the kernel counts what the process
//! that started a command held at that moment as the command's.

#![cfg(target_os = "linux")]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use support::{command, save};
use testkit::vhdx_builder::VhdxBuilder;

/// Peak resident memory of the command in bytes, when it has ended well.
// It is waited for by the call that tells its memory.
#[allow(clippy::zombie_processes)]
fn peak_memory(dir: &Path, line: &[&str]) -> u64 {
    let mut command = command(dir);
    let child = command.args(line).stdout(Stdio::null()).spawn().unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: `rusage` is a plain C structure of integers, for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child is ours and not waited for by anybody else; both places outlive the call.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!((waited, status), (pid, 0), "{line:?}");
    // Linux counts in KiB.
    u64::try_from(usage.ru_maxrss).unwrap() << 10
}

fn stays_below(limit: u64, dir: &Path, lines: &[&[&str]]) {
    for line in lines {
        let peak = peak_memory(dir, line);
        assert!(peak < limit, "{line:?}: {} KiB", peak >> 10);
    }
}

#[test]
fn what_an_image_makes_the_command_hold_does_not_grow_with_its_tables() {
    let dir = tempfile::tempdir().unwrap();
    // The table of blocks alone is 512 MiB long.
    save(dir.path(), "huge.vhdx", &VhdxBuilder::new(64 << 40));
    let lines: [&[&str]; 7] = [
        &["info", "huge.vhdx"],
        &["info", "--output", "json", "huge.vhdx"],
        &["map", "--output", "json", "huge.vhdx"],
        &["check", "huge.vhdx"],
        &["chain", "huge.vhdx"],
        &["sections", "huge.vhdx", "bat"],
        &["compare", "huge.vhdx", "huge.vhdx"],
    ];
    stays_below(16 << 20, dir.path(), &lines);

    // 131,072 entries that all say ZERO: held as what is shown of them, they are 80 MiB.
    let mut image = VhdxBuilder::new(128 << 30);
    for index in 0..131_072 + 31 {
        if index % 4097 != 4096 {
            image = image.raw_bat(index, 2);
        }
    }
    save(dir.path(), "full.vhdx", &image);
    drop(image);
    let lines: [&[&str]; 2] = [
        &["sections", "full.vhdx", "bat"],
        &["sections", "--output", "json", "full.vhdx", "bat"],
    ];
    stays_below(32 << 20, dir.path(), &lines);
}

#[test]
fn packing_the_largest_clusters_by_many_workers_stays_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    // Piece by piece: what is held here would be counted.
    let mut file = File::create(dir.path().join("disk.raw")).unwrap();
    for piece in 0u32..1536 {
        let bytes =
            (piece << 16..(piece + 1) << 16).map(|n| n.wrapping_mul(0x9E37_79B1).to_be_bytes()[1]);
        file.write_all(&bytes.collect::<Vec<u8>>()).unwrap();
    }
    for name in ["zlib", "zstd"] {
        let options = format!("cluster_size=2M,compression_type={name}");
        let args = ["convert", "-c", "-m", "8", "-O", "qcow2", "-o", &options];
        let first = [&args[..], &["disk.raw", "packed"]].concat();
        let second = [&args[..], &["packed", "again"]].concat();
        stays_below(128 << 20, dir.path(), &[&first, &second]);
    }
}
