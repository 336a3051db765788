//! `measure`.

use diskweave::NewImage;
use diskweave::core::BlockDevice;

use super::call::{Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, MOST, OBJECT, OPTIONS, OUTPUT, SNAPSHOT};
use crate::commands::measure::show;
use crate::commands::new_image;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::options::{ImageOptions, check_lists};
use crate::compat::wording;
pub(super) const FLAGS: &[Flag] = &[
    Flag::value('O', "target-format"),
    Flag::value(' ', "size").long_only(),
    FORMAT,
    IMAGE_OPTS,
    OPTIONS,
    SNAPSHOT,
    OUTPUT,
    FORCE_SHARE,
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let output = call.output()?;
    let snapshot = call.snapshot()?;
    let size = call.bytes("size", "image size", 0, MOST)?;
    let said = &call.said;
    let name = match &said.operands[..] {
        [] => None,
        [name] => Some(name),
        _ => return Err(Complaint::new("At most one filename argument is allowed.")),
    };
    let of_a_file = said.has("image-opts") || said.has("format") || said.has("snapshot");
    match (name, size) {
        (None, _) if of_a_file => {
            let text = "--image-opts, -f, and -l require a filename argument.";
            return Err(Complaint::new(text));
        }
        (None, None) => {
            let text = "Either --size N or one filename must be specified.";
            return Err(Complaint::new(text));
        }
        (Some(_), Some(_)) => {
            let text = "--size N cannot be used together with a filename.";
            return Err(Complaint::new(text));
        }
        _ => {}
    }
    let source = match name {
        Some(name) => Some(call.image(name, "format")?.with_snapshot(snapshot)),
        None => None,
    };
    let source = source.map(|image| image.open()).transpose()?;
    let format = said.value("target-format").unwrap_or_else(|| "raw".into());
    let text = match &*format {
        "raw" | "qcow2" => None,
        known if wording::is_known_format(known) => Some(format!(
            "Block driver '{known}' does not support size measurement"
        )),
        unknown => Some(format!("Unknown file format '{unknown}'")),
    };
    if let Some(text) = text {
        return Err(Complaint::new(text));
    }
    let lists = said.values("options");
    check_lists(&lists)?;
    let disk = source.as_ref().map_or(size.unwrap_or(0), BlockDevice::size);
    let image = image(&format, &lists, disk)?;
    show(&image, size.unwrap_or(0), source.as_ref(), output).map_err(Complaint::new)??;
    Ok(0)
}

/// The image of `format` that options make of a disk of `size` bytes.
fn image(format: &str, lists: &[String], size: u64) -> Result<NewImage, Complaint> {
    let unknown = || Complaint::new(format!("Unknown file format '{format}'"));
    let mut options = ImageOptions::of_format(format).ok_or_else(unknown)?;
    options
        .take(lists)
        .map_err(|wrong| wrong.and(format!("Invalid options for file format '{format}'")))?;
    options.remove("size");
    if let Some(refusal) = options.refusal(size) {
        return Err(Complaint::new(refusal));
    }
    let mut image = new_image::parse(format, &options.to_arguments(size), None, false)?;
    new_image::backing(&mut image, None, None)?;
    Ok(image)
}
