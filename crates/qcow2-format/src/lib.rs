//! qcow2 images, versions 2 and 3: read, described, checked, made, written to, repaired.
//!
//! ```text
//!   crate root   Qcow2Image, Qcow2Driver, errors
//!      │
//!     io/        one verb per file: open, read, extents …         the only floor with a Storage
//!      │
//!    meta/       what the header allows, what an entry means      no I/O
//!      │
//!   ondisk/      bytes and fields
//! ```
//!
//! Cluster sizes from 512 bytes to 2 MiB; standard, zero and compressed clusters (deflate, zstd);
//! extended L2 entries; external data files; internal snapshots. Images that are dirty or marked
//! corrupt are read. Encrypted images are refused by the name of their method.
//!
//! | to | call |
//! | --- | --- |
//! | read and write a disk | [`Qcow2Image`], as a layer |
//! | make a new image of a disk | [`Qcow2Writer`] |
//! | take, apply and delete snapshots; change the size | [`Qcow2Image`] |
//! | check and repair | [`check()`], [`repair()`] |
//! | change version, refcount width, names | [`amend()`] |
//!
//! An image names its backing file and its data file, and opens neither: a chain (`blockdev-chain`)
//! does, under its caller's policy.
//!
//! References are to the headings of QEMU's qcow2 specification, `docs/interop/qcow2`.

#![forbid(unsafe_code)]

mod create_options;
mod driver;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod image;
mod io;
mod meta;
mod ondisk;
mod sync;

/// The format's name in every list of formats.
pub(crate) const FORMAT_NAME: &str = "qcow2";

pub use blockdev_core::OpenOptions;
pub use create_options::{Backing, CreateOptions, DataFile, Preallocation};
pub use driver::Qcow2Driver;
pub use error::Qcow2Error;
pub use image::Qcow2Image;
pub use io::amend::{Amendment, amend};
pub use io::check::check;
pub use io::create::Qcow2Writer;
pub use io::repair::{Repair, Repaired, repair};
pub use io::snapshot::NewSnapshot;
pub use meta::bitmaps::Bitmap;
pub use meta::extensions::{BitmapsExtension, Extensions, FeatureName, UnknownExtension};
pub use meta::geometry::Geometry;
pub use meta::header::{CompressionType, Header};
pub use meta::snapshots::Snapshot;
pub use ondisk::l1_entry::L1Entry;
pub use ondisk::l2_entry::{L2Entry, SubclusterBits};

/// Views of single structures, for files whole or damaged.
pub mod inspect {
    pub use crate::io::bitmaps::bitmaps;
    pub use crate::io::inspect::{FirstCluster, first_cluster, snapshots};
}
