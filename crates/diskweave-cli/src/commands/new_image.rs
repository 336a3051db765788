//! Formats and options of images to be made, as `-O` and `-o` spell them.

use diskweave::NewImage;
use diskweave::core::DeviceInfo;
use diskweave::vhdx::{CreateOptions, Uuid};

use crate::failure::Failure;
use crate::output::size;

/// The image that `-O FORMAT -o OPTIONS` asks for, of a disk that is like `source`.
pub(crate) fn parse(
    format: &str,
    options: &[String],
    source: &DeviceInfo,
) -> Result<NewImage, Failure> {
    let options = pairs(options)?;
    match format {
        "raw" => match options.first() {
            None => Ok(NewImage::Raw),
            Some((key, _)) => Err(unknown(key, format)),
        },
        "vhdx" => vhdx(&options, source).map(NewImage::Vhdx),
        other => Err(Failure::new(format!(
            "images of format {other:?} cannot be written yet"
        ))),
    }
}

/// `a=1,b=2` and repeated `-o` alike.
fn pairs(options: &[String]) -> Result<Vec<(&str, &str)>, Failure> {
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

fn vhdx(options: &[(&str, &str)], source: &DeviceInfo) -> Result<CreateOptions, Failure> {
    let mut create = CreateOptions::new(source.size);
    // What the guest sees of its disk stays as it was.
    create.logical_sector_size = source.logical_sector_size;
    if source.format == "vhdx" {
        create.physical_sector_size = source.physical_sector_size;
    }
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
                create.fixed = match *value {
                    "fixed" => true,
                    "dynamic" => false,
                    other => {
                        let text = format!("subformat is {other:?}, expected dynamic or fixed");
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
