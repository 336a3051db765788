//! `map`: what each part of a disk is, and where it is stored.

use std::io::{BufWriter, Write, stdout};
use std::path::Path;

use diskweave::chain::LayerInfo;
use diskweave::core::{BlockDevice, Extent, ExtentKind, HostFile, HostPlace, Result as CoreResult};

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
    let files: Vec<Files> = chain.links().map(|link| Files::of(&link)).collect();
    let mut out = BufWriter::new(stdout().lock());
    let mut lines = 0;
    if args.output == Output::Human {
        writeln!(
            out,
            "{:<16}{:<16}{:<16}File",
            "Offset", "Length", "Mapped to"
        )?;
    }
    let length = args.max_length.unwrap_or(u64::MAX);
    let mut extents = chain.extents(args.start_offset, length).peekable();
    while let Some(extent) = extents.next() {
        let (start, mut extent) = extent.map_err(about)?;
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
        match args.output {
            Output::Json => {
                out.write_all(if lines == 0 { b"[" } else { b",\n" })?;
                write!(out, "{}", as_json(start, &extent, chain.is_detached()))?;
            }
            Output::Human => {
                let depth = usize::try_from(extent.depth).expect("the depth of a layer");
                as_row(&mut out, start, &extent, &files[depth])?;
            }
        }
        lines += 1;
    }
    if args.output == Output::Json {
        writeln!(out, "{}", if lines == 0 { "[]" } else { "]" })?;
    }
    out.flush()?;
    Ok(0)
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
