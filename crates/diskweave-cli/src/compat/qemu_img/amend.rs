//! `amend`.

use diskweave::core::BlockDevice;
use diskweave::qcow2::{Amendment, Qcow2Image};
use diskweave::{Amend, Progress, resize};

use super::call::{Call, FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, QUIET};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::options::{ImageOptions, asks_for_help, check_lists};
use crate::compat::wording;
use crate::output::plain::print;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    PROGRESS,
    FORMAT,
    IMAGE_OPTS,
    Flag::value('t', "cache"),
    Flag::value('o', "options"),
    Flag::switch(' ', "force").long_only(),
    OBJECT,
];

/// What can be amended of a qcow2.
const AMENDABLE: [&str; 8] = [
    "backing_file",
    "backing_fmt",
    "compat",
    "data_file",
    "data_file_raw",
    "lazy_refcounts",
    "refcount_bits",
    "size",
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let lists = call.said.values("options");
    if lists.is_empty() {
        return Err(call.usage("Must specify options (-o)"));
    }
    let format = call.said.value("format");
    check_lists(&lists)?;
    if asks_for_help(&lists) && call.said.operands.is_empty() {
        let format = format.as_deref().unwrap_or("raw");
        if ImageOptions::of_format(format).is_none() {
            return Err(Complaint::new(format!("Unknown file format '{format}'")));
        }
        return help(format);
    }
    if call.said.operands.len() != 1 {
        return Err(Complaint::new("Expecting one image file name"));
    }
    let image = call.one_image()?;
    call.check_cache("cache", "cache")?;
    let chain = image.open_writable()?;
    let format = chain.info().format;
    if asks_for_help(&lists) {
        return help(format);
    }
    check_format(format)?;
    let mut options = ImageOptions::of_format(format).expect("a format that is known");
    options.take(&lists)?;
    if let Some((name, _)) = options.said().find(|(name, _)| !AMENDABLE.contains(name)) {
        let text =
            format!("Invalid parameter '{name}'\nThis option is only supported for image creation");
        return Err(Complaint::new(text));
    }
    let top = chain.top().as_any().downcast_ref::<Qcow2Image>();
    let top = top.expect("a qcow2, as was checked");
    let change = amendment(&options, top)?;
    let size = options.value("size").and_then(|size| size.parse().ok());
    if size.is_some_and(|size: u64| !size.is_multiple_of(512)) {
        return Err(Complaint::new("The new size must be a multiple of 512"));
    }
    drop(chain);
    let watcher: Box<dyn Progress> = call.progress();
    watcher.start(0);
    let disk = image.disk()?;
    let failed = |error| Complaint::new(wording::errno(&error));
    if change != Amendment::default() {
        diskweave::amend(&image.path, &disk, &Amend::Qcow2(change)).map_err(failed)?;
    }
    if let Some(size) = size {
        let mut chain = image.open_writable()?;
        resize(&mut chain, size).map_err(failed)?;
        chain.close().map_err(failed)?;
    }
    drop(watcher);
    Ok(0)
}

fn check_format(format: &str) -> Result<(), Complaint> {
    if format == "qcow2" {
        return Ok(());
    }
    let text = format!("Format driver '{format}' does not support option amendment");
    Err(Complaint::new(text))
}

fn help(format: &str) -> Result<u8, Complaint> {
    check_format(format)?;
    let options = ImageOptions::of_format(format).expect("a format that is known");
    let mut text = format!("Amend options for '{format}':\n");
    for line in options.help().lines().skip(1) {
        let name = line.trim_start().split('=').next().unwrap_or_default();
        if AMENDABLE.contains(&name) {
            text += &format!("{line}\n");
        }
    }
    print(&text)?;
    Ok(0)
}

fn amendment(options: &ImageOptions, image: &Qcow2Image) -> Result<Amendment, Complaint> {
    let header = image.header();
    let mut change = Amendment::default();
    let is_on = |value: &str| matches!(value, "on" | "yes" | "true" | "y");
    for (name, value) in options.said() {
        match name {
            "compat" => {
                change.version = Some(match value {
                    "0.10" | "v2" => 2,
                    "1.1" | "v3" => 3,
                    other => {
                        let text = format!("Unknown compatibility level {other}");
                        return Err(Complaint::new(text));
                    }
                });
            }
            "lazy_refcounts" => change.lazy_refcounts = Some(is_on(value)),
            "refcount_bits" => {
                let bits = value.parse::<u64>().ok();
                let bits = bits.filter(|bits| bits.is_power_of_two() && *bits <= 64);
                let bits = bits.ok_or_else(|| {
                    let text = "Refcount width must be a power of two and may not exceed 64 bits";
                    Complaint::new(text)
                })?;
                change.refcount_order = Some(bits.trailing_zeros());
            }
            "backing_file" | "backing_fmt" => {
                let text = "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.";
                return Err(Complaint::new(text));
            }
            "data_file" if !header.has_data_file() => {
                let text = "data-file can only be set for images that use an external data file";
                return Err(Complaint::new(text));
            }
            "data_file" => change.data_file = Some(value.into()),
            "data_file_raw" if is_on(value) && !header.is_data_file_raw() => {
                let text = "data-file-raw cannot be set on existing images";
                return Err(Complaint::new(text));
            }
            _ => {}
        }
    }
    let version = change.version.unwrap_or(header.version);
    if version == 2 {
        // What the image will have, said or not.
        let order = change.refcount_order.unwrap_or(header.refcount_order);
        if order != 4 {
            return Err(Complaint::new("compat=0.10 requires refcount_bits=16"));
        }
        if change.lazy_refcounts == Some(true) {
            let text = "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 \
                        or greater)";
            return Err(Complaint::new(text));
        }
    }
    Ok(change)
}
