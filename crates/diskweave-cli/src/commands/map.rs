//! `map`: what each part of a disk is, and where it is stored.

use std::io::{BufWriter, Write, stdout};
use std::path::Path;

use diskweave::chain::{Chain, LayerInfo};
use diskweave::core::{BlockDevice, Extent, ExtentKind, HostFile, HostPlace, Result as CoreResult};

use super::info::Facts;
use super::shown;
use crate::args::{Map, Output};
use crate::failure::Failure;
use crate::output::plain::plain;

pub(crate) fn run(args: &Map) -> Result<u8, Failure> {
    let disk = args.image.disk();
    let about = |e| Failure::about(shown(&args.image.file), e);
    let (chain, problem) = disk.open_partial(&args.image.file).map_err(about)?;
    if let Some(problem) = problem {
        return Err(about(problem));
    }
    let length = args.max_length.unwrap_or(u64::MAX);
    let part = (args.start_offset, length);
    show(&chain, part, args.output, Facts::All).map_err(about)??;
    Ok(0)
}

/// Tells of the bytes from an offset, so many of them. The outer error is one of reading, the inner one of
/// telling.
pub(crate) fn show(
    chain: &Chain,
    (start, length): (u64, u64),
    output: Output,
    facts: Facts,
) -> CoreResult<Result<(), Failure>> {
    let mut out = BufWriter::new(stdout().lock());
    let told = tell(chain, (start, length), output, facts, &mut out);
    match (told, out.flush()) {
        (Ok(Ok(())), Err(error)) => Ok(Err(error.into())),
        (told, _) => told,
    }
}

fn tell(
    chain: &Chain,
    (start, length): (u64, u64),
    output: Output,
    facts: Facts,
    out: &mut impl Write,
) -> CoreResult<Result<(), Failure>> {
    let files: Vec<Files> = chain.links().map(|link| Files::of(&link)).collect();
    let whole = length == u64::MAX;
    let mut lines = 0;
    if output == Output::Human
        && let Err(error) = writeln!(
            out,
            "{:<16}{:<16}{:<16}File",
            "Offset", "Length", "Mapped to"
        )
    {
        return Ok(Err(error.into()));
    }
    let mut extents = chain.extents(start, length).peekable();
    while let Some(extent) = extents.next() {
        let (start, mut extent) = extent?;
        // To whoever looks at a map, packed clusters side by side are one run.
        let packed = |next: &Extent| {
            extent.kind == ExtentKind::Compressed
                && (next.kind, next.depth) == (extent.kind, extent.depth)
        };
        let more = |next: &CoreResult<(u64, Extent)>| matches!(next, Ok((_, next)) if packed(next));
        let mut further = 0;
        while let Some(Ok((_, next))) = extents.next_if(more) {
            further += next.len;
        }
        extent.len += further;
        if facts == Facts::OfQemu && whole && start + extent.len == chain.size() {
            // QEMU counts raw disks in whole sectors.
            extent.len = chain.size().next_multiple_of(512) - start;
        }
        let line = match output {
            Output::Json => {
                let before = if lines == 0 { "[" } else { ",\n" };
                let object = as_json(start, &extent, chain.is_detached());
                write!(out, "{before}{object}").map_err(Failure::from)
            }
            Output::Human => {
                let depth = usize::try_from(extent.depth).expect("the depth of a layer");
                as_row(out, start, &extent, &files[depth])
            }
        };
        if line.is_err() {
            return Ok(line);
        }
        lines += 1;
    }
    if output == Output::Human {
        return Ok(Ok(()));
    }
    let end = match (lines, facts) {
        (0, Facts::OfQemu) => format!("[{}]\n", nothing(start)),
        (0, Facts::All) => "[]\n".into(),
        _ => "]\n".into(),
    };
    Ok(out.write_all(end.as_bytes()).map_err(Failure::from))
}

/// What `qemu-img map` tells of no bytes at `start`.
fn nothing(start: u64) -> String {
    format!(
        "{{ \"start\": {start}, \"length\": 0, \"depth\": 0, \"present\": false, \"zero\": false, \"data\": \
         false, \"compressed\": false}}"
    )
}

/// The files that a layer's places are in.
struct Files {
    image: String,
    data: String,
}

impl Files {
    fn of(link: &LayerInfo<'_>) -> Self {
        let shown = |path: Option<&Path>| {
            path.map_or_else(String::new, |path| plain(&path.display().to_string()))
        };
        Self {
            image: shown(link.path),
            data: shown(link.data_path),
        }
    }
}

/// One object, laid out as `qemu-img map` does.
fn as_json(start: u64, extent: &Extent, detached: bool) -> String {
    let absent = extent.kind == ExtentKind::Absent;
    let present = !absent;
    // What is in a parent that is not open is not known to be zeros.
    let zero = extent.kind == ExtentKind::Zero || (absent && !detached);
    let data = matches!(extent.kind, ExtentKind::Data | ExtentKind::Compressed);
    let compressed = extent.kind == ExtentKind::Compressed;
    let offset = match extent.host {
        Some(HostPlace { offset, .. }) if !compressed => format!(", \"offset\": {offset}"),
        _ => String::new(),
    };
    format!(
        "{{ \"start\": {start}, \"length\": {}, \"depth\": {}, \"present\": {present}, \"zero\": \
         {zero}, \"data\": {data}, \"compressed\": {compressed}{offset}}}",
        extent.len, extent.depth
    )
}

/// One row for data; the rest is left out, as `qemu-img map` does.
fn as_row(out: &mut impl Write, start: u64, extent: &Extent, files: &Files) -> Result<(), Failure> {
    match (extent.kind, extent.host) {
        (ExtentKind::Data, Some(host)) => {
            let column = |n: u64| {
                if n == 0 {
                    "0".into()
                } else {
                    format!("{n:#x}")
                }
            };
            let [from, len, to] = [start, extent.len, host.offset].map(column);
            let file = match host.file {
                HostFile::Image => &files.image,
                HostFile::Data => &files.data,
            };
            writeln!(out, "{from:<16}{len:<16}{to:<16}{file}")?;
            Ok(())
        }
        (ExtentKind::Data | ExtentKind::Compressed, _) => Err(Failure::new(
            "File contains external, encrypted or compressed clusters.",
        )),
        (ExtentKind::Zero | ExtentKind::Absent, _) => Ok(()),
    }
}
