//! `convert`.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, Error, ErrorKind, Lost};
use diskweave::{
    ConvertOptions, NewImage, Progress, SnapshotName, Source, convert, convert_into,
    convert_into_disk, convert_over,
};

use super::call::{Call, FORCE_SHARE, IMAGE_OPTS, OBJECT, PROGRESS, QUIET, number};
use super::create::options_help;
use crate::commands::new_image;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::{Flag, Parsed};
use crate::compat::image::{Named, directory};
use crate::compat::options::{ImageOptions, asks_for_help, check_lists};
use crate::compat::wording;
use crate::interrupt::{INTERRUPTED, until_asked};
use crate::output::plain::complain;
use crate::output::progress::Throttled;
use crate::snapshot_name;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    PROGRESS,
    Flag::value('f', "source-format"),
    Flag::switch(' ', "source-image-opts").long_only(),
    IMAGE_OPTS,
    Flag::value('l', "source-snapshot"),
    Flag::value('T', "source-cache"),
    // Two names each: what its help says, and what qemu-img 10.0.2 takes.
    Flag::value('O', "target-format"),
    Flag::value(' ', "output-format").long_only(),
    Flag::switch(' ', "target-image-opts").long_only(),
    Flag::value('o', "target-options"),
    Flag::value(' ', "options").long_only(),
    Flag::switch('c', "compress"),
    Flag::value('t', "target-cache"),
    Flag::value('B', "backing"),
    Flag::value('F', "backing-format"),
    Flag::switch('n', "no-create"),
    Flag::switch(' ', "target-is-zero").long_only(),
    Flag::value('S', "sparse-size"),
    Flag::switch(' ', "bitmaps").long_only(),
    Flag::switch(' ', "skip-broken-bitmaps").long_only(),
    FORCE_SHARE,
    Flag::value('r', "rate"),
    Flag::value('m', "parallel"),
    Flag::switch('C', "copy-range-offloading"),
    Flag::switch(' ', "salvage").long_only(),
    Flag::switch('W', "oob-writes"),
    OBJECT,
];

/// The longest runs of zeros that can be told from shorter ones.
const MOST_SPARSE_BYTES: u64 = 16 << 20;

fn target_format(said: &Parsed) -> Option<String> {
    let format = said.value("output-format");
    format.or_else(|| said.value("target-format"))
}

fn target_options(said: &Parsed) -> Vec<String> {
    [said.values("target-options"), said.values("options")].concat()
}

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let said = &call.said;
    let format = target_format(said).unwrap_or_else(|| "raw".into());
    let lists = target_options(said);
    check_lists(&lists)?;
    if asks_for_help(&lists) {
        return options_help(&format);
    }
    let numbers = Numbers::of(call)?;
    check_switches(call)?;
    let operands = call.operands();
    let [names @ .., target] = &operands[..] else {
        return Err(Complaint::new("Must specify image file name"));
    };
    if names.is_empty() {
        return Err(Complaint::new("Must specify image file name"));
    }
    call.check_cache("target-cache", "cache")?;
    call.check_cache("source-cache", "source cache")?;
    let snapshot = snapshot(call)?;
    if snapshot.is_some() && names.len() > 1 {
        let text = "No support for concatenating multiple snapshot";
        return Err(Complaint::new(text));
    }
    let disks = names
        .iter()
        .map(|name| source(call, name)?.with_snapshot(snapshot.clone()).open());
    let disks = disks.collect::<Result<Vec<Chain>, Complaint>>()?;
    let target = Target::new(call, &format, &lists, target, &disks)?;
    write(call, &numbers, &disks, target)?;
    Ok(0)
}

/// The numbers that were said.
struct Numbers {
    workers: Option<NonZeroUsize>,
    sparse_bytes: usize,
    rate: Option<u64>,
}

impl Numbers {
    fn of(call: &Call) -> Result<Self, Complaint> {
        let workers = call.bytes("parallel", "number of coroutines", 1, 16)?;
        let sparse = match call.said.value("sparse-size") {
            None => 4096,
            Some(text) => {
                let what = "buffer size for sparse output";
                let bytes = number(&text, what, 0, u64::MAX)?;
                if !bytes.is_multiple_of(512) || bytes > MOST_SPARSE_BYTES {
                    return Err(Complaint::new(format!(
                        "Invalid {what} specified. Valid sizes are multiples of 512 up to \
                         {MOST_SPARSE_BYTES}. Select 0 to disable sparse detection (fully allocates \
                         output)."
                    )));
                }
                bytes
            }
        };
        Ok(Self {
            workers: workers.and_then(|n| NonZeroUsize::new(usize::try_from(n).ok()?)),
            sparse_bytes: usize::try_from(sparse).expect("at most 16 MiB"),
            rate: call.bytes("rate", "rate limit", 0, i64::MAX as u64)?,
        })
    }
}

