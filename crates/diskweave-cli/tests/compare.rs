//! `compare`: text and exit codes, those of `qemu-img`.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use support::{MIB, dw, family_dir, names};
use testkit::oracle::QemuImg;

#[test]
fn what_is_said_and_returned_is_what_qemu_img_says_and_returns() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, len: u64, data: &[(u64, &[u8])]| {
        let file = File::create(dir.path().join(name)).unwrap();
        file.set_len(len).unwrap();
        for (at, bytes) in data {
            file.write_all_at(bytes, *at).unwrap();
        }
    };
    make("hole", 4 * MIB, &[]);
    make("zeros", 4 * MIB, &[(0, &[0; 4096])]);
    make("one", 4 * MIB, &[(MIB + 777, b"x")]);
    make("longer", 5 * MIB, &[]);
    make("tail", 5 * MIB, &[(4 * MIB + 5000, b"x")]);
    let all = names(dir.path());
    for first in &all {
        for second in &all {
            for flags in [&[][..], &["-s"], &["-q"]] {
                let mut args = vec!["compare", "-f", "raw", "-F", "raw"];
                args.extend(flags);
                let paths = [first, second].map(|name| dir.path().join(name));
                args.extend(paths.iter().map(|path| path.to_str().unwrap()));
                let theirs = qemu.run(&args);
                let ours = support::run(dir.path(), &args);
                let said = String::from_utf8(theirs.stdout).unwrap();
                if said.starts_with("Strict mode: Offset") {
                    // The end of the file in one run and not in the other is a mismatch to QEMU,
                    // so it tells of an earlier place.
                    assert!(ours.out.starts_with("Strict mode: Offset"), "{args:?}");
                } else {
                    assert_eq!(ours.out, said, "{args:?}");
                }
                assert_eq!(Some(ours.code), theirs.code, "{args:?}");
                assert_eq!(ours.err, "");
            }
        }
    }
}

#[test]
fn a_failure_is_never_taken_for_a_difference() {
    let dir = family_dir();
    for line in [
        "compare gone base.vhdx",
        "compare base.vhdx gone",
        "compare -F vhdx base.vhdx child.vhdx -f floppy",
        "compare --parents none child.vhdx base.vhdx",
    ] {
        dw(dir.path(), line).fails(2);
    }
    for line in ["compare", "compare base.vhdx", "compare --nonsense a b"] {
        assert_eq!(dw(dir.path(), line).code, 2, "{line}");
    }
    assert_eq!(dw(dir.path(), "compare --help").code, 0);
}

#[test]
fn a_disk_is_the_same_in_any_format() {
    let dir = family_dir();
    dw(dir.path(), "convert -q child.vhdx raw").ok();
    assert_eq!(
        dw(dir.path(), "compare child.vhdx raw").ok(),
        "Images are identical.\n"
    );
    assert_eq!(dw(dir.path(), "compare -q raw child.vhdx").ok(), "");
    let differ = dw(dir.path(), "compare child.vhdx base.vhdx");
    assert_eq!(
        (differ.code, differ.out.as_str()),
        (1, "Content mismatch at offset 4096!\n")
    );
}
