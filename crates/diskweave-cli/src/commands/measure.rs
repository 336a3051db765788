//! `measure`: how much space an image will take, before it is made.

use diskweave::NewImage;
use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, Result};
use diskweave::qcow2::Qcow2Image;
use serde_json::json;

use super::{new_image, shown};
use crate::args::{Measure, Output};
use crate::failure::Failure;
use crate::output::json;
use crate::output::plain::print;

pub(crate) fn run(args: &Measure) -> std::result::Result<u8, Failure> {
    let source = match &args.file {
        Some(file) => {
            let mut disk = args.open.disk(file, args.format.as_ref());
            if let Some(snapshot) = &args.snapshot {
                disk = disk.snapshot(snapshot.clone());
            }
            Some(
                disk.open(file)
                    .map_err(|e| Failure::about(shown(file), e))?,
            )
        }
        None => None,
    };
    let size = args.size.unwrap_or(0);
    let like = source.as_ref().map(|chain| chain.info());
    let image = new_image::parse(&args.output_format, &args.options, like, false)?;
    let about = |e| match &args.file {
        Some(file) => Failure::about(shown(file), e),
        None => Failure::new(e),
    };
    show(&image, size, source.as_ref(), args.output).map_err(about)??;
    Ok(0)
}

/// Tells what `image` takes for a disk of `size` bytes, or for `source`. The outer error is one of measuring,
/// the inner one of telling.
pub(crate) fn show(
    image: &NewImage,
    size: u64,
    source: Option<&Chain>,
    output: Output,
) -> Result<std::result::Result<(), Failure>> {
    let device = source.map(|chain| chain as &dyn BlockDevice);
    let measured = image.measure(size, device)?;
    let bitmaps = source.map_or(Ok(None), |chain| bitmaps(image, chain))?;
    Ok(match output {
        Output::Json => {
            let mut value = json!({});
            if let Some(bytes) = bitmaps {
                value["bitmaps"] = bytes.into();
            }
            value["required"] = measured.required.into();
            value["fully-allocated"] = measured.fully_allocated.into();
            json::print(&value)
        }
        Output::Human => {
            let mut text = format!(
                "required size: {}\nfully allocated size: {}\n",
                measured.required, measured.fully_allocated
            );
            if let Some(bytes) = bitmaps {
                text += &format!("bitmaps size: {bytes}\n");
            }
            print(&text)
        }
    })
}

/// What the source's bitmaps would take in `image`, where both can have any.
fn bitmaps(image: &NewImage, source: &Chain) -> Result<Option<u64>> {
    let (NewImage::Qcow2(create), Some(top)) =
        (image, source.top().as_any().downcast_ref::<Qcow2Image>())
    else {
        return Ok(None);
    };
    if create.version < 3 || top.header().version < 3 {
        return Ok(None);
    }
    let mut create = create.clone();
    create.size = source.size();
    Ok(Some(create.measure_bitmaps(&top.bitmaps()?)))
}
