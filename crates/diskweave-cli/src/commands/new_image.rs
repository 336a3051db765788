//! Formats and options of images to be made, as `-O` and `-o` spell them.

use std::path::{Path, absolute};

use blockdev_nbd::NbdOpener;
use diskweave::chain::Chain;
use diskweave::core::DeviceInfo;
use diskweave::qcow2::{self, Backing, CompressionType, Preallocation};
use diskweave::vhdx::{CreateOptions, Uuid};
use diskweave::{NewImage, RawOptions, RawPreallocation, vhdx_child};

use super::{exports, shown};
use crate::args::Open;
use crate::failure::Failure;
use crate::output::size;

/// The image that `-O FORMAT -o OPTIONS` asks for, of a disk that is like `source` if there is one.
/// `has_parent` says whether a backing file is asked for beside the options.
pub(crate) fn parse(
    format: &str,
    options: &[String],
    source: Option<&DeviceInfo>,
    has_parent: bool,
) -> Result<NewImage, Failure> {
    let options = pairs(options)?;
    match format {
        "raw" => raw(&options).map(NewImage::Raw),
        "vhdx" => vhdx(&options, vhdx_like(source), has_parent).map(NewImage::Vhdx),
        "qcow2" => qcow2(&options).map(NewImage::Qcow2),
        other => Err(Failure::new(format!(
            "images of format {other:?} cannot be written yet"
        ))),
    }
}

/// Has `image` name the backing file that is asked for, here or by its options, if one is.
pub(crate) fn backing(
    image: &mut NewImage,
    file: Option<&String>,
    format: Option<&String>,
) -> Result<Option<Backing>, Failure> {
    let format_alone = file.is_none() && format.is_some();
    let create = match image {
        NewImage::Qcow2(create) => create,
        NewImage::Vhdx(_) => {
            // Its parent is a VHDX unless it is said to be something else.
            let format = format.cloned().unwrap_or_else(|| "vhdx".into());
            let named = file.map(|file| Backing {
                name: file.clone(),
                format,
            });
            return match named {
                Some(Backing { name, .. }) if name.is_empty() => Err(no_backing_file()),
                None if format_alone => Err(no_backing_file()),
                named => Ok(named),
            };
        }
        _ if file.or(format).is_some() => {
            return Err(Failure::new(
                "only qcow2 and VHDX images can have a backing file",
            ));
        }
        _ => return Ok(None),
    };
    if let Some(file) = file {
        create.backing.get_or_insert_default().name.clone_from(file);
    }
    if let Some(format) = format {
        create
            .backing
            .get_or_insert_default()
            .format
            .clone_from(format);
    }
    match &create.backing {
        Some(backing) if backing.name.is_empty() => Err(no_backing_file()),
        Some(backing) if backing.format.is_empty() => Err(Failure::new(
            "a backing file is said, but not its format (-F)",
        )),
        backing => Ok(backing.clone()),
    }
}

fn no_backing_file() -> Failure {
    Failure::new("a backing format is said, but no backing file")
}

/// Has `image`, which is to be at `destination`, be over `parent`, the disk of the backing file called
/// `name`, where its format records more of it than a name. `options` are those it was made from.
pub(crate) fn link(
    image: &mut NewImage,
    options: &[String],
    destination: &Path,
    name: &str,
    parent: &Chain,
) -> Result<(), Failure> {
    let NewImage::Vhdx(create) = image else {
        return Ok(());
    };
    exports::refuse(Path::new(name), "a VHDX names files as its parents")?;
    let child = vhdx_child(parent, name, destination);
    let child = child.map_err(|e| Failure::about(shown(Path::new(name)), e))?;
    *create = vhdx(&pairs(options)?, child, true)?;
    Ok(())
}

/// Refuses an image at `image` that names itself as its backing file, by whatever spelling.
pub(crate) fn refuse_itself(image: &Path, backing: Option<&Backing>) -> Result<(), Failure> {
    let Some(backing) = backing else {
        return Ok(());
    };
    if NbdOpener::is_export(Path::new(&backing.name)) {
        return Ok(());
    }
    let path = exports::beside(image, &backing.name)?;
    let same = match (path.canonicalize(), image.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        // What is not there has no path but the one that is written.
        _ => matches!((absolute(&path), absolute(image)), (Ok(a), Ok(b)) if a == b),
    };
    if same {
        let text = format!("{} cannot be its own backing file", shown(image));
        return Err(Failure::new(text));
    }
    Ok(())
}

/// Opens the backing file of an image at `image`, if it has one, with its own parents.
pub(crate) fn open_backing(
    open: &Open,
    image: &Path,
    backing: Option<&Backing>,
) -> Result<Option<Chain>, Failure> {
    let Some(backing) = backing else {
        return Ok(None);
    };
    let path = exports::beside(image, &backing.name)?;
    let disk = open.disk(&path, Some(&backing.format)).open(&path);
    disk.map(Some).map_err(|e| Failure::about(shown(&path), e))
}

/// `a=1,b=2` and repeated `-o` alike.
pub(super) fn pairs(options: &[String]) -> Result<Vec<(&str, &str)>, Failure> {
    let parts = options.iter().flat_map(|list| list.split(','));
    parts
        .map(|part| {
            part.split_once('=').ok_or_else(|| {
                Failure::new(format!("option {part:?} is not of the form KEY=VALUE"))
            })
        })
        .collect()
}

