//! `flatten`: a chain written out as one image that needs no other.

use diskweave::core::BlockDevice;
use diskweave::flatten;

use super::{exports, new_image, shown};
use crate::args::Flatten;
use crate::failure::Failure;
use crate::interrupt::watched;

pub(crate) fn run(args: &Flatten) -> Result<u8, Failure> {
    exports::refuse_to_make(&args.destination)?;
    let disk = args.open.disk(&args.source, args.format.as_ref());
    let disk = disk.open(&args.source);
    let disk = disk.map_err(|e| Failure::about(shown(&args.source), e))?;
    let format = args.output_format.as_deref().unwrap_or(disk.info().format);
    let image = new_image::parse(format, &args.options, Some(disk.info()), false)?;
    let both = format!("{} to {}", shown(&args.source), shown(&args.destination));
    watched(&args.watch, None, both, |watcher| {
        flatten(&disk, &args.destination, &image, watcher)
    })?;
    Ok(0)
}
