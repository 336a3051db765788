//! The formats that this build knows: the one place that asks about features.

use std::path::Path;
use std::sync::Arc;

use blockdev_chain::Chain;
use blockdev_core::{
    Below, BlockDevice, CheckReport, Error, ErrorKind, FormatDriver, Layer, Measurement,
    OpenOptions, RawDriver, Result, Storage,
};

use crate::convert::{NewFiles, raw};
use crate::{Amend, ChildImage, ConvertOptions, Naming, Progress, RawOptions, SnapshotName};

use crate::foreign;
use crate::open::OpenFile;

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

/// An image to be made, of one of the formats this build writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each image that is made"
)]
pub enum NewImage {
    /// The disk's bytes and nothing else.
    Raw(RawOptions),
    /// A fixed, dynamic or differencing VHDX. Its virtual size is that of the source, in whole
    /// sectors, whatever the options say. [`vhdx_child`] has the options for one over a parent.
    #[cfg(feature = "vhdx")]
    Vhdx(vhdx_format::CreateOptions),
    /// A qcow2. Its virtual size is that of the source, in whole sectors of 512 bytes, whatever the
    /// options say. An external data file is made along with it, where its name leads from the
    /// image's directory, and replaces what is there.
    #[cfg(feature = "qcow2")]
    Qcow2(qcow2_format::CreateOptions),
}

impl NewImage {
    /// A raw image, with nothing set aside.
    #[must_use]
    pub fn raw() -> Self {
        Self::Raw(RawOptions::default())
    }

