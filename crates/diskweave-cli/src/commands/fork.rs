//! `fork`: a disk that becomes the base of the one in its place.

use diskweave::{ChildImage, Forked, fork};

use super::{exports, shown};
use crate::args::Fork;
use crate::failure::Failure;
use crate::output::plain::print;

pub(crate) fn run(args: &Fork) -> Result<u8, Failure> {
    for file in [&args.disk, &args.base] {
        exports::refuse(file, "a fork takes the names of files")?;
    }
    let image = match &args.output_format {
        Some(format) => ChildImage::Format(format.clone()),
        None => ChildImage::LikeBase,
    };
    let open = args.open.disk(&args.disk, args.format.as_ref());
    let forked = fork(&args.disk, &args.base, &open, &image)
        .map_err(|e| Failure::about(shown(&args.disk), e).without_hint())?;
    if !args.quiet {
        let before = match forked {
            Forked::Before => ", as it was already",
            _ => "",
        };
        let (disk, base) = (shown(&args.disk), shown(&args.base));
        print(&format!("Image {disk} is over {base} now{before}.\n"))?;
    }
    Ok(0)
}
