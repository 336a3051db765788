//! `convert`: a disk written out as another image.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use blockdev_nbd::NbdOpener;
use diskweave::chain::Chain;
use diskweave::core::locate::Opener;
use diskweave::core::{BlockDevice, ErrorKind, FileOptions, Lost};
use diskweave::{
    ConvertOptions, NewImage, Progress, Source, convert, convert_into, convert_into_disk,
    convert_into_storage, convert_over,
};

use super::{exports, new_image, shown};
use crate::args::Convert;
use crate::failure::Failure;
use crate::interrupt::{INTERRUPTED, Interruptible};
use crate::output::plain::{complain, plain};
use crate::output::progress;

pub(crate) fn run(args: &Convert) -> Result<u8, Failure> {
    write_out(args, Damaged::AsTheArgumentsSay)
}

/// The same for a source that may be too damaged to be opened otherwise.
pub(crate) fn salvage(args: &Convert) -> Result<u8, Failure> {
    write_out(args, Damaged::Salvaged)
}

/// What becomes of what cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damaged {
    /// An error, or zeros if that was asked for.
    AsTheArgumentsSay,
    /// Zeros, and the source is opened as far as what is left of it allows.
    Salvaged,
}

fn write_out(args: &Convert, damaged: Damaged) -> Result<u8, Failure> {
    if args.sources.len() > 1 && args.snapshot.is_some() {
        return Err(Failure::new(
            "a snapshot is of one source, and there are several",
        ));
    }
    let disks = args.sources.iter().map(|path| open(args, path, damaged));
    let disks = disks.collect::<Result<Vec<Chain>, Failure>>()?;
    let like = disks.first().map(BlockDevice::info);
    let has_parent = args.backing.is_some();
    let mut image = new_image::parse(&args.output_format, &args.options, like, has_parent)?;
    if args.compress {
        match &mut image {
            NewImage::Qcow2(create) => create.compressed = true,
            _ => return Err(Failure::new("only qcow2 images can be compressed")),
        }
    }
    match args.existing {
        true => check_existing(args)?,
        false => exports::refuse_to_make(&args.destination)?,
    }
    let existing = existing(args, &disks)?;
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
    if let (Some(named), Some(parent)) = (&backing, &below) {
        let destination = &args.destination;
        new_image::link(&mut image, &args.options, destination, &named.name, parent)?;
    }
    let mut options = ConvertOptions::default();
    options.sparse_bytes = usize::try_from(args.sparse_size)
        .map_err(|_| Failure::new("the sparse size is too large"))?;
    options.target_is_zero = args.target_is_zero;
    if let Some(workers) = args.workers {
        options.workers = workers;
    }
    let watcher = progress::choose(args.progress_style, args.progress, args.quiet);
    let watcher = Interruptible::new(watcher);
    let destination = &args.destination;
    let lost = Mutex::new(Lost::default());
    let result = Source::concat(&disks).and_then(|source| {
        let source = if args.salvage || damaged == Damaged::Salvaged {
            source.salvaged(&lost)
        } else {
            source
        };
        match (&below, &existing) {
            (_, Some(target)) => convert_into_disk(source, target, &options, &watcher),
            _ if NbdOpener::is_export(destination) => {
                let export = NbdOpener::default().open(destination, FileOptions::read_write())?;
                convert_into_storage(source, &*export, &options, &watcher)
            }
            _ if args.existing => convert_into(source, destination, &options, &watcher),
            (Some(below), _) => {
                convert_over(source, below, destination, &image, &options, &watcher)
            }
            _ => convert(source, destination, &image, &options, &watcher),
        }
    });
    let interrupted = watcher.is_cancelled();
    drop(watcher);
    if !args.quiet {
        tell(&lost.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
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
    if let Some(target) = existing {
        let closed = target.close();
        closed.map_err(|e| Failure::about(shown(&args.destination), e))?;
    }
    Ok(0)
}

/// The image that is there already and is written into, opened for that; `None` where one is made, and for a
/// raw image, which is written into as a file.
fn existing(args: &Convert, sources: &[Chain]) -> Result<Option<Chain>, Failure> {
    if !args.existing || args.output_format == "raw" {
        return Ok(None);
    }
    let path = &args.destination;
    // Before it is opened: the source's own lock would be in the way, and blamed on others.
    let target = path.canonicalize().ok();
    let read = sources.iter().flat_map(Chain::links);
    let mut read = read.filter_map(|link| link.path?.canonicalize().ok());
    if target.is_some() && read.any(|file| Some(&file) == target.as_ref()) {
        let text = "the destination is one of the files that the source is read from";
        return Err(Failure::new(text));
    }
    let disk = args.open.disk(path, Some(&args.output_format)).writable();
    let disk = disk.open(path);
    disk.map(Some)
        .map_err(|e| Failure::about(shown(path), e).without_hint())
}

/// The disk at `path`, which is one of the sources.
fn open(args: &Convert, path: &Path, damaged: Damaged) -> Result<Chain, Failure> {
    let disk = args.open.disk(path, args.format.as_ref());
    let mut disk = args.read_cache.open(disk);
    if damaged == Damaged::Salvaged {
        disk = disk.options(args.open.image_options().with_salvage(true));
    }
    if let Some(snapshot) = &args.snapshot {
        disk = disk.snapshot(snapshot.clone());
    }
    disk.open(path).map_err(|e| Failure::about(shown(path), e))
}

/// Refuses what cannot be done, or means nothing, for a destination that is there already.
fn check_existing(args: &Convert) -> Result<(), Failure> {
    if args.compress {
        let text = "what is written into an existing image is not compressed";
        return Err(Failure::new(text));
    }
    if !args.options.is_empty() {
        return Err(Failure::new(
            "-o is for images that are made, and -n makes none",
        ));
    }
    Ok(())
}

/// Tells what of the source could not be read.
fn tell(lost: &Lost) {
    let mut listed = 0;
    for range in &lost.ranges {
        let len = range.end - range.start;
        listed += len;
        let start = range.start;
        complain(&format!(
            "diskweave: warning: {len} bytes at {start} cannot be read and are zeros now"
        ));
    }
    if lost.bytes > listed {
        let more = lost.bytes - listed;
        complain(&format!(
            "diskweave: warning: and {more} bytes in other places"
        ));
    }
    if let Some(reason) = &lost.reason {
        complain(&format!(
            "diskweave: warning: the first failure: {}",
            plain(reason)
        ));
    }
}
