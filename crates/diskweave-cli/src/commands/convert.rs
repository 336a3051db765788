//! `convert`: a disk written out as another image.

use diskweave::core::{BlockDevice, ErrorKind};
use diskweave::{ConvertOptions, NewImage, Progress, convert, convert_over};

use super::{new_image, shown};
use crate::args::Convert;
use crate::failure::Failure;
use crate::interrupt::{INTERRUPTED, Interruptible};
use crate::output::progress;

pub(crate) fn run(args: &Convert) -> Result<u8, Failure> {
    let mut disk = args.open.disk(&args.source, args.format.as_ref());
    if let Some(snapshot) = &args.snapshot {
        disk = disk.snapshot(snapshot.clone());
    }
    let source = disk
        .open(&args.source)
        .map_err(|e| Failure::about(shown(&args.source), e))?;
    let mut image = new_image::parse(&args.output_format, &args.options, Some(source.info()))?;
    if args.compress {
        match &mut image {
            NewImage::Qcow2(create) => create.compressed = true,
            _ => return Err(Failure::new("only qcow2 images can be compressed")),
        }
    }
    let backing = new_image::backing(
        &mut image,
        args.backing.as_ref(),
        args.backing_format.as_ref(),
    )?;
    let below = new_image::open_backing(&args.open, &args.destination, backing.as_ref())?;
    let mut options = ConvertOptions::default();
    options.sparse_bytes = usize::try_from(args.sparse_size)
        .map_err(|_| Failure::new("the sparse size is too large"))?;
    if let Some(workers) = args.workers {
        options.workers = workers;
    }
    let watcher = progress::choose(args.progress_style, args.progress, args.quiet);
    let watcher = Interruptible::new(watcher);
    let destination = &args.destination;
    let result = match &below {
        Some(below) => convert_over(&source, below, destination, &image, &options, &watcher),
        None => convert(&source, destination, &image, &options, &watcher),
    };
    let interrupted = watcher.is_cancelled();
    drop(watcher);
    let both = format!("{} to {}", shown(&args.source), shown(&args.destination));
    result.map_err(|e| match e.kind() {
        // The destination: there is no reading it all the same.
        ErrorKind::Locked => Failure::about(both, e).without_hint(),
        ErrorKind::InvalidInput if interrupted => Failure::about(both, e).with_code(INTERRUPTED),
        _ => Failure::about(both, e),
    })?;
    Ok(0)
}
