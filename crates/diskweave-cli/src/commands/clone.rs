//! `clone`: a child that reads as its base, at once.

use diskweave::core::BlockDevice;
use diskweave::core::locate::ChainPolicy;
use diskweave::{ChildImage, CloneOptions, NewImage, clone_disk};

use super::{exports, new_image, shown};
use crate::args::Child;
use crate::failure::Failure;

pub(crate) fn run(args: &Child) -> Result<u8, Failure> {
    exports::refuse_to_make(&args.child)?;
    exports::refuse(&args.base, "create -b makes an image over it")?;
    let options = CloneOptions::new()
        .image(image(args)?)
        .overwrite(args.overwrite);
    let open = args.open.disk(&args.base, args.format.as_ref());
    clone_disk(&args.base, &args.child, &open, &options)
        .map_err(|e| Failure::about(shown(&args.child), e).without_hint())?;
    Ok(0)
}

/// What the child is to be, which the base has a say in where its options are given.
fn image(args: &Child) -> Result<ChildImage, Failure> {
    if args.options.is_empty() {
        return Ok(match &args.output_format {
            Some(format) => ChildImage::Format(format.clone()),
            None => ChildImage::LikeBase,
        });
    }
    let open = args.open.disk(&args.base, args.format.as_ref());
    let base = open.policy(ChainPolicy::Deny).open(&args.base);
    let base = base.map_err(|e| Failure::about(shown(&args.base), e))?;
    let format = match (&args.output_format, base.info().format) {
        (Some(format), _) => format,
        (None, "raw") => "qcow2",
        (None, own) => own,
    };
    let mut image = new_image::parse(format, &args.options, None, true)?;
    if let NewImage::Qcow2(create) = &image
        && create.backing.is_some()
    {
        return Err(Failure::new("the backing file of a clone is its base"));
    }
    let path = args.base.canonicalize();
    let path = path.map_err(|e| Failure::about(shown(&args.base), e.into()))?;
    let name = path.to_str().ok_or_else(|| {
        let text = format!("{} is no Unicode", shown(&path));
        Failure::new(text)
    })?;
    new_image::link(&mut image, &args.options, &args.child, name, &base)?;
    Ok(ChildImage::Image(image))
}
