//! `create`: an image that holds nothing yet.

use diskweave::core::ErrorKind;
use diskweave::{NewImage, create};

use super::{exports, new_image, shown};
use crate::args::Create;
use crate::failure::Failure;

pub(crate) fn run(args: &Create) -> Result<u8, Failure> {
    exports::refuse_to_make(&args.file)?;
    let (file, format) = (args.backing.as_ref(), args.backing_format.as_ref());
    let mut image = new_image::parse(&args.format, &args.options, None, file.is_some())?;
    let named = new_image::backing(&mut image, file, format)?;
    if args.unopened {
        if matches!(image, NewImage::Vhdx(_)) && named.is_some() {
            let text =
                "a VHDX records its parent's identity, which is not known unless it is opened";
            return Err(Failure::new(text));
        }
        new_image::refuse_itself(&args.file, named.as_ref())?;
    }
    let named = named.filter(|_| !args.unopened);
    let backing = new_image::open_backing(&args.open, &args.file, named.as_ref())?;
    if let (Some(named), Some(parent)) = (&named, &backing) {
        new_image::link(&mut image, &args.options, &args.file, &named.name, parent)?;
    }
    create(&args.file, &image, args.size, backing.as_ref()).map_err(|e| match e.kind() {
        ErrorKind::Locked => Failure::about(shown(&args.file), e).without_hint(),
        _ => Failure::about(shown(&args.file), e),
    })?;
    Ok(0)
}