fn unknown(key: &str, format: &str) -> Failure {
    Failure::new(format!("images of format {format} have no option {key:?}"))
}

fn raw(options: &[(&str, &str)]) -> Result<RawOptions, Failure> {
    let mut raw = RawOptions::default();
    for (key, value) in options {
        match *key {
            "preallocation" => {
                raw.preallocation = match *value {
                    "off" => RawPreallocation::Off,
                    "falloc" => RawPreallocation::Falloc,
                    "full" => RawPreallocation::Full,
                    other => {
                        let text = format!("{key} is {other:?}, expected off, falloc or full");
                        return Err(Failure::new(text));
                    }
                }
            }
            key => return Err(unknown(key, "raw")),
        }
    }
    Ok(raw)
}

/// The defaults of a VHDX, of a disk that is like `source` if there is one.
fn vhdx_like(source: Option<&DeviceInfo>) -> CreateOptions {
    // The size is told when the image is made.
    let mut create = CreateOptions::new(0);
    if let Some(source) = source {
        // What the guest sees of its disk stays as it was.
        create.logical_sector_size = source.logical_sector_size;
        if source.format == "vhdx" {
            create.physical_sector_size = source.physical_sector_size;
        }
    }
    create
}

fn vhdx(
    options: &[(&str, &str)],
    mut create: CreateOptions,
    has_parent: bool,
) -> Result<CreateOptions, Failure> {
    for (key, value) in options {
        let bytes = || {
            let bytes = size::parse(value).map_err(Failure::new)?;
            u32::try_from(bytes).map_err(|_| Failure::new(format!("{key}={value} is too large")))
        };
        let guid = || {
            let guid = Uuid::try_parse(value);
            guid.map(Some)
                .map_err(|_| Failure::new(format!("{key}={value} is no GUID")))
        };
        match *key {
            "subformat" => {
                create.fixed = match (*value, has_parent) {
                    ("fixed", false) => true,
                    ("dynamic", false) | ("differencing", true) => false,
                    ("differencing", false) => {
                        let text =
                            "a differencing disk is over a backing file, and none is said (-b)";
                        return Err(Failure::new(text));
                    }
                    ("fixed" | "dynamic", true) => {
                        let text =
                            format!("a disk over a backing file is differencing, not {value}");
                        return Err(Failure::new(text));
                    }
                    (other, _) => {
                        let text = format!(
                            "subformat is {other:?}, expected dynamic, fixed or differencing"
                        );
                        return Err(Failure::new(text));
                    }
                }
            }
            "block_size" => create.block_size = bytes()?,
            "log_size" => create.log_size = bytes()?,
            "logical_sector_size" => create.logical_sector_size = bytes()?,
            "physical_sector_size" => create.physical_sector_size = bytes()?,
            "disk_id" => create.virtual_disk_id = guid()?,
            "file_write_guid" => create.file_write_guid = guid()?,
            "data_write_guid" => create.data_write_guid = guid()?,
            key => return Err(unknown(key, "vhdx")),
        }
    }
    Ok(create)
}

fn qcow2(options: &[(&str, &str)]) -> Result<qcow2::CreateOptions, Failure> {
    // The size is told when the image is made.
    let mut create = qcow2::CreateOptions::new(0);
    for (key, value) in options {
        let wrong =
            |expected: &str| Failure::new(format!("{key} is {value:?}, expected {expected}"));
        let switch = || match *value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(wrong("on or off")),
        };
        let power = |number: u64| number.is_power_of_two().then(|| number.trailing_zeros());
        match *key {
            "compat" => {
                create.version = match *value {
                    "0.10" | "v2" => 2,
                    "1.1" | "v3" => 3,
                    _ => return Err(wrong("0.10 or 1.1")),
                }
            }
            "cluster_size" => {
                let bytes = size::parse(value).map_err(Failure::new)?;
                create.cluster_bits = power(bytes).ok_or_else(|| wrong("a power of two"))?;
            }
            "refcount_bits" => {
                let bits = value.parse().ok().and_then(power);
                create.refcount_order = bits.ok_or_else(|| wrong("a power of two up to 64"))?;
            }
            "preallocation" => {
                create.preallocation = match *value {
                    "off" => Preallocation::Off,
                    "metadata" => Preallocation::Metadata,
                    "falloc" => Preallocation::Falloc,
                    "full" => Preallocation::Full,
                    _ => return Err(wrong("off, metadata, falloc or full")),
                }
            }
            "backing_file" => {
                create.backing.get_or_insert_default().name = (*value).to_string();
            }
            "backing_fmt" => {
                create.backing.get_or_insert_default().format = (*value).to_string();
            }
            "data_file" => create.data_file.get_or_insert_default().name = (*value).to_string(),
            "data_file_raw" => create.data_file.get_or_insert_default().raw = switch()?,
            "lazy_refcounts" => create.lazy_refcounts = switch()?,
            "extended_l2" => create.extended_l2 = switch()?,
            "compression_type" => {
                create.compression_type = match *value {
                    "zlib" => CompressionType::Zlib,
                    "zstd" => CompressionType::Zstd,
                    _ => return Err(wrong("zlib or zstd")),
                }
            }
            key => return Err(unknown(key, "qcow2")),
        }
    }
    if let Some(data_file) = create.data_file.take_if(|file| file.name.is_empty())
        && data_file.raw
    {
        return Err(Failure::new(
            "data_file_raw is of a data_file, and none is said",
        ));
    }
    Ok(create)
}