    /// Name of its format.
    #[must_use]
    pub fn format(&self) -> &'static str {
        match self {
            Self::Raw(_) => RawDriver.name(),
            #[cfg(feature = "vhdx")]
            Self::Vhdx(_) => vhdx_format::VhdxDriver.name(),
            #[cfg(feature = "qcow2")]
            Self::Qcow2(_) => qcow2_format::Qcow2Driver.name(),
        }
    }

    /// True when it is to name a backing file.
    pub(crate) fn has_backing(&self) -> bool {
        match self {
            #[cfg(feature = "vhdx")]
            Self::Vhdx(create) => create.parent.is_some(),
            #[cfg(feature = "qcow2")]
            Self::Qcow2(create) => create.backing.is_some(),
            _ => false,
        }
    }

    /// The name of the external data file that it is to have.
    pub(crate) fn data_file(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "qcow2")]
            Self::Qcow2(create) => create.data_file.as_ref().map(|file| file.name.as_str()),
            _ => None,
        }
    }

    /// Makes an image that holds nothing, of at least `size` bytes, in `files`, which are empty; it
    /// is durable then.
    pub(crate) fn empty(&self, size: u64, files: NewFiles) -> Result<()> {
        // Of what this build knows, only qcow2 may have a data file.
        let NewFiles {
            image: storage,
            data,
        } = files;
        let _ = &data;
        match self {
            Self::Raw(options) => raw::empty(&*storage, sectors(size, 512)?, options),
            #[cfg(feature = "vhdx")]
            Self::Vhdx(create) => {
                let mut create = create.clone();
                create.virtual_size = sectors(size, create.logical_sector_size)?;
                vhdx_format::VhdxWriter::create(storage, create)?.finish()
            }
            #[cfg(feature = "qcow2")]
            Self::Qcow2(create) => {
                let mut create = create.clone();
                create.size = sectors(size, 512)?;
                let writer = qcow2_format::Qcow2Writer::create(storage, create)?;
                match data {
                    Some(data) => writer.with_data_file(data)?.finish(),
                    None => writer.finish(),
                }
            }
        }
    }

    /// Tells how long the image of `source` will be, or of an empty disk of `size` bytes where there
    /// is no source. No byte is read: what `source` stores counts, zeros or not, so that the image
    /// may turn out shorter than is required, and never longer.
    ///
    /// # Errors
    /// [`InvalidInput`](blockdev_core::ErrorKind::InvalidInput) with the option the format does not
    /// allow, [`NeedsParent`](blockdev_core::ErrorKind::NeedsParent) where a parent is missing, and
    /// those of finding out what `source` stores.
    ///
    /// # Example
    ///
    /// ```
    /// use diskweave::NewImage;
    ///
    /// let measured = NewImage::raw().measure(1 << 20, None)?;
    /// assert_eq!(measured.required, 1 << 20);
    /// # Ok::<(), diskweave::core::Error>(())
    /// ```
    pub fn measure(&self, size: u64, source: Option<&dyn BlockDevice>) -> Result<Measurement> {
        let size = source.map_or(size, BlockDevice::size);
        match self {
            // In whole sectors, as QEMU counts them.
            Self::Raw(_) => sectors(size, 512).map(|size| Measurement {
                required: size,
                fully_allocated: size,
            }),
            #[cfg(feature = "vhdx")]
            Self::Vhdx(create) => {
                let mut create = create.clone();
                create.virtual_size = sectors(size, create.logical_sector_size)?;
                // Judges the options before they are worked with.
                create.measure(0)?;
                let stored = match source {
                    // What a parent will spare is not known.
                    Some(_) if create.parent.is_some() => u64::MAX,
                    Some(disk) => blockdev_core::stored_units(disk, create.block_size.into())?,
                    None => 0,
                };
                create.measure(stored)
            }
            #[cfg(feature = "qcow2")]
            Self::Qcow2(create) => {
                let mut create = create.clone();
                create.size = sectors(size, 512)?;
                create.measure(0)?;
                let unit = 1 << create.cluster_bits;
                let stored = match source {
                    // What a backing file will spare is not known.
                    Some(_) if create.backing.is_some() => u64::MAX,
                    Some(disk) => blockdev_core::stored_units(disk, unit)?,
                    None => 0,
                };
                create.measure(stored)
            }
        }
    }

    /// Makes the image of `source` in `files`, which are empty; it is durable then. Over `backing`
    /// it holds only what differs.
    pub(crate) fn fill(
        &self,
        source: &dyn BlockDevice,
        backing: Option<&Chain>,
        files: NewFiles,
        options: &ConvertOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        let NewFiles {
            image: storage,
            data,
        } = files;
        // Of what this build knows, only qcow2 has them.
        let _ = (backing, &data);
        match self {
            Self::Raw(raw_options) => raw::fill(source, &*storage, raw_options, options, progress),
            #[cfg(feature = "vhdx")]
            Self::Vhdx(create) => {
                let mut create = create.clone();
                let sector = u64::from(create.logical_sector_size.max(1));
                create.virtual_size = source.size().next_multiple_of(sector);
                let writer = match backing {
                    Some(below) => vhdx_format::VhdxWriter::create_over(storage, create, below)?,
                    None => vhdx_format::VhdxWriter::create(storage, create)?,
                };
                blockdev_core::bulk_copy(source, &writer, &options.bulk(false), progress)?;
                writer.finish()
            }
            #[cfg(feature = "qcow2")]
            Self::Qcow2(create) => {
                let mut create = create.clone();
                create.size = source.size().next_multiple_of(512);
                let writer = match backing {
                    Some(below) => qcow2_format::Qcow2Writer::create_over(storage, create, below)?,
                    None => qcow2_format::Qcow2Writer::create(storage, create)?,
                };
                let writer = match data {
                    Some(data) => writer.with_data_file(data)?,
                    None => writer,
                };
                blockdev_core::bulk_copy(source, &writer, &options.bulk(false), progress)?;
                writer.finish()
            }
        }
    }
}

