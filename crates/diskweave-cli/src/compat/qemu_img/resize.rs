//! `resize`.

use std::ffi::OsString;

use diskweave::core::BlockDevice;

use super::call::{Call, FORMAT, IMAGE_OPTS, OBJECT, QUIET, Size, parse_size};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::options::NO_BYTES;
use crate::compat::wording;
use crate::output::plain::print;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    FORMAT,
    IMAGE_OPTS,
    Flag::switch(' ', "shrink").long_only(),
    Flag::value(' ', "preallocation").long_only(),
    OBJECT,
];

/// A size that is smaller by so much looks like an option: it is shielded from being taken for one.
pub(super) fn shield(arguments: &[OsString]) -> Vec<OsString> {
    match arguments {
        [before @ .., last]
            if !before.is_empty()
                && last.to_str().is_some_and(|text| {
                    text.starts_with('-') && text[1..].starts_with(|c: char| c.is_ascii_digit())
                })
                && !before.iter().any(|argument| argument == "--") =>
        {
            let dashes = [OsString::from("--"), last.clone()];
            before.iter().cloned().chain(dashes).collect()
        }
        all => all.to_vec(),
    }
}

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let operands = &call.said.operands;
    let (file, size) = match &operands[..] {
        [] | [_] => return Err(call.usage("Expecting image file name and size")),
        [file, size] => (file, size.to_string_lossy()),
        _ => return Err(call.usage("Extra argument(s) in command line")),
    };
    let image = call.image(file, "format")?;
    let preallocation = call.said.value("preallocation");
    if let Some(mode) = &preallocation
        && !["off", "metadata", "falloc", "full"].contains(&&**mode)
    {
        return Err(Complaint::new(format!(
            "Invalid preallocation mode '{mode}'"
        )));
    }
    let preallocation = preallocation.filter(|mode| mode != "off");
    let change = Change::parse(&size)?;
    let mut chain = image.open_writable()?;
    let now = chain.size();
    let sector = u64::from(chain.info().logical_sector_size);
    if chain.info().format == "qcow2"
        && change
            .of(now)
            .is_some_and(|size| !size.is_multiple_of(sector))
    {
        return Err(Complaint::new("The new size must be a multiple of 512"));
    }
    let wanted = change
        .of(now)
        .and_then(|size| size.checked_next_multiple_of(sector));
    let Some(wanted) = wanted.filter(|size| *size > 0) else {
        return Err(Complaint::new("New image size must be positive"));
    };
    if wanted <= now && preallocation.is_some() {
        let text = "Preallocation can only be used for growing images";
        return Err(Complaint::new(text));
    }
    if wanted < now && !call.said.has("shrink") {
        let text = "Use the --shrink option to perform a shrink operation.";
        let warning = "warning: Shrinking an image will delete all data beyond the shrunken image's end. \
                       Before performing such an operation, make sure there is no important data there.";
        return Err(Complaint::new(text).and(warning));
    }
    if let Some(mode) = preallocation {
        let text = match (chain.info().format, &*mode) {
            ("raw", "metadata") => "Unsupported preallocation mode: metadata".to_string(),
            _ => format!("preallocation={mode} of what is added is not done here"),
        };
        return Err(Complaint::new(text));
    }
    diskweave::resize(&mut chain, wanted)
        .and_then(|()| chain.close())
        .map_err(|error| Complaint::new(wording::errno(&error)))?;
    if !call.quiet() {
        print("Image resized.\n")?;
    }
    Ok(0)
}

/// What is asked for: a size, or so much more or less.
enum Change {
    To(u64),
    More(u64),
    Less(u64),
}

impl Change {
    fn parse(text: &str) -> Result<Self, Complaint> {
        let number = text.strip_prefix(['+', '-']).unwrap_or(text);
        let bytes = match parse_size(number) {
            Size::Bytes(bytes) => bytes,
            Size::Malformed => {
                let text = format!("Parameter 'size' expects {NO_BYTES}");
                return Err(Complaint::new(text));
            }
            Size::OutOfRange => {
                let text = format!("Value '{number}' is out of range for parameter 'size'");
                return Err(Complaint::new(text));
            }
        };
        Ok(match text.as_bytes().first() {
            Some(b'+') => Self::More(bytes),
            Some(b'-') => Self::Less(bytes),
            _ => Self::To(bytes),
        })
    }

    fn of(&self, now: u64) -> Option<u64> {
        match self {
            Self::To(bytes) => Some(*bytes),
            Self::More(bytes) => now.checked_add(*bytes),
            Self::Less(bytes) => now.checked_sub(*bytes),
        }
    }
}
