//! The chains that are read.

use std::fs;
use std::path::{Path, PathBuf};

use diskweave::core::BlockDevice;
use diskweave::core::locate::ChainPolicy;
use diskweave::{NewImage, OpenDisk, chain, qcow2, vhdx_child};

use crate::Outcome;
use crate::engine::text;
use crate::job::Random;
use crate::place::{rewrite, stored};
use crate::qemu;

/// Bytes that lie in one image together.
const UNIT: u64 = 64 << 10;

/// Which formats follow each other, from the lowest image up, over and over.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    formats: &'static [&'static str],
}

pub(crate) const KINDS: [Kind; 3] = [
    Kind {
        name: "qcow2",
        formats: &["qcow2"],
    },
    Kind {
        name: "vhdx",
        formats: &["vhdx"],
    },
    Kind {
        name: "mixed",
        formats: &["qcow2", "vhdx"],
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Bottom,
    Spread,
}

impl Layout {
    pub(crate) const ALL: [Self; 2] = [Self::Bottom, Self::Spread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bottom => "bottom",
            Self::Spread => "spread",
        }
    }
}

impl Kind {
    /// The format of image number `number`, from the lowest up.
    pub(crate) fn format(&self, number: usize) -> &'static str {
        self.formats[number % self.formats.len()]
    }

    fn path(&self, dir: &Path, number: usize) -> PathBuf {
        dir.join(format!("{number}.{}", self.format(number)))
    }
}

/// Opens `path` with all that it names.
pub(crate) fn open(path: &Path, format: &str, is_writable: bool) -> Outcome<chain::Chain> {
    let open = OpenDisk::new().format(format).policy(ChainPolicy::Any);
    let open = if is_writable { open.writable() } else { open };
    open.open(path).map_err(text)
}

/// Makes in `dir` a chain of so many images with a disk of `size` bytes; gives the top's path.
pub(crate) fn make(
    kind: &Kind,
    layout: Layout,
    depth: usize,
    dir: &Path,
    size: u64,
) -> Outcome<PathBuf> {
    fs::create_dir(dir).map_err(text)?;
    let base = kind.path(dir, 0);
    if layout == Layout::Bottom || depth == 1 {
        let raw = dir.join("raw");
        let pieces: Vec<u8> = (0..size).step_by(1 << 20).flat_map(stored).collect();
        fs::write(&raw, pieces).map_err(text)?;
        qemu::convert(&raw, &base, kind.format(0), options(kind.format(0)))?;
        fs::remove_file(raw).map_err(text)?;
        rewrite(&base)?;
    } else {
        qemu::create(&base, kind.format(0), size, &[])?;
        fill(&base, kind.format(0), size, 0, depth)?;
    }
    let mut top = base;
    for number in 1..depth {
        let child = kind.path(dir, number);
        overlay(&child, kind.format(number), &top, kind.format(number - 1))?;
        if layout == Layout::Spread {
            fill(&child, kind.format(number), size, number, depth)?;
        }
        top = child;
    }
    check(&top, kind.format(depth - 1), size)?;
    Ok(top)
}

fn options(format: &str) -> &'static [&'static str] {
    match format {
        "vhdx" => &["-o", "subformat=dynamic,block_size=2M"],
        _ => &["-S", "0"],
    }
}

/// Makes `child` over `parent`, which lies beside it.
pub(crate) fn overlay(child: &Path, format: &str, parent: &Path, below: &str) -> Outcome {
    let disk = open(parent, below, false)?;
    diskweave::create(
        child,
        &image(child, format, parent, below, &disk)?,
        None,
        Some(&disk),
    )
    .map_err(text)
}

/// What is to be made for `child`.
pub(crate) fn image(
    child: &Path,
    format: &str,
    parent: &Path,
    below: &str,
    disk: &chain::Chain,
) -> Outcome<NewImage> {
    let name = parent.file_name().ok_or("a parent has a name")?;
    if format == "vhdx" {
        return vhdx_child(disk, name, child)
            .map(NewImage::Vhdx)
            .map_err(text);
    }
    let mut create = qcow2::CreateOptions::new(0);
    create.backing = Some(qcow2::Backing {
        name: name.to_string_lossy().into_owned(),
        format: below.into(),
    });
    Ok(NewImage::Qcow2(create))
}

/// Writes what image number `number` of `depth` is to hold.
fn fill(path: &Path, format: &str, size: u64, number: usize, depth: usize) -> Outcome {
    let disk = open(path, format, true)?;
    // The same for all of them.
    let mut random = Random::new(3);
    for at in (0..size).step_by(1 << 20) {
        let piece = stored(at);
        for (unit, bytes) in (0..).zip(piece.chunks(1 << 16)) {
            if random.below(depth as u64) == number as u64 {
                disk.write_at(bytes, at + unit * UNIT).map_err(text)?;
            }
        }
    }
    disk.flush().map_err(text)?;
    disk.close().map_err(text)
}

/// Nobody is to be fast at the wrong thing.
fn check(top: &Path, format: &str, size: u64) -> Outcome {
    let disk = open(top, format, false)?;
    let mut buf = vec![0; 1 << 20];
    for at in (0..size).step_by(1 << 20) {
        disk.read_at(&mut buf, at).map_err(text)?;
        if buf != stored(at) {
            return Err(format!("{}: another mebibyte at {at:#x}", top.display()));
        }
    }
    Ok(())
}
