//! `dd` and `bench` under the command's own name, and options that are taken for scripts' sake.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::run;

#[test]
fn a_part_of_a_disk_is_what_the_disk_has_there() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| (n / 512 % 251) as u8).collect();
    fs::write(dir.path().join("disk"), &bytes).unwrap();
    let image = ["create", "-f", "qcow2", "image", "1M"];
    run(dir.path(), &image).ok();
    let fill = ["convert", "-n", "-f", "raw", "-O", "qcow2", "disk", "image"];
    run(dir.path(), &fill).ok();
    let part = ["dd", "if=image", "of=part", "bs=64k", "skip=2", "count=5"];
    run(dir.path(), &part).ok();
    let part = fs::read(dir.path().join("part")).unwrap();
    assert!(part == bytes[2 << 16..5 << 16], "{} bytes", part.len());
    for wrong in [
        &["dd", "if=image"][..],
        &["dd", "if=image", "of=x", "seek=1"],
        &["dd", "if=image", "of=x", "bs=64k", "skip=99"],
    ] {
        run(dir.path(), wrong).fails(1);
        assert!(!dir.path().join("x").exists(), "{wrong:?}");
    }
}

#[test]
fn requests_are_counted_and_what_is_written_is_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("disk"), vec![0; 1 << 20]).unwrap();
    let read = ["bench", "-f", "raw", "-c", "100", "-d", "4", "disk"];
    let told = run(dir.path(), &read).ok();
    assert!(
        told.starts_with("100 read requests of 4096 bytes in "),
        "{told}"
    );
    let write = [
        "bench",
        "-f",
        "raw",
        "-w",
        "--pattern",
        "7",
        "-c",
        "10",
        "-o",
        "64k",
        "disk",
    ];
    run(dir.path(), &write).ok();
    let disk = fs::read(dir.path().join("disk")).unwrap();
    let written = 64 << 10..(64 << 10) + 10 * 4096;
    for (at, byte) in disk.iter().enumerate() {
        assert_eq!(
            *byte,
            if written.contains(&at) { 7 } else { 0 },
            "byte {at}"
        );
    }
}

#[test]
fn cache_modes_of_scripts_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("disk"), vec![1; 1 << 20]).unwrap();
    let convert = [
        "convert",
        "-t",
        "none",
        "-T",
        "writeback",
        "-O",
        "qcow2",
        "-f",
        "raw",
        "disk",
        "image",
    ];
    run(dir.path(), &convert).ok();
    let compare = ["compare", "-T", "unsafe", "-f", "raw", "disk", "image"];
    run(dir.path(), &compare).ok();
    let wrong = ["convert", "-t", "some", "disk", "other"];
    assert_eq!(run(dir.path(), &wrong).code, 1);
}

/// The ways past the page cache must not change what is read and written.
#[cfg(target_os = "linux")]
#[test]
fn requests_past_the_page_cache_do_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let image = ["create", "-f", "qcow2", "image", "8M"];
    run(dir.path(), &image).ok();
    for (number, how) in [
        &["-t", "none"][..],
        &["-t", "none", "--aio", "io_uring"],
        &["-i", "io_uring"],
        &["-t", "directsync"],
    ]
    .into_iter()
    .enumerate()
    {
        let (place, pattern) = (format!("{}k", number * 1000 + 3), (number + 1).to_string());
        let write = [
            "bench", "-f", "qcow2", "-w", "-c", "20", "-d", "2", "-s", "6k",
        ];
        let write = [
            &write[..],
            how,
            &["--pattern", &pattern, "-o", &place, "image"],
        ]
        .concat();
        run(dir.path(), &write).ok();
        let read = ["bench", "-f", "qcow2", "-c", "20", "-d", "2", "-s", "300k"];
        run(dir.path(), &[&read[..], how, &["image"]].concat()).ok();
    }
    let convert = ["convert", "-T", "none", "-f", "qcow2", "image", "direct"];
    run(dir.path(), &convert).ok();
    let disk = fs::read(dir.path().join("direct")).unwrap();
    for number in 0..4 {
        let start = (number * 1000 + 3) << 10;
        let written = &disk[start..start + 20 * (6 << 10)];
        assert!(
            written.iter().all(|byte| usize::from(*byte) == number + 1),
            "{number}"
        );
        assert_eq!(disk[start - 1], 0, "{number}");
    }
    let same = [
        "compare", "-T", "off", "-f", "qcow2", "-F", "raw", "image", "direct",
    ];
    run(dir.path(), &same).ok();
    run(dir.path(), &["check", "-T", "none", "-f", "qcow2", "image"]).ok();
}