/// The options for a VHDX over `parent`, a VHDX or an image of any other format that this build knows:
/// see [`child_of`](vhdx_format::CreateOptions::child_of) and
/// [`child_of_other`](vhdx_format::CreateOptions::child_of_other). The new image is to be at
/// `destination`, and its parent is called `name`: by an absolute path, or from the directory of the new
/// image. Both names are recorded, as far as a VHDX can say them.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) when a VHDX cannot say `name`, and for a parent that is
/// opened for writing; [`Unsupported`](ErrorKind::Unsupported) for a parent of another format whose
/// changes could not be noticed; [`Io`](ErrorKind::Io), also when there is no such file; and those of
/// the format.
///
/// # Example
///
/// ```no_run
/// use diskweave::core::locate::ChainPolicy;
/// use diskweave::{NewImage, OpenDisk, create, vhdx_child};
///
/// let parent = OpenDisk::new().policy(ChainPolicy::Any).open("images/base.vhdx")?;
/// let options = vhdx_child(&parent, "base.vhdx", "images/child.vhdx")?;
/// create("images/child.vhdx", &NewImage::Vhdx(options), None, Some(&parent))?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
#[cfg(feature = "vhdx")]
pub fn vhdx_child(
    parent: &Chain,
    name: impl AsRef<Path>,
    destination: impl AsRef<Path>,
) -> Result<vhdx_format::CreateOptions> {
    use vhdx_format::{CreateOptions, ParentPaths};
    let name = name.as_ref();
    let names = crate::names::of(name, destination.as_ref())?;
    let absolute = ParentPaths::default().with_absolute(&names.absolute);
    let relative = names.relative.map(ParentPaths::relative);
    let paths = match (relative, absolute) {
        (Some(Ok(mut paths)), absolute) => {
            paths.absolute = absolute.ok().and_then(|said| said.absolute);
            paths
        }
        // The name that was given must be one of those by which the parent is found.
        (Some(Err(error)), _) if !name.has_root() => return Err(error),
        (_, absolute) => absolute?,
    };
    match parent.top().as_any().downcast_ref() {
        Some(image) => CreateOptions::child_of(image, paths),
        None => CreateOptions::child_of_other(parent.top(), paths),
    }
}

/// `size` in whole sectors of `sector` bytes.
fn sectors(size: u64, sector: u32) -> Result<u64> {
    let whole = size.checked_next_multiple_of(u64::from(sector.max(1)));
    whole.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the size is too large"))
}

/// A format that does not do what is asked of it, or not yet.
fn not_by(format: &str, what: &str) -> Error {
    let text = format!("{what} is not possible with images of format {format}");
    Error::new(ErrorKind::Unsupported, text)
}

/// Makes `disk`, opened for writing, `size` bytes long. New bytes read as zeros; bytes beyond a new
/// end are lost. Parents are not changed.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for formats that cannot do it,
/// [`ReadOnly`](ErrorKind::ReadOnly), and those of the format.
pub fn resize(disk: &mut Chain, size: u64) -> Result<()> {
    let (top, below, below_size) = disk.top_mut();
    resize_layer(top, size, &below, below_size)
}

/// The same of a layer that is over `below`, which is so many bytes long.
pub(crate) fn resize_layer(
    layer: &mut dyn Layer,
    size: u64,
    below: &dyn Below,
    below_size: u64,
) -> Result<()> {
    let format = layer.info().format;
    let layer = layer.as_any_mut();
    if let Some(raw) = layer.downcast_mut::<blockdev_core::RawLayer>() {
        return raw.resize(size);
    }
    #[cfg(feature = "qcow2")]
    if let Some(image) = layer.downcast_mut::<qcow2_format::Qcow2Image>() {
        return image.resize(size, below, below_size);
    }
    #[cfg(feature = "vhdx")]
    if let Some(image) = layer.downcast_mut::<vhdx_format::VhdxImage>() {
        return image.resize(size, below_size);
    }
    let _ = (below, below_size);
    Err(not_by(format, "another size"))
}

