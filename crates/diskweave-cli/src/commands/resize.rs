//! `resize`: another size of the disk.

use diskweave::core::BlockDevice;

use super::shown;
use crate::args::Resize;
use crate::failure::Failure;
use crate::output::plain::print;
use crate::output::size;

pub(crate) fn run(args: &Resize) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.image.file), e);
    let disk = args.image.disk().writable();
    let mut chain = disk.open(&args.image.file).map_err(about)?;
    let sector = u64::from(chain.info().logical_sector_size);
    let size = wanted(&args.size, chain.size(), sector)?;
    if size < chain.size() && !args.shrink {
        let text = "Use the --shrink option to perform a shrink operation.";
        return Err(Failure::new(text));
    }
    diskweave::resize(&mut chain, size).map_err(about)?;
    chain.close().map_err(about)?;
    if !args.quiet {
        print("Image resized.\n")?;
    }
    Ok(0)
}

/// The size that `text` asks for, of a disk of `now` bytes: in whole sectors of so many bytes.
fn wanted(text: &str, now: u64, sector: u64) -> Result<u64, Failure> {
    let (number, relative) = match text.strip_prefix(['+', '-']) {
        Some(number) => (number, true),
        None => (text, false),
    };
    let bytes = size::parse(number).map_err(Failure::new)?;
    let size = match (relative, text.starts_with('-')) {
        (false, _) => Some(bytes),
        (true, false) => now.checked_add(bytes),
        (true, true) => now.checked_sub(bytes),
    };
    let size = size.and_then(|size| size.checked_next_multiple_of(sector));
    size.ok_or_else(|| Failure::new(format!("the disk of {now} bytes cannot change by {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_taken_from_the_present_size() {
        let size = |text| wanted(text, 1 << 20, 512).ok();
        assert_eq!(size("2M"), Some(2 << 20));
        assert_eq!(size("+1M"), Some(2 << 20));
        assert_eq!(size("-512K"), Some(512 << 10));
        assert_eq!(size("1000"), Some(1024));
        assert_eq!(size("-2M"), None);
        assert_eq!(size("+16E"), None);
        assert_eq!(size("much"), None);
        assert_eq!(wanted("1000", 1 << 20, 4096).ok(), Some(4096));
    }
}
