//! Which curves there are, and what their axes say.

/// How an axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    Log,
}

/// One picture. The lines in it are those that were measured.
#[derive(Debug)]
pub(super) struct Curve {
    /// Of its points in the results, and of its file.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    /// Of the upright axis; the other one is always logarithmic.
    pub(super) scale: Scale,
}

const fn curve(
    name: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    scale: Scale,
) -> Curve {
    Curve {
        name,
        title,
        x,
        y,
        scale,
    }
}

const SIZE: &str = "size of the disk, GiB";
const DATA: &str = "allocated of a disk of 8 GiB, MiB";
const TIME: &str = "seconds";
const MEMORY: &str = "peak memory, MiB";
const DEPTH: &str = "images in the chain";
const RATE: &str = "MB a second";
const UNDER_WAY: &str = "requests under way at a time";
const REQUESTS: &str = "requests a second";

use Scale::{Linear, Log};

pub(super) const CURVES: &[Curve] = &[
    curve(
        "virtual-qcow2-time",
        "16 MiB of data in a qcow2, to raw",
        SIZE,
        TIME,
        Log,
    ),
    curve(
        "virtual-qcow2-memory",
        "16 MiB of data in a qcow2, to raw",
        SIZE,
        MEMORY,
        Log,
    ),
    curve(
        "virtual-vhdx-time",
        "16 MiB of data in a VHDX, to raw",
        SIZE,
        TIME,
        Log,
    ),
    curve(
        "virtual-vhdx-memory",
        "16 MiB of data in a VHDX, to raw",
        SIZE,
        MEMORY,
        Log,
    ),
    curve("allocated-qcow2-time", "qcow2 to raw", DATA, TIME, Log),
    curve("allocated-qcow2-memory", "qcow2 to raw", DATA, MEMORY, Log),
    curve("allocated-vhdx-time", "VHDX to raw", DATA, TIME, Log),
    curve("allocated-vhdx-memory", "VHDX to raw", DATA, MEMORY, Log),
    curve(
        "info-vhdx-time",
        "info on an empty VHDX, blocks of 1 MiB",
        SIZE,
        TIME,
        Log,
    ),
    curve(
        "info-vhdx-memory",
        "info on an empty VHDX, blocks of 1 MiB",
        SIZE,
        MEMORY,
        Log,
    ),
    curve(
        "check-qcow2-time",
        "check of a fully mapped qcow2",
        SIZE,
        TIME,
        Log,
    ),
    curve(
        "check-qcow2-memory",
        "check of a fully mapped qcow2",
        SIZE,
        MEMORY,
        Log,
    ),
    curve(
        "depth-qcow2-bottom",
        "qcow2 chain, all data in the lowest, 1M reads",
        DEPTH,
        RATE,
        Linear,
    ),
    curve(
        "depth-qcow2-spread",
        "qcow2 chain, data in all, 1M reads",
        DEPTH,
        RATE,
        Linear,
    ),
    curve(
        "depth-vhdx-bottom",
        "VHDX chain, all data in the lowest, 1M reads",
        DEPTH,
        RATE,
        Linear,
    ),
    curve(
        "depth-vhdx-spread",
        "VHDX chain, data in all, 1M reads",
        DEPTH,
        RATE,
        Linear,
    ),
    curve(
        "threads-qcow2-read",
        "qcow2, 4K random reads",
        UNDER_WAY,
        REQUESTS,
        Linear,
    ),
    curve(
        "threads-qcow2-overwrite",
        "qcow2, 4K random overwrites",
        UNDER_WAY,
        REQUESTS,
        Linear,
    ),
    curve(
        "threads-vhdx-read",
        "VHDX, 4K random reads",
        UNDER_WAY,
        REQUESTS,
        Linear,
    ),
    curve(
        "threads-vhdx-overwrite",
        "VHDX, 4K random overwrites",
        UNDER_WAY,
        REQUESTS,
        Linear,
    ),
];