/// Refuses what does not go together.
fn check_switches(call: &Call) -> Result<(), Complaint> {
    let has = |option| call.said.has(option);
    let refusals = [
        (
            has("skip-broken-bitmaps") && !has("bitmaps"),
            "Use of --skip-broken-bitmaps requires --bitmaps",
        ),
        (
            has("target-image-opts") && !has("no-create"),
            "--target-image-opts requires use of -n flag",
        ),
        (
            has("target-image-opts") && (has("target-format") || has("output-format")),
            "--image-opts and --format are mutually exclusive",
        ),
        (
            has("target-is-zero") && !has("no-create"),
            "--target-is-zero requires use of -n flag",
        ),
        (
            has("no-create") && (has("target-options") || has("options")),
            "-o has no effect when skipping image creation",
        ),
        (
            has("copy-range-offloading") && has("salvage"),
            "Cannot use copy offloading in salvaging mode",
        ),
        (
            has("copy-range-offloading") && has("sparse-size"),
            "Cannot enable copy offloading when -S is used",
        ),
        (
            has("copy-range-offloading") && has("compress"),
            "Cannot enable copy offloading when -c is used",
        ),
    ];
    match refusals.iter().find(|(refused, _)| *refused) {
        Some((_, text)) => Err(Complaint::new(text)),
        None => Ok(()),
    }
}

fn source(call: &Call, name: &str) -> Result<Named, Complaint> {
    let format = call.said.value("source-format");
    let shared = call.said.has("force-share");
    if !call.said.has("source-image-opts") && !call.said.has("image-opts") {
        return Named::new(name, format, shared);
    }
    if format.is_some() {
        let text = "--image-opts and --format are mutually exclusive";
        return Err(Complaint::new(text));
    }
    Named::of_options(name, shared)
}

fn snapshot(call: &Call) -> Result<Option<SnapshotName>, Complaint> {
    let Some(text) = call.said.value("source-snapshot") else {
        return Ok(None);
    };
    let parsed = snapshot_name::parse(&text);
    parsed.map(Some).map_err(|wrong| {
        let part = wrong.split('"').nth(1).unwrap_or_default();
        let key = part.split('=').next().unwrap_or_default();
        let failed = format!("Failed in parsing snapshot param '{text}'");
        Complaint::new(format!("Invalid parameter '{key}'")).and(failed)
    })
}

/// Where the disk goes.
enum Target<'a> {
    /// A new file.
    New {
        name: &'a str,
        image: NewImage,
        below: Option<Chain>,
    },
    /// A raw image that is there.
    Raw(Named),
    /// An image of another format that is there.
    Image(Named, Chain),
}

impl<'a> Target<'a> {
    fn new(
        call: &Call,
        format: &str,
        lists: &[String],
        name: &'a str,
        disks: &[Chain],
    ) -> Result<Self, Complaint> {
        let said = &call.said;
        let Some(mut options) = ImageOptions::of_format(format) else {
            return Err(Complaint::new(format!("Unknown file format '{format}'")));
        };
        options.take(lists)?;
        let not =
            |what: &str| Complaint::new(format!("{what} not supported for file format '{format}'"));
        // There is a backing file for the one format of QEMU's; a VHDX may have one here too.
        if let Some(file) = said.value("backing") {
            options
                .set("backing_file", file)
                .map_err(|_| not("Backing file"))?;
        }
        if let Some(format) = said.value("backing-format") {
            let set = options.set("backing_fmt", format);
            set.map_err(|_| not("Backing file format"))?;
        }
        let backing = options.value("backing_file").map(str::to_string);
        let backing = backing.filter(|name| !name.is_empty());
        if backing.is_some() && disks.len() > 1 {
            let text = "Having a backing file for the target makes no sense when concatenating multiple \
                        input images";
            return Err(Complaint::new(text));
        }
        if backing.is_some() && options.value("backing_fmt").is_none() {
            let text = "Use of backing file requires explicit backing format";
            return Err(Complaint::new(text));
        }
        if said.has("compress") && format != "qcow2" {
            let text = "Compression not supported for this file format";
            return Err(Complaint::new(text));
        }
        if said.has("bitmaps") {
            check_bitmaps(format, disks)?;
        }
        if said.has("no-create") {
            return Self::existing(call, format, name, disks);
        }
        let size = Source::concat(disks).map_err(Complaint::new)?.size();
        let while_converting = |text: String| {
            Complaint::new(format!("{name}: error while converting {format}: {text}"))
        };
        options.remove("size");
        if let Some(refusal) = options.refusal(size) {
            return Err(while_converting(refusal));
        }
        let below = match (&backing, options.value("backing_fmt")) {
            (Some(file), Some(format)) => {
                let path = match file.contains("://") {
                    true => file.into(),
                    false => directory(Path::new(name)).join(file),
                };
                let named = Named::new(&path.to_string_lossy(), Some(format.into()), false)?;
                let opened = named.disk()?.open(&named.path);
                Some(opened.map_err(|error| {
                    let reason = wording::opening(&error, &named.path);
                    let text =
                        format!("Could not open '{name}': Could not open backing file: {reason}");
                    Complaint::new(text)
                })?)
            }
            _ => None,
        };
        let like = disks.first().map(BlockDevice::info);
        let arguments = options.to_arguments(size);
        let mut image = new_image::parse(options.format(), &arguments, like, below.is_some())?;
        new_image::backing(&mut image, None, None)?;
        if said.has("compress")
            && let NewImage::Qcow2(create) = &mut image
        {
            create.compressed = true;
        }
        Ok(Self::New { name, image, below })
    }

