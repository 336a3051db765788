//! Disk images of any format, and chains that mix them.
//!
//! ```text
//!   diskweave ──► chain ──────────────► core
//!       ├─ feature vhdx  ──► vhdx  ───► core
//!       └─ feature qcow2 ──► qcow2 ───► core
//! ```
//!
//! | to | call |
//! | --- | --- |
//! | find out what a file is | [`probe`] |
//! | open a disk with its parents | [`OpenDisk`] |
//! | tell what an image is made of | [`ImageInfo`] |
//! | compare two disks | [`compare`] |
//! | check an image | [`check`] |
//! | make an empty image | [`create()`]; over a parent of its own or another format, a VHDX by `vhdx_child` |
//! | make an empty disk unless it is there | [`create_base`] |
//! | make a child that reads as its base, at once | [`clone_disk`], [`clone_all`] |
//! | put a child in a disk's place | [`fork`] |
//! | find out who needs a file, before it goes | [`dependents()`], [`depends_on`] |
//! | have a disk go with its handle | [`OwnedDisk`] |
//! | tell a disk's size or what it is over | [`virtual_size`], [`backing_of`], [`parents_of`] |
//! | give a disk to who reads a [`std::io`] stream | [`DeviceCursor`] |
//! | write a disk out as another image | [`convert`], [`convert_over`], [`convert_into`], [`flatten()`] |
//! | move what upper images hold into a lower one | [`commit()`] |
//! | put another disk below an image | [`rebase()`], [`stream()`], [`relink()`] |
//! | tell where two disks differ, and take that elsewhere | [`chain::Differences`], [`apply()`] |
//!
//! An image from a stranger is opened alone: whatever other file it names stays closed until the
//! caller hands over a [`ChainPolicy`](core::locate::ChainPolicy).
//!
//! # Example
//!
//! ```no_run
//! use diskweave::core::BlockDevice;
//! use diskweave::core::locate::ChainPolicy;
//! use diskweave::OpenDisk;
//!
//! let disk = OpenDisk::new().policy(ChainPolicy::Beneath("images".into())).open("images/child.vhdx")?;
//! let mut boot_sector = [0; 512];
//! disk.read_at(&mut boot_sector, 0)?;
//! println!("{} bytes in {} layers", disk.size(), disk.layer_count());
//! # Ok::<(), diskweave::core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod amend;
mod apply;
mod check;
mod commit;
mod compare;
mod convert;
mod create;
mod flatten;
mod foreign;
#[cfg(all(feature = "qcow2", feature = "vhdx"))]
#[doc(hidden)]
pub mod fuzz;
mod info;
mod names;
mod open;
mod rebase;
mod registry;
mod relink;
mod snapshot;

// For embedders.
mod clone;
mod create_base;
mod dependents;
mod fork;
mod identity;
mod owned;
mod place;
mod reading;
#[cfg(feature = "serde")]
mod serialise;

pub use blockdev_chain as chain;
pub use blockdev_core as core;
#[cfg(feature = "qcow2")]
pub use qcow2_format as qcow2;
#[cfg(feature = "vhdx")]
pub use vhdx_format as vhdx;

pub use amend::{Amend, amend};
pub use apply::apply;
pub use blockdev_core::{NoProgress, Progress};
pub use check::{Checked, Repaired, check, repair};
pub use commit::{CommitOptions, Committed, commit};
pub use compare::{Comparison, compare};
pub use convert::{
    ConvertOptions, RawOptions, RawPreallocation, Source, convert, convert_into, convert_into_disk,
    convert_into_storage, convert_over, convert_to_raw,
};
pub use create::create;
pub use flatten::flatten;
pub use info::ImageInfo;
pub use open::OpenDisk;
pub use rebase::{rebase, stream};
#[cfg(feature = "vhdx")]
pub use registry::vhdx_child;
pub use registry::{
    Compacted, NewImage, SnapshotChange, change_snapshot, compact, driver, drivers, probe, resize,
};
pub use relink::{forget_parent, relink};
pub use snapshot::SnapshotName;

pub use blockdev_core::DeviceCursor;
pub use clone::{ChildImage, CloneOptions, Naming, clone_all, clone_disk};
pub use create_base::{CreateBase, Existing, create_base};
pub use dependents::{Dependence, Dependents, Search, dependents, depends_on};
pub use fork::{Forked, fork};
pub use owned::OwnedDisk;
pub use reading::{backing_of, parents_of, virtual_size};

/// The README's example is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
