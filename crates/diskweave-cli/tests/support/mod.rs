//! Running the command, and images to run it on.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

pub(crate) const MIB: u64 = 1 << 20;

/// What the command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// The answer of a command that must succeed.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        assert_eq!(self.err, "", "{self:?}");
        self.out
    }

    /// The answer of a command that must succeed, as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The complaint of a command that must fail with `code`.
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        let first = self.err.lines().next().unwrap_or_default();
        assert!(first.starts_with("diskweave: "), "{self:?}");
        self.err
    }
}

/// The command, to be run in `dir`.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskweave"));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// Runs the command in `dir`.
pub(crate) fn run<A: AsRef<OsStr>>(dir: &Path, args: &[A]) -> Said {
    let output = command(dir).args(args).output().unwrap();
    Said {
        code: output.status.code().expect("it ended by itself"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `line`, split at spaces, in `dir`.
pub(crate) fn dw(dir: &Path, line: &str) -> Said {
    run(dir, &line.split(' ').collect::<Vec<_>>())
}

/// Saves `image` in `dir` as `name`.
pub(crate) fn save(dir: &Path, name: &str, image: &VhdxBuilder) -> PathBuf {
    let path = dir.join(name);
    image.build().save(&path).unwrap();
    path
}

pub(crate) fn pattern(seed: u64) -> BlockContent {
    BlockContent::full(BlockData::Pattern(seed))
}

/// A parent of 4 MiB with three blocks of data, and a child with a part of one, and zeros.
pub(crate) fn family() -> (VhdxBuilder, VhdxBuilder) {
    let base = VhdxBuilder::new(4 * MIB)
        .block(0, pattern(1))
        .block(1, pattern(2))
        .block(3, pattern(3));
    let child = VhdxBuilder::child_of(&base, r".\base.vhdx")
        .block(0, BlockContent::partial(BlockData::Pattern(4), 8..24))
        .block(1, BlockContent::Zero);
    (base, child)
}

/// A directory with `base.vhdx` and `child.vhdx` of [`family`].
pub(crate) fn family_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (base, child) = family();
    save(dir.path(), "base.vhdx", &base);
    save(dir.path(), "child.vhdx", &child);
    dir
}

/// An image whose newest block only its log knows.
pub(crate) fn dirty() -> VhdxBuilder {
    VhdxBuilder::new(4 * MIB)
        .block(0, pattern(1))
        .pending_block(2, pattern(2))
}

/// The files in `dir`, by name, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
