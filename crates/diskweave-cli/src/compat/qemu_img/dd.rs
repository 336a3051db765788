//! `dd`.

use diskweave::core::BlockDevice;

use super::call::{Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, MOST, OBJECT, number, plain_number};
use crate::commands::dd::{MOST_BLOCK, Operands};
use crate::commands::new_image;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::options::ImageOptions;
use crate::compat::wording;

pub(super) const FLAGS: &[Flag] = &[
    FORMAT,
    IMAGE_OPTS,
    Flag::value('O', "output-format"),
    FORCE_SHARE,
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let operands = operands(&call.operands())?;
    let (Some(source), Some(target)) = (&operands.source, &operands.target) else {
        return Err(Complaint::new("Must specify both input and output files"));
    };
    let source = call.image(source.as_ref(), "format")?;
    let chain = source.open()?;
    let format = call.said.value("output-format");
    let format = format.unwrap_or_else(|| "raw".into());
    if !wording::is_known_format(&format) {
        return Err(Complaint::new("Unknown file format"));
    }
    let part = operands.part_of(chain.size());
    let arguments = match ImageOptions::of_format(&format) {
        Some(options) => options.to_arguments(part.len),
        None => Vec::new(),
    };
    let image = new_image::parse(&format, &arguments, Some(chain.info()), false)?;
    part.copy(&chain, target, &image).map_err(|error| {
        let reason = wording::creating(&error, target);
        Complaint::new(format!(
            "{target}: error while creating output image: {reason}"
        ))
    })?;
    if part.is_skipped {
        let text = format!("{}: cannot skip to specified offset", source.name());
        return Err(Complaint::new(text).with_code(0));
    }
    Ok(0)
}

fn operands(said: &[String]) -> Result<Operands, Complaint> {
    let mut parsed = Operands::default();
    for operand in said {
        let (key, value) = operand.split_once('=').unwrap_or((operand, ""));
        match key {
            "if" => parsed.source = Some(value.into()),
            "of" => parsed.target = Some(value.into()),
            "bs" => parsed.block = number(value, "bs", 1, MOST_BLOCK)?,
            "count" => parsed.count = Some(plain_number(value, "count", 0, MOST)?),
            "skip" => parsed.skip = plain_number(value, "skip", 0, MOST)?,
            key => {
                let text = format!("unrecognized operand {key}");
                return Err(Complaint::new(text));
            }
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dd_does_not_know_is_refused() {
        for text in ["seek=1", "bs=0", "bs=2G", "count=1k", "skip=x", "count=-1"] {
            assert!(operands(&[text.to_string()]).is_err(), "{text}");
        }
    }
}
