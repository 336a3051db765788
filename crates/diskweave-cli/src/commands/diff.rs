//! `diff`: where two disks differ, shown or kept. The exit code is the answer, as that of `compare`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use blockdev_nbd::NbdOpener;
use diskweave::chain::{Chain, Differences, View};
use diskweave::core::BlockDevice;
use diskweave::{ConvertOptions, NewImage, convert_over, qcow2};
use serde_json::json;

use super::{exports, new_image, shown};
use crate::args::{Diff, Output};
use crate::failure::Failure;
use crate::interrupt::watched;
use crate::output::json;
use crate::output::plain::print;

const SAME: u8 = 0;
const DIFFERENT: u8 = 1;
const FAILED: u8 = 2;

/// Differences are told by sectors.
const SECTOR: u64 = 512;

pub(crate) fn run(args: &Diff) -> Result<u8, Failure> {
    compared(args).map_err(|failure| failure.or_code(FAILED))
}

fn compared(args: &Diff) -> Result<u8, Failure> {
    let open = |path: &Path, format: &Option<String>| {
        let disk = args.open.disk(path, format.as_ref()).open(path);
        disk.map_err(|e| Failure::about(shown(path), e))
    };
    let first = open(&args.first, &args.format)?;
    let second = match &args.second {
        Some(path) => Some(open(path, &args.second_format)?),
        None => None,
    };
    let (old, new) = match &second {
        Some(second) => (first.whole(), second.whole()),
        None => {
            let parent = first.view(1);
            let parent = parent.ok_or_else(|| Failure::new("the image refers to no parent"))?;
            (parent, first.whole())
        }
    };
    match &args.to {
        Some(to) => keep(args, &first, second.as_ref(), to),
        None => show(args, old, new),
    }
}

fn show(args: &Diff, old: View<'_>, new: View<'_>) -> Result<u8, Failure> {
    let all = watched(&args.watch, None, shown(&args.first), |watcher| {
        Differences::between(old, new, SECTOR, watcher)?.collect::<Result<Vec<_>, _>>()
    })?;
    let length = |range: &Range<u64>| range.end - range.start;
    match args.output {
        Output::Json => {
            let ranges = all.iter();
            let ranges = ranges.map(|range| json!({"start": range.start, "length": length(range)}));
            json::print(&ranges.collect::<Vec<_>>())?;
        }
        Output::Human if !args.watch.quiet => {
            for range in &all {
                print(&format!("{:#x} {:#x}\n", range.start, length(range)))?;
            }
        }
        Output::Human => {}
    }
    Ok(if all.is_empty() { SAME } else { DIFFERENT })
}

/// Writes what differs to a child of the old disk.
fn keep(args: &Diff, first: &Chain, second: Option<&Chain>, to: &Path) -> Result<u8, Failure> {
    let Some(second) = second else {
        let text = "a child is the file of its differences already";
        return Err(Failure::new(text));
    };
    exports::refuse_to_make(to)?;
    let mut image = new_image::parse(
        &args.output_format,
        &args.options,
        Some(second.info()),
        true,
    )?;
    let name = named(&args.first, to)?;
    if let NewImage::Qcow2(create) = &mut image {
        create.backing = Some(qcow2::Backing {
            name: name.clone(),
            format: first.info().format.into(),
        });
    }
    new_image::link(&mut image, &args.options, to, &name, first)?;
    watched(&args.watch, None, shown(to), |watcher| {
        convert_over(
            second,
            first,
            to,
            &image,
            &ConvertOptions::default(),
            watcher,
        )
    })?;
    Ok(SAME)
}

/// What an image at `child` calls the file `parent`: by its name alone where it lies beside it.
fn named(parent: &Path, child: &Path) -> Result<String, Failure> {
    let failed = |e| Failure::about(shown(parent), diskweave::core::Error::from(e));
    if let (true, Some(name)) = (NbdOpener::is_export(parent), parent.to_str()) {
        return Ok(name.to_owned());
    }
    let directory = match child.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(failed)?;
    let beside = parent.parent() == Some(&*directory.canonicalize().map_err(failed)?);
    let name = match parent.file_name() {
        // What precedes a colon would be taken for a protocol, unless a slash comes first.
        Some(name) if beside && name.to_string_lossy().contains(':') => Path::new(".").join(name),
        Some(name) if beside => PathBuf::from(name),
        _ => parent,
    };
    let name = name.into_os_string().into_string();
    name.map_err(|name| Failure::new(format!("{} is no Unicode", shown(Path::new(&name)))))
}
