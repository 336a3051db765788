//! `convert`: a disk written out as another image.

use std::path::Path;

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, ErrorKind};
use diskweave::{ConvertOptions, NewImage, Progress, Source, convert, convert_over};

use super::{new_image, shown};
use crate::args::Convert;
use crate::failure::Failure;
use crate::interrupt::{INTERRUPTED, Interruptible};
use crate::output::progress;

pub(crate) fn run(args: &Convert) -> Result<u8, Failure> {
    if args.sources.len() > 1 && args.snapshot.is_some() {
        return Err(Failure::new(
            "a snapshot is of one source, and there are several",
        ));
    }
    let disks = args.sources.iter().map(|path| open(args, path));
    let disks = disks.collect::<Result<Vec<Chain>, Failure>>()?;
    let like = disks.first().map(BlockDevice::info);
    let mut image = new_image::parse(&args.output_format, &args.options, like)?;
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
    if args.sources.len() > 1 && backing.is_some() {
        let text = "an image over a backing file is made of one source, and there are several";
        return Err(Failure::new(text));
    }
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
    let result = Source::concat(&disks).and_then(|source| match &below {
        Some(below) => convert_over(source, below, destination, &image, &options, &watcher),
        None => convert(source, destination, &image, &options, &watcher),
    });
    let interrupted = watcher.is_cancelled();
    drop(watcher);
    let sources: Vec<String> = args
        .sources
        .iter()
        .map(|path| shown(path).to_string())
        .collect();
    let both = format!("{} to {}", sources.join(", "), shown(&args.destination));
    result.map_err(|e| match e.kind() {
        // The destination: there is no reading it all the same.
        ErrorKind::Locked => Failure::about(both, e).without_hint(),
        ErrorKind::InvalidInput if interrupted => Failure::about(both, e).with_code(INTERRUPTED),
        _ => Failure::about(both, e),
    })?;
    Ok(0)
}

/// The disk at `path`, which is one of the sources.
fn open(args: &Convert, path: &Path) -> Result<Chain, Failure> {
    let mut disk = args.open.disk(path, args.format.as_ref());
    if let Some(snapshot) = &args.snapshot {
        disk = disk.snapshot(snapshot.clone());
    }
    disk.open(path).map_err(|e| Failure::about(shown(path), e))
}
