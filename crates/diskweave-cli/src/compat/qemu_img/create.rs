//! `create`.

use std::path::Path;

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, ErrorKind};

use super::call::{Call, OBJECT, QUIET, number};
use crate::commands::new_image;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::image::{Named, directory};
use crate::compat::options::{ImageOptions, asks_for_help, check_lists};
use crate::compat::wording;
use crate::output::plain::print;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    Flag::value('f', "format"),
    Flag::value('o', "options"),
    Flag::value('b', "backing"),
    Flag::value('F', "backing-format"),
    Flag::switch('u', "backing-unsafe"),
    OBJECT,
];

/// The largest size that can be said.
const MOST: u64 = i64::MAX as u64;

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let said = &call.said;
    let format = said.value("format").unwrap_or_else(|| "raw".into());
    let lists = said.values("options");
    if asks_for_help(&lists) {
        return options_help(&format);
    }
    let operands = call.operands();
    let (file, size) = match &operands[..] {
        [] => return Err(call.usage("Expecting image file name")),
        [file] => (file, None),
        [file, size] => (file, Some(number(size, "image size", 0, MOST)?)),
        [_, _, more, ..] => return Err(call.usage(format!("Unexpected argument: {more}"))),
    };
    let about = |text: String| Complaint::new(format!("{file}: {text}"));
    let Some(mut options) = ImageOptions::of_format(&format) else {
        return Err(about(format!("Unknown file format '{format}'")));
    };
    check_lists(&lists)?;
    options.take(&lists).map_err(|wrong| wrong.about(file))?;
    if let Some(size) = size {
        if options.value("size").is_some() {
            return Err(about("The image size must be specified only once".into()));
        }
        options.set("size", size.to_string())?;
    }
    for (option, key, what) in [
        ("backing", "backing_file", "Backing file"),
        ("backing-format", "backing_fmt", "Backing format"),
    ] {
        if let Some(value) = said.value(option) {
            let taken = options.set(key, value);
            taken.map_err(|_| about(format!("{what} not supported for file format '{format}'")))?;
        }
    }
    let below = backing(call, file, &options)?;
    let size = match (options.value("size"), &below) {
        (Some(size), _) => size.parse().expect("it was checked"),
        (None, Some(below)) => below.size(),
        (None, None) => return Err(about("Image creation needs a size parameter".into())),
    };
    options.set("size", size.to_string())?;
    if !call.quiet() {
        print(&options.formatting(file))?;
    }
    if let Some(refusal) = options.refusal(size) {
        return Err(about(refusal));
    }
    if let Some(format) = options.value("backing_fmt")
        && diskweave::driver(format).is_none()
    {
        let text = format!("Parameter 'backing-fmt' does not accept value '{format}'");
        return Err(about(text));
    }
    make(file, &options, size, below.as_ref()).map_err(|wrong| wrong.about(file))?;
    Ok(0)
}

/// Shows the options that images of `format` have.
pub(super) fn options_help(format: &str) -> Result<u8, Complaint> {
    let Some(options) = ImageOptions::of_format(format) else {
        return Err(Complaint::new(format!("Unknown file format '{format}'")));
    };
    print(&options.help())?;
    Ok(0)
}

/// The disk of the backing file that the new image at `file` is to have, if it is to be opened.
fn backing(call: &Call, file: &str, options: &ImageOptions) -> Result<Option<Chain>, Complaint> {
    let about = |text: String| Complaint::new(format!("{file}: {text}"));
    let Some(name) = options.value("backing_file") else {
        return Ok(None);
    };
    if name.is_empty() {
        return Err(about("Expected backing file name, got empty string".into()));
    }
    if name == file {
        let text = "Error: Trying to create an image with the same filename as the backing file";
        return Err(about(text.into()));
    }
    let format = options.value("backing_fmt");
    if call.said.has("backing-unsafe") {
        return Ok(None);
    }
    let path = match name.contains("://") {
        true => name.into(),
        false => directory(Path::new(file)).join(name),
    };
    let named = Named::new(&path.to_string_lossy(), format.map(Into::into), false)?;
    let unopened = |reason: String| about(format!("{reason}\nCould not open backing image."));
    if let Some(format) = format
        && diskweave::driver(format).is_none()
    {
        return Err(unopened(format!("Unknown driver '{format}'")));
    }
    let chain = named.disk()?.open(&named.path);
    let chain = chain.map_err(|error| unopened(wording::opening(&error, &named.path)))?;
    if format.is_none() {
        let found = chain.info().format;
        let text = "Backing file specified without backing format";
        return Err(about(format!("{text}\nDetected format of {found}.")));
    }
    Ok(Some(chain))
}

/// Makes the image at `file`.
fn make(
    file: &str,
    options: &ImageOptions,
    size: u64,
    below: Option<&Chain>,
) -> Result<(), Complaint> {
    let arguments = options.to_arguments(size);
    let mut image = new_image::parse(options.format(), &arguments, None, below.is_some())?;
    new_image::backing(&mut image, None, None)?;
    let path = Path::new(file);
    // A name alone is what an image that is not opened below gets.
    diskweave::create(path, &image, Some(size), below).map_err(|error| {
        if path.is_dir() {
            return Complaint::new(format!("Could not create '{file}': Is a directory"));
        }
        match (wording::host(&error), error.kind()) {
            (Some(reason), _) if reason == "File too large" => Complaint::new(options.too_large()),
            (Some(reason), _) => Complaint::new(format!("Could not create '{file}': {reason}")),
            (None, ErrorKind::Locked) => Complaint::new(wording::opening(&error, path)),
            (None, _) => Complaint::new(error),
        }
    })
}