    fn existing(call: &Call, format: &str, name: &str, disks: &[Chain]) -> Result<Self, Complaint> {
        if call.said.has("compress") {
            let text = "what is written into an existing image is not compressed here";
            return Err(Complaint::new(text));
        }
        let named = match call.said.has("target-image-opts") {
            true => Named::of_options(name, false)?,
            false => Named::new(name, Some(format.into()), false)?,
        };
        let size = Source::concat(disks).map_err(Complaint::new)?.size();
        let target = named.open_writable()?;
        if target.size() < size {
            return Err(Complaint::new("output file is smaller than input file"));
        }
        if target.info().format == "raw" && !name.contains("://") {
            return Ok(Self::Raw(named));
        }
        Ok(Self::Image(named, target))
    }

    fn name(&self) -> &str {
        match self {
            Self::New { name, .. } => name,
            Self::Raw(named) | Self::Image(named, _) => named.name(),
        }
    }
}

/// Bitmaps are not copied: where there is none, nothing is missing.
fn check_bitmaps(format: &str, disks: &[Chain]) -> Result<(), Complaint> {
    if format != "qcow2" {
        let text = format!("Format driver '{format}' does not support bitmaps");
        return Err(Complaint::new(text));
    }
    for disk in disks {
        let top = disk
            .top()
            .as_any()
            .downcast_ref::<diskweave::qcow2::Qcow2Image>();
        let bitmaps = top.map_or(Ok(Vec::new()), |image| image.bitmaps());
        if !bitmaps.map_err(Complaint::new)?.is_empty() {
            let text = "bitmaps are not copied here, and the source has some";
            return Err(Complaint::new(text));
        }
    }
    Ok(())
}

fn write(
    call: &Call,
    numbers: &Numbers,
    disks: &[Chain],
    target: Target<'_>,
) -> Result<(), Complaint> {
    let mut options = ConvertOptions::default();
    options.sparse_bytes = numbers.sparse_bytes;
    options.target_is_zero = call.said.has("target-is-zero");
    if let Some(workers) = numbers.workers {
        options.workers = workers;
    }
    let watcher: Box<dyn Progress> = match numbers.rate {
        Some(rate) if rate > 0 => Box::new(Throttled::new(call.progress(), rate)),
        _ => call.progress(),
    };
    let lost = Mutex::new(Lost::default());
    let (outcome, interrupted) = until_asked(watcher, |watcher| {
        let source = match (&target, disks) {
            // In whole sectors, as QEMU counts disks.
            (Target::New { .. }, [disk]) => {
                Source::part_of(disk, 0, disk.size().next_multiple_of(512))?
            }
            _ => Source::concat(disks)?,
        };
        let source = match call.said.has("salvage") {
            true => source.salvaged(&lost),
            false => source,
        };
        match &target {
            Target::New {
                name,
                image,
                below: None,
            } => convert(source, name, image, &options, watcher),
            Target::New {
                name,
                image,
                below: Some(below),
            } => convert_over(source, below, name, image, &options, watcher),
            Target::Raw(named) => convert_into(source, &named.path, &options, watcher),
            Target::Image(_, chain) => convert_into_disk(source, chain, &options, watcher),
        }
    });
    if !call.quiet() {
        let lost = lost
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for range in &lost.ranges {
            let text = format!("warning: error while reading offset {}", range.start);
            complain(&format!("{}: {text}", call.program()));
        }
    }
    outcome.map_err(|error| failure(&target, &error, interrupted))?;
    if let Target::Image(named, chain) = target {
        let closed = chain.close();
        closed.map_err(|error| Complaint::new(format!("{}: {error}", named.name())))?;
    }
    Ok(())
}

/// What went wrong on the way to `target`.
fn failure(target: &Target<'_>, error: &Error, interrupted: bool) -> Complaint {
    let name = target.name();
    let Target::New { image, .. } = target else {
        return Complaint::new(format!("{name}: error while writing: {error}"));
    };
    let format = match image {
        NewImage::Qcow2(_) => "qcow2",
        NewImage::Vhdx(_) => "vhdx",
        _ => "raw",
    };
    let path = Path::new(name);
    let locked = "Failed to get \"write\" lock\nIs another process using the image";
    let reason = match (wording::host(error), error.kind()) {
        _ if path.is_dir() => format!("Could not create '{name}': Is a directory"),
        _ if interrupted => error.to_string(),
        (Some(reason), _) => format!("Could not create '{name}': {reason}"),
        (None, ErrorKind::Locked) => format!("{locked} [{name}]?"),
        (None, ErrorKind::InvalidInput) if error.message().contains("read from") => {
            format!("{locked} [{name}]?")
        }
        (None, _) => error.to_string(),
    };
    let complaint = Complaint::new(format!("{name}: error while converting {format}: {reason}"));
    match interrupted {
        true => complaint.with_code(INTERRUPTED),
        false => complaint,
    }
}
