//! Kinds of images as both programs are asked for them, and the conversions between them.

use std::path::Path;
use std::process::Command;

use super::process::Launcher;
use crate::disk_content;
use crate::sh::{self, Outcome};

pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) format: &'static str,
    options: &'static [&'static str],
}

const fn kind(name: &'static str, format: &'static str, options: &'static [&'static str]) -> Kind {
    Kind {
        name,
        format,
        options,
    }
}

pub(super) const PLAIN: [Kind; 3] = [
    kind("raw", "raw", &[]),
    kind("qcow2", "qcow2", &[]),
    kind("vhdx", "vhdx", &[]),
];

const PACKED: [Kind; 2] = [
    kind("qcow2-zlib", "qcow2", &["-c"]),
    kind(
        "qcow2-zstd",
        "qcow2",
        &["-c", "-o", "compression_type=zstd"],
    ),
];

/// What `qemu-img` does best with where nothing is packed.
pub(super) const FAST: &[&str] = &["-m", "16", "-W"];
/// And where something is.
const PACKING: &[&str] = &["-m", "2"];

/// One conversion. Its source lies under the name of its kind.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) source: &'static Kind,
    pub(super) target: &'static Kind,
}

/// Every source to what is not packed, and raw to what is.
pub(super) fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for source in PLAIN.iter().chain(&PACKED) {
        pairs.extend(PLAIN.iter().map(|target| Pair { source, target }));
    }
    let source = &PLAIN[0];
    pairs.extend(PACKED.iter().map(|target| Pair { source, target }));
    pairs
}

/// Makes the sources, of disks of `size` bytes.
pub(super) fn make(launcher: &Launcher, size: u64) -> Outcome {
    println!("making the sources, {} MiB each …", size >> 20);
    disk_content::save(&launcher.dir().join("raw"), size)?;
    for target in PLAIN.iter().skip(1).chain(&PACKED) {
        let source = &PLAIN[0];
        let pair = Pair { source, target };
        sh::output(&mut pair.theirs(launcher, FAST, target.name))?;
    }
    Ok(())
}

impl Pair {
    pub(super) fn name(self) -> String {
        format!("{} -> {}", self.source.name, self.target.name)
    }

    /// The flags that `qemu-img` is asked with.
    pub(super) fn flags(self) -> &'static [&'static str] {
        let is_packed = |kind: &Kind| PACKED.iter().any(|packed| packed.name == kind.name);
        if is_packed(self.source) || is_packed(self.target) {
            PACKING
        } else {
            FAST
        }
    }

    pub(super) fn ours(self, launcher: &Launcher, diskweave: &Path) -> Command {
        let mut command = launcher.command(diskweave, &["convert", "-f", self.source.format]);
        command.args(["-O", self.target.format]);
        command
            .args(self.target.options)
            .args([self.source.name, TARGET]);
        command
    }

    pub(super) fn theirs(self, launcher: &Launcher, flags: &[&str], to: &str) -> Command {
        let mut command = launcher.command(Path::new("qemu-img"), &["convert"]);
        command.args(flags).args(["-f", self.source.format]);
        command
            .args(["-O", self.target.format])
            .args(self.target.options);
        command.args([self.source.name, to]);
        command
    }

    /// Nobody is to be fast at the wrong thing.
    pub(super) fn is_the_same(self, launcher: &Launcher) -> Outcome {
        let mut command = launcher.command(Path::new("qemu-img"), &["compare"]);
        command.args(["-f", self.source.format, "-F", self.target.format]);
        sh::output(command.args([self.source.name, TARGET])).map(drop)
    }
}

/// Where conversions go.
pub(super) const TARGET: &str = "target";
