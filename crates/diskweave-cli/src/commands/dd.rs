//! `dd`: a part of a disk, written out as an image.

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, Result as CoreResult};
use diskweave::{ConvertOptions, NewImage, NoProgress, Source, convert};

use super::{new_image, shown};
use crate::args::Dd;
use crate::failure::Failure;
use crate::output::size;

/// Blocks are so long at most.
pub(crate) const MOST_BLOCK: u64 = i32::MAX as u64;

const SECTOR: u64 = 512;

/// `if=…` and its like.
#[derive(Debug)]
pub(crate) struct Operands {
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
    /// Bytes of a block.
    pub(crate) block: u64,
    /// Blocks, with those that are skipped.
    pub(crate) count: Option<u64>,
    /// Blocks that are passed over at the beginning.
    pub(crate) skip: u64,
}

impl Default for Operands {
    fn default() -> Self {
        Self {
            source: None,
            target: None,
            block: SECTOR,
            count: None,
            skip: 0,
        }
    }
}

/// A part of a disk, in whole sectors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    start: u64,
    pub(crate) len: u64,
    /// It would begin behind where it would end.
    pub(crate) is_skipped: bool,
}

impl Operands {
    fn parse(said: &[String]) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for operand in said {
            let wrong = |why: String| Failure::new(format!("{operand}: {why}"));
            let (key, value) = operand.split_once('=').unwrap_or((operand, ""));
            let number = || size::parse(value).map_err(wrong);
            match key {
                "if" => parsed.source = Some(value.into()),
                "of" => parsed.target = Some(value.into()),
                "bs" => parsed.block = number()?,
                "count" => parsed.count = Some(number()?),
                "skip" => parsed.skip = number()?,
                _ => {
                    let expected = "expected if=, of=, bs=, count= and skip=";
                    return Err(wrong(expected.into()));
                }
            }
        }
        match parsed.block {
            1..=MOST_BLOCK => Ok(parsed),
            other => Err(Failure::new(format!(
                "bs is {other}, expected 1 to {MOST_BLOCK}"
            ))),
        }
    }

    /// The part that is meant of a disk of `size` bytes. As to `qemu-img dd` 10.0.2, blocks that are skipped
    /// count.
    pub(crate) fn part_of(&self, size: u64) -> Part {
        let whole = size.next_multiple_of(SECTOR);
        let end = self
            .count
            .and_then(|count| count.checked_mul(self.block))
            .map_or(whole, |end| end.min(whole));
        let start = self.block.saturating_mul(self.skip);
        Part {
            start: start.min(whole),
            len: end.saturating_sub(start).next_multiple_of(SECTOR),
            is_skipped: start > end,
        }
    }
}

impl Part {
    /// Writes it out as the image `target`, with every byte of it in its place.
    pub(crate) fn copy(&self, chain: &Chain, target: &str, image: &NewImage) -> CoreResult<()> {
        let mut options = ConvertOptions::default();
        options.sparse_bytes = 0;
        let part = Source::part_of(chain, self.start, self.len)?;
        convert(part, target, image, &options, &NoProgress)
    }
}

pub(crate) fn run(args: &Dd) -> Result<u8, Failure> {
    let operands = Operands::parse(&args.operands)?;
    let (Some(source), Some(target)) = (&operands.source, &operands.target) else {
        return Err(Failure::new(
            "if=SOURCE and of=DESTINATION must both be said",
        ));
    };
    let path = std::path::Path::new(source);
    let about = |error| Failure::about(shown(path), error);
    let disk = args.open.disk(path, args.format.as_ref());
    let chain = disk.open(path).map_err(about)?;
    let part = operands.part_of(chain.size());
    let image = new_image::parse(&args.output_format, &[], Some(chain.info()), false)?;
    if part.is_skipped {
        let text = format!(
            "{}: the part begins behind the end of the disk",
            shown(path)
        );
        return Err(Failure::new(text));
    }
    let both = format!("{} to {}", shown(path), shown(std::path::Path::new(target)));
    part.copy(&chain, target, &image)
        .map_err(|error| Failure::about(both, error))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_from_the_start_and_end_with_the_disk() {
        let part = |text: &str| {
            let operands: Vec<String> = text.split(' ').map(String::from).collect();
            let part = Operands::parse(&operands).unwrap().part_of(4096);
            (part.start, part.len, part.is_skipped)
        };
        assert_eq!(part("bs=512"), (0, 4096, false));
        assert_eq!(part("bs=1000 count=3 skip=1"), (1000, 2048, false));
        assert_eq!(part("bs=1000 count=9 skip=1"), (1000, 3584, false));
        assert_eq!(part("bs=1000 count=1 skip=2"), (2000, 0, true));
        assert_eq!(part("bs=1000 skip=5"), (4096, 0, true));
        assert_eq!(part("bs=512 count=8 skip=1"), (512, 3584, false));
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        for text in ["seek=1", "bs=0", "bs=2G", "count=x"] {
            assert!(Operands::parse(&[text.to_string()]).is_err(), "{text}");
        }
    }
}
