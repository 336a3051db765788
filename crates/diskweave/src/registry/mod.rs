//! The formats that this build knows: the one place that asks about features.
//!
//! What each of them does of its own is told apart here and nowhere else: making images
//! ([`new_image`]), changing them as a whole ([`control`]), what they say of their parents ([`parents`]).

mod control;
mod new_image;
mod parents;

use std::sync::Arc;

use blockdev_core::{
    Error, ErrorKind, FormatDriver, Layer, OpenOptions, RawDriver, Result, Storage,
};

pub use control::{Compacted, SnapshotChange, change_snapshot, compact, resize};
pub(crate) use control::{amend, repair, resize_layer};
pub use new_image::NewImage;
#[cfg(feature = "vhdx")]
pub use new_image::vhdx_child;
pub(crate) use new_image::{child_image, usual_image};
pub(crate) use parents::{
    announce_applying, announce_change, announce_rewrite, check_name, forget_parent,
    knows_parent_by_content, refuse_snapshots, set_parent, settle_change, was_applied,
};

use crate::{SnapshotName, foreign};

/// Every format, raw last.
static DRIVERS: &[&dyn FormatDriver] = &[
    #[cfg(feature = "vhdx")]
    &vhdx_format::VhdxDriver,
    #[cfg(feature = "qcow2")]
    &qcow2_format::Qcow2Driver,
    &RawDriver,
];

/// Every format this build knows.
#[must_use]
pub fn drivers() -> &'static [&'static dyn FormatDriver] {
    DRIVERS
}

/// The format called `name`: `raw`, `vhdx`, `qcow2`.
#[must_use]
pub fn driver(name: &str) -> Option<&'static dyn FormatDriver> {
    DRIVERS.iter().find(|driver| driver.name() == name).copied()
}

/// The format whose mark the file bears; `None` when it bears none, which makes it no raw image:
/// that is for the caller to say.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn probe(storage: &dyn Storage) -> Result<Option<&'static dyn FormatDriver>> {
    blockdev_core::probe(storage, DRIVERS)
}

/// Names the format that a disk beginning with `head` would be taken for, by this library or by
/// another program.
pub(crate) fn taken_for(head: &[u8]) -> Option<&'static str> {
    let input = blockdev_core::ProbeInput {
        head,
        tail: &[],
        len: head.len() as u64,
    };
    DRIVERS
        .iter()
        .find(|driver| driver.probe(&input))
        .map(|driver| driver.name())
        .or_else(|| foreign::mark_in(head))
}

/// Opens the disk of an internal snapshot in `storage`, an image of the format called `format`.
pub(crate) fn open_snapshot(
    format: &str,
    storage: Arc<dyn Storage>,
    wanted: &SnapshotName,
    options: &OpenOptions,
) -> Result<Box<dyn Layer>> {
    #[cfg(feature = "qcow2")]
    if format == qcow2_format::Qcow2Driver.name() {
        let choose = |snapshots: &[qcow2_format::Snapshot]| {
            let all = snapshots.iter();
            wanted.find(all.map(|found| (found.id.as_str(), found.name.as_str())))
        };
        let image = qcow2_format::Qcow2Image::open_chosen_snapshot(storage, choose, options)?;
        let Some(image) = image else {
            let text = format!("there is no snapshot {wanted}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        return Ok(Box::new(image));
    }
    let _ = (storage, wanted, options);
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("images of format {format} have no internal snapshots"),
    ))
}

/// A format that does not do what is asked of it, or not yet.
fn not_by(format: &str, what: &str) -> Error {
    let text = format!("{what} is not possible with images of format {format}");
    Error::new(ErrorKind::Unsupported, text)
}

/// True when the image was not closed cleanly.
pub(crate) fn is_dirty(layer: &dyn Layer) -> bool {
    #[cfg(feature = "vhdx")]
    if let Some(image) = layer.as_any().downcast_ref::<vhdx_format::VhdxImage>() {
        return image.log_state() != vhdx_format::LogState::Empty;
    }
    #[cfg(feature = "qcow2")]
    if let Some(image) = layer.as_any().downcast_ref::<qcow2_format::Qcow2Image>() {
        return image.header().is_dirty();
    }
    let _ = layer;
    false
}