/// Makes the image in `file`, opened for writing, what `change` says.
pub(crate) fn amend(file: OpenFile, options: &OpenOptions, change: &Amend) -> Result<()> {
    let format = file.driver.name();
    #[cfg(feature = "qcow2")]
    if let Amend::Qcow2(change) = change
        && format == qcow2_format::Qcow2Driver.name()
    {
        return qcow2_format::amend(file.storage, options, change);
    }
    #[cfg(feature = "vhdx")]
    if let Amend::Vhdx { fixed } = change
        && format == vhdx_format::VhdxDriver.name()
    {
        let mut image = vhdx_format::VhdxImage::open(file.storage, options)?;
        if *fixed {
            image.make_fixed()?;
        } else {
            image.make_dynamic()?;
        }
        return Box::new(image).close();
    }
    let _ = (file.storage, options);
    let text = format!("{change:?} is not for an image of format {format}");
    Err(Error::new(ErrorKind::InvalidInput, text))
}

/// What compacting an image came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Blocks that held nothing but zeros, and are without space now.
    pub dropped_blocks: u64,
    /// Blocks that lie elsewhere in the file now.
    pub moved_blocks: u64,
    /// Length of the file in bytes before.
    pub old_length: u64,
    /// Length of the file in bytes now.
    pub new_length: u64,
}

/// Makes the file of the top image of `disk`, opened for writing, as short as it can be, in place;
/// what the disk reads stays the same.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for formats that are not compacted,
/// [`InvalidInput`](ErrorKind::InvalidInput) when `progress` cancels,
/// [`ReadOnly`](ErrorKind::ReadOnly), and those of the format.
pub fn compact(disk: &mut Chain, progress: &dyn Progress) -> Result<Compacted> {
    let (top, ..) = disk.top_mut();
    let format = top.info().format;
    #[cfg(feature = "vhdx")]
    if let Some(image) = top.as_any_mut().downcast_mut::<vhdx_format::VhdxImage>() {
        let done = image.compact(progress)?;
        return Ok(Compacted {
            dropped_blocks: done.dropped_blocks,
            moved_blocks: done.moved_blocks,
            old_length: done.old_length,
            new_length: done.new_length,
        });
    }
    let _ = progress;
    Err(not_by(format, "compacting"))
}

