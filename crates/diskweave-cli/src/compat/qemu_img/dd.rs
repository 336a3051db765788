//! `dd`.

use diskweave::core::BlockDevice;
use diskweave::{ConvertOptions, NoProgress, Source, convert};

use super::call::{Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, MOST, OBJECT, number, plain_number};
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

/// Blocks are so long at most.
const MOST_BLOCK: u64 = i32::MAX as u64;
const SECTOR: u64 = 512;

/// `if=…` and its like.
#[derive(Debug)]
struct Operands {
    source: Option<String>,
    target: Option<String>,
    block: u64,
    count: Option<u64>,
    skip: u64,
}

impl Operands {
    fn parse(operands: &[String]) -> Result<Self, Complaint> {
        let mut parsed = Self {
            source: None,
            target: None,
            block: SECTOR,
            count: None,
            skip: 0,
        };
        for operand in operands {
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

    /// The bytes of a disk of `size` bytes that are meant, from one to another, which may be before it. As to
    /// `qemu-img dd` 10.0.2, blocks that are skipped count.
    fn part_of(&self, size: u64) -> (u64, u64) {
        let end = self
            .count
            .and_then(|count| count.checked_mul(self.block))
            .map_or(size, |end| end.min(size));
        (self.block.saturating_mul(self.skip), end)
    }
}

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let operands = Operands::parse(&call.operands())?;
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
    // As QEMU counts disks, and makes them: in whole sectors.
    let whole = chain.size().next_multiple_of(SECTOR);
    let (start, end) = operands.part_of(whole);
    let len = end.saturating_sub(start).next_multiple_of(SECTOR);
    let arguments = match ImageOptions::of_format(&format) {
        Some(options) => options.to_arguments(len),
        None => Vec::new(),
    };
    let image = new_image::parse(&format, &arguments, Some(chain.info()), false)?;
    let part = Source::part_of(&chain, start.min(whole), len)
        .map_err(|error| Complaint::new(wording::errno(&error)))?;
    let mut options = ConvertOptions::default();
    options.sparse_bytes = 0;
    convert(part, target, &image, &options, &NoProgress).map_err(|error| {
        let reason = wording::creating(&error, target);
        Complaint::new(format!(
            "{target}: error while creating output image: {reason}"
        ))
    })?;
    if start > end {
        let text = format!("{}: cannot skip to specified offset", source.name());
        return Err(Complaint::new(text).with_code(0));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_from_the_start_and_end_with_the_disk() {
        let part = |text: &str| {
            let operands: Vec<String> = text.split(' ').map(String::from).collect();
            Operands::parse(&operands).unwrap().part_of(4096)
        };
        assert_eq!(part("bs=512"), (0, 4096));
        assert_eq!(part("bs=1000 count=3 skip=1"), (1000, 3000));
        assert_eq!(part("bs=1000 count=9 skip=1"), (1000, 4096));
        assert_eq!(part("bs=1000 count=1 skip=2"), (2000, 1000));
        assert_eq!(part("bs=1000 skip=5"), (5000, 4096));
        assert_eq!(part("count=9223372036854775807 bs=512 skip=1"), (512, 4096));
    }

    #[test]
    fn what_dd_does_not_know_is_refused() {
        for text in ["seek=1", "bs=0", "bs=2G", "count=1k", "skip=x", "count=-1"] {
            assert!(Operands::parse(&[text.to_string()]).is_err(), "{text}");
        }
    }
}
