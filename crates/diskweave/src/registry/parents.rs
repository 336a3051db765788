//! What images say of their parents, and what they are told before these change.

use blockdev_chain::Chain;
#[cfg(any(feature = "qcow2", feature = "vhdx"))]
use blockdev_core::FormatDriver;
use blockdev_core::{Error, ErrorKind, Layer, OpenOptions, Result};

use super::not_by;
#[cfg(feature = "vhdx")]
use super::vhdx_child;
use crate::names::ParentName;
use crate::open::OpenFile;

/// Checks that images of `format` can call a parent `name`: of those that have parents, a VHDX says paths
/// only.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput).
pub(crate) fn check_name(format: &str, name: ParentName<'_>) -> Result<()> {
    match name {
        ParentName::Remote(name) if format == "vhdx" => {
            let text = format!("a VHDX names files, and {name:?} is none");
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
        _ => Ok(()),
    }
}

/// Has the image in `file`, which is open for writing and otherwise not in use, refer to `parent`, which
/// is called `name`, and to no other. One that had no parent shows nothing of it at first. Stable when
/// this returns; the image refers to the one or to the other at every instant.
pub(crate) fn set_parent(
    file: OpenFile,
    options: &OpenOptions,
    parent: &Chain,
    name: ParentName<'_>,
) -> Result<()> {
    let format = file.driver.name();
    #[cfg(feature = "qcow2")]
    if format == qcow2_format::Qcow2Driver.name() {
        let name = crate::names::of_parent(name)?;
        let mut change = qcow2_format::Amendment::default();
        change.backing = Some(Some(qcow2_format::Backing {
            name,
            format: parent.top().info().format.to_string(),
        }));
        return qcow2_format::amend(file.storage, options, &change);
    }
    #[cfg(feature = "vhdx")]
    if format == vhdx_format::VhdxDriver.name() {
        let ParentName::Path(path) = name else {
            return check_name(format, name);
        };
        let link = vhdx_child(parent, path, &file.path)?.parent;
        let link = link.expect("a child's options have its parent");
        let mut image = vhdx_format::VhdxImage::open(file.storage, options)?;
        match image.disk_type() {
            vhdx_format::DiskType::Differencing => image.relink(&link)?,
            _ => image.make_differencing(&link)?,
        }
        return Box::new(image).close();
    }
    let _ = (file.storage, file.path, options, parent, name);
    Err(not_by(format, "a parent"))
}

/// Has the top of `chain`, the image in `file` opened for writing, refer to no parent any more. What it
/// holds of the disk must be all of it: [`Chain::pull`] sees to that.
pub(crate) fn forget_parent(mut chain: Chain, file: OpenFile, options: &OpenOptions) -> Result<()> {
    let format = file.driver.name();
    #[cfg(feature = "qcow2")]
    if format == qcow2_format::Qcow2Driver.name() {
        chain.close()?;
        let mut change = qcow2_format::Amendment::default();
        change.backing = Some(None);
        return qcow2_format::amend(file.storage, options, &change);
    }
    #[cfg(feature = "vhdx")]
    if format == vhdx_format::VhdxDriver.name() {
        {
            let (top, below, _) = chain.top_mut();
            let image = top.as_any_mut().downcast_mut::<vhdx_format::VhdxImage>();
            let image = image.expect("an image of this format");
            image.make_standalone(&below)?;
        }
        return chain.close();
    }
    let _ = (&mut chain, file.storage, options);
    Err(not_by(format, "a parent"))
}

/// Refuses an image with internal snapshots, which read from what is below the image too: nothing takes
/// that up for them when it becomes another.
pub(crate) fn refuse_snapshots(layer: &dyn Layer) -> Result<()> {
    #[cfg(feature = "qcow2")]
    if let Some(image) = layer.as_any().downcast_ref::<qcow2_format::Qcow2Image>()
        && !image.snapshots()?.is_empty()
    {
        let text =
            "the image has internal snapshots, which would read otherwise over what is to be below";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let _ = layer;
    Ok(())
}

/// True when `child` knows its parent by what the parent holds.
pub(crate) fn knows_parent_by_content(child: &dyn Layer) -> bool {
    #[cfg(feature = "vhdx")]
    if let Some(image) = child.as_any().downcast_ref::<vhdx_format::VhdxImage>() {
        return image.parent_locator().is_some();
    }
    let _ = child;
    false
}

/// Before the layer at `depth` of `chain`, opened for writing as the one above it is, is changed while it
/// keeps that child: the child is to know it again, before, between and after.
pub(crate) fn announce_change(chain: &mut Chain, depth: u32) -> Result<()> {
    #[cfg(feature = "vhdx")]
    {
        use vhdx_format::{Linkage, Uuid, VhdxImage};
        fn vhdx_at(chain: &mut Chain, depth: u32) -> Option<&mut VhdxImage> {
            let (layer, ..) = chain.layer_mut(depth)?;
            layer.as_any_mut().downcast_mut()
        }
        let from = vhdx_at(chain, depth).map(|parent| parent.header().data_write_guid);
        let to = Uuid::new_v4();
        let Some(child) = depth.checked_sub(1).and_then(|above| vhdx_at(chain, above)) else {
            return Ok(());
        };
        child.set_linkage(match from {
            Some(from) => Linkage::Becomes { from, to },
            None => Linkage::Changing,
        })?;
        if let Some(parent) = vhdx_at(chain, depth) {
            parent.set_next_data_write_guid(to)?;
        }
    }
    let _ = (chain, depth);
    Ok(())
}

/// The same before the file of the parent of `child`, opened for writing, is changed in what it says, and not
/// in what its disk reads: of a format that has no identity of its content the file is what counts.
pub(crate) fn announce_rewrite(child: &mut dyn Layer, parent: &dyn Layer) -> Result<()> {
    #[cfg(feature = "vhdx")]
    if parent.content_id().is_none()
        && let Some(image) = child.as_any_mut().downcast_mut::<vhdx_format::VhdxImage>()
    {
        return image.set_linkage(vhdx_format::Linkage::Changing);
    }
    let _ = (child, parent);
    Ok(())
}

/// After such a change: `child`, opened for writing, is to know `parent` by what it holds now and by
/// nothing else.
pub(crate) fn settle_change(child: &mut dyn Layer, parent: &dyn Layer) -> Result<()> {
    #[cfg(feature = "vhdx")]
    if let Some(image) = child.as_any_mut().downcast_mut::<vhdx_format::VhdxImage>() {
        let id = match parent.content_id() {
            None => blockdev_core::file_fingerprint(parent)?,
            id => id,
        };
        // What has no fingerprint stays unknown.
        return match id {
            Some(id) => {
                let guid = vhdx_format::Uuid::from_bytes(id.0);
                image.set_linkage(vhdx_format::Linkage::Is(guid))
            }
            None => Ok(()),
        };
    }
    let _ = (child, parent);
    Ok(())
}

/// By what content `disk` is known while `difference` is applied to it and afterwards, where both are VHDX:
/// always the same of the same difference, so that an interrupted run is told from a foreign disk.
#[cfg(feature = "vhdx")]
fn applied(difference: &dyn Layer) -> Option<vhdx_format::Uuid> {
    const APPLIED: u128 = 0x6f2a_94d1_05c7_4e83_b91d_3ac8_77e6_50f2;
    let image: &vhdx_format::VhdxImage = difference.as_any().downcast_ref()?;
    let content = image.header().data_write_guid.as_u128() ^ APPLIED;
    Some(vhdx_format::Uuid::from_u128(content))
}

/// Before `difference` is applied to `disk`, opened for writing.
pub(crate) fn announce_applying(difference: &dyn Layer, disk: &mut Chain) -> Result<()> {
    #[cfg(feature = "vhdx")]
    if let Some(content) = applied(difference)
        && let (top, ..) = disk.top_mut()
        && let Some(image) = top.as_any_mut().downcast_mut::<vhdx_format::VhdxImage>()
    {
        return image.set_next_data_write_guid(content);
    }
    let _ = (difference, disk);
    Ok(())
}

/// True when `difference` was applied to the disk of `top`, in part or as a whole.
pub(crate) fn was_applied(difference: &dyn Layer, top: &dyn Layer) -> bool {
    #[cfg(feature = "vhdx")]
    if let (Some(content), Some(id)) = (applied(difference), top.content_id()) {
        return id.0 == *content.as_bytes();
    }
    let _ = (difference, top);
    false
}