/// Has the image in `file`, which is open for writing and otherwise not in use, refer to `parent`, which
/// is called `name`, and to no other. One that had no parent shows nothing of it at first. Stable when
/// this returns; the image refers to the one or to the other at every instant.
pub(crate) fn set_parent(
    file: OpenFile,
    options: &OpenOptions,
    parent: &Chain,
    name: &Path,
) -> Result<()> {
    let format = file.driver.name();
    #[cfg(feature = "qcow2")]
    if format == qcow2_format::Qcow2Driver.name() {
        let name = crate::names::as_said(name)?;
        let mut change = qcow2_format::Amendment::default();
        change.backing = Some(Some(qcow2_format::Backing {
            name,
            format: parent.top().info().format.to_string(),
        }));
        return qcow2_format::amend(file.storage, options, &change);
    }
    #[cfg(feature = "vhdx")]
    if format == vhdx_format::VhdxDriver.name() {
        let link = vhdx_child(parent, name, &file.path)?.parent;
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

/// What is done with an internal snapshot, by its name; one that is there already also by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotChange {
    /// Keep the disk as it is now.
    Create(String),
    /// Make the disk what it was.
    Apply(String),
    /// Forget it.
    Delete(String),
}

/// Takes, applies or deletes an internal snapshot of the top image of `disk`, opened for writing.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for formats that have none,
/// [`InvalidInput`](ErrorKind::InvalidInput) for a name that is taken or unknown,
/// [`ReadOnly`](ErrorKind::ReadOnly), and those of the format.
pub fn change_snapshot(disk: &mut Chain, change: &SnapshotChange) -> Result<()> {
    let (top, ..) = disk.top_mut();
    let format = top.info().format;
    #[cfg(feature = "qcow2")]
    if let Some(image) = top.as_any_mut().downcast_mut::<qcow2_format::Qcow2Image>() {
        return match change {
            SnapshotChange::Create(name) => {
                let new = qcow2_format::NewSnapshot::now(name);
                image.create_snapshot(&new).map(drop)
            }
            SnapshotChange::Apply(name) => image.apply_snapshot(name),
            SnapshotChange::Delete(name) => image.delete_snapshot(name),
        };
    }
    let _ = change;
    Err(not_by(format, "an internal snapshot"))
}

/// Repairs what can be repaired without a guess; `leaks_only` leaves everything else as it is. Gives
/// the checks before and after.
pub(crate) fn repair(
    format: &str,
    storage: Arc<dyn Storage>,
    options: &OpenOptions,
    leaks_only: bool,
) -> Result<(CheckReport, CheckReport)> {
    #[cfg(feature = "qcow2")]
    if format == qcow2_format::Qcow2Driver.name() {
        let what = if leaks_only {
            qcow2_format::Repair::Leaks
        } else {
            qcow2_format::Repair::All
        };
        let repaired = qcow2_format::repair(storage, options, what)?;
        return Ok((repaired.before, repaired.after));
    }
    #[cfg(feature = "vhdx")]
    if format == vhdx_format::VhdxDriver.name() {
        if leaks_only {
            // Every block that is not in the BAT is free, so nothing leaks.
            let report = vhdx_format::check(storage, options)?;
            return Ok((report.clone(), report));
        }
        let repaired = vhdx_format::repair(storage, options)?;
        return Ok((repaired.before, repaired.after));
    }
    let _ = (storage, options, leaks_only);
    Err(not_by(format, "repair"))
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

/// The image that a disk is where nobody says more.
#[allow(
    unreachable_code,
    reason = "the first of the formats that this build knows"
)]
pub(crate) fn usual_image() -> NewImage {
    #[cfg(feature = "qcow2")]
    return NewImage::Qcow2(qcow2_format::CreateOptions::new(0));
    #[cfg(feature = "vhdx")]
    return NewImage::Vhdx(vhdx_format::CreateOptions::new(0));
    NewImage::raw()
}

/// The image at `child` that `wanted` asks for over `base`, which is at the canonical path
/// `base_path`.
pub(crate) fn child_image(
    base: &Chain,
    base_path: &Path,
    child: &Path,
    wanted: &ChildImage,
    naming: Naming,
) -> Result<NewImage> {
    let own = base.info().format;
    let format = match wanted {
        // A raw image has no room for a parent.
        ChildImage::LikeBase if own == RawDriver.name() => usual_image().format(),
        ChildImage::LikeBase => own,
        ChildImage::Format(format) => format,
        ChildImage::Image(image) if image.has_backing() => return Ok(image.clone()),
        ChildImage::Image(image) => image.format(),
    };
    #[cfg(feature = "qcow2")]
    if format == qcow2_format::Qcow2Driver.name() {
        let mut create = match wanted {
            ChildImage::Image(NewImage::Qcow2(said)) => said.clone(),
            _ => qcow2_format::CreateOptions::new(0),
        };
        create.backing = Some(qcow2_format::Backing {
            name: crate::names::one(base_path, child, naming)?,
            format: own.into(),
        });
        return Ok(NewImage::Qcow2(create));
    }
    #[cfg(feature = "vhdx")]
    if format == vhdx_format::VhdxDriver.name() {
        let mut create = vhdx_child(base, base_path, child)?;
        if let ChildImage::Image(NewImage::Vhdx(said)) = wanted {
            create.block_size = said.block_size;
            create.log_size = said.log_size;
            create.fixed = said.fixed;
            create.creator.clone_from(&said.creator);
            create.file_write_guid = said.file_write_guid;
            create.data_write_guid = said.data_write_guid;
        }
        return Ok(NewImage::Vhdx(create));
    }
    let _ = (base_path, child, naming);
    if driver(format).is_none() {
        let text = format!("unknown format {format:?}");
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    Err(not_by(format, "a parent"))
}
