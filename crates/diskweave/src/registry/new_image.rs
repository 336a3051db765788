//! Images to be made, of the formats that this build writes.

use std::path::Path;

use blockdev_chain::Chain;
use blockdev_core::{BlockDevice, Error, ErrorKind, FormatDriver, Measurement, RawDriver, Result};

use super::{driver, not_by};
use crate::convert::{NewFiles, raw};
use crate::{ChildImage, ConvertOptions, Naming, Progress, RawOptions};

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
                qcow2_format::Qcow2Writer::write_empty(storage, data, create)
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
