//! `check`: every finding, what was repaired, and an exit code that sums up what is left.

use diskweave::core::CheckReport;
use serde::Serialize;
use serde_json::{Value, json};

use super::info::Facts;
use super::shown;
use crate::args::{Check, Output, Repair};
use crate::failure::Failure;
use crate::output::json;
use crate::output::plain::{plain, print};

const CLEAN: u8 = 0;
const CORRUPT: u8 = 2;
const LEAKS: u8 = 3;
pub(crate) const NOTHING_TO_CHECK: u8 = 63;

pub(crate) fn run(args: &Check) -> Result<u8, Failure> {
    let disk = args.read_cache.open(args.image.disk());
    let about = |e| Failure::about(shown(&args.image.file), e);
    let filename = args.image.file.display().to_string();
    let look = Look {
        filename: &filename,
        output: args.output,
        quiet: args.quiet,
        facts: Facts::All,
    };
    if let Some(what) = args.repair {
        let leaks_only = what == Repair::Leaks;
        let repaired = diskweave::repair(&args.image.file, &disk, leaks_only).map_err(about)?;
        let fixed = Fixed::between(&repaired.before, &repaired.after);
        return show(&repaired.after, fixed, repaired.format, &look);
    }
    let checked = diskweave::check(&args.image.file, &disk).map_err(about)?;
    let Some(report) = checked.report else {
        let failure = Failure::new("This image format does not support checks");
        return Err(failure.with_code(NOTHING_TO_CHECK));
    };
    show(&report, Fixed::default(), checked.format, &look)
}

/// How a check is told of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// The image, as it was named.
    pub(crate) filename: &'a str,
    pub(crate) output: Output,
    pub(crate) quiet: bool,
    pub(crate) facts: Facts,
}

/// What a repair mended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fixed {
    pub(crate) leaks: u64,
    pub(crate) corruptions: u64,
}

impl Fixed {
    /// What was found before, and is not there any more.
    pub(crate) fn between(before: &CheckReport, after: &CheckReport) -> Self {
        Self {
            leaks: before.leaks.saturating_sub(after.leaks),
            corruptions: before.corruptions.saturating_sub(after.corruptions),
        }
    }
}

/// Tells what is in `report`, and what a repair mended before it. Gives the exit code.
pub(crate) fn show(
    report: &CheckReport,
    fixed: Fixed,
    format: &str,
    look: &Look<'_>,
) -> Result<u8, Failure> {
    match (look.output, look.facts) {
        (Output::Json, Facts::All) => {
            let mut value = as_json(report, look.filename, format);
            for (name, count) in [
                ("leaks-fixed", fixed.leaks),
                ("corruptions-fixed", fixed.corruptions),
            ] {
                if count > 0 {
                    value[name] = count.into();
                }
            }
            json::print(&value)?;
        }
        (Output::Json, Facts::OfQemu) if look.quiet => {}
        (Output::Json, Facts::OfQemu) => {
            json::print(&AsQemu::new(report, fixed, look.filename, format))?;
        }
        (Output::Human, _) if look.quiet => {}
        (Output::Human, facts) => {
            if fixed.leaks + fixed.corruptions > 0 {
                print(&format!(
                    "The following inconsistencies were found and repaired:\n\n    {} leaked \
                     clusters\n    {} corruptions\n\nDouble checking the fixed image now...\n",
                    fixed.leaks, fixed.corruptions
                ))?;
            }
            print(&as_text(report, format, facts))?;
        }
    }
    Ok(match (report.corruptions, report.leaks) {
        (0, 0) => CLEAN,
        (0, _) => LEAKS,
        _ => CORRUPT,
    })
}

fn as_text(report: &CheckReport, format: &str, facts: Facts) -> String {
    let mut out = String::new();
    // Between what stands for itself; without findings there is nothing before it.
    let mut gap = "";
    if facts == Facts::All {
        for finding in &report.findings {
            out += &format!("{}\n", plain(&finding.to_string()));
        }
        if report.suppressed > 0 {
            out += &format!("{} more findings are not shown\n", report.suppressed);
        }
        if !report.findings.is_empty() {
            out += "\n";
        }
    } else {
        gap = "\n";
    }
    if report.is_clean() {
        out += "No errors were found on the image.\n";
    }
    if report.corruptions > 0 {
        out += &format!(
            "{gap}{} errors were found on the image.\nData may be corrupted, or further writes to the \
             image may corrupt it.\n",
            report.corruptions
        );
    }
    if report.leaks > 0 {
        out += &format!(
            "{gap}{} leaked clusters were found on the image.\nThis means waste of disk space, but no \
             harm to data.\n",
            report.leaks
        );
    }
    // QEMU counts what is in a qcow2 image, and tells of it where there is something.
    let (counts, shares) = match facts {
        Facts::All => (report.total_blocks > 0, report.total_blocks > 0),
        Facts::OfQemu => (
            format == "qcow2",
            format == "qcow2" && report.allocated_blocks > 0,
        ),
    };
    if shares {
        // Two decimals of a percentage need no more precision than this.
        #[allow(clippy::cast_precision_loss)]
        let percent = report.allocated_blocks as f64 * 100.0 / report.total_blocks as f64;
        let (allocated, total) = (report.allocated_blocks, report.total_blocks);
        out += &format!("{allocated}/{total} = {percent:.2}% allocated");
        if format == "qcow2" {
            // Of those that are allocated; none is no part of none.
            #[allow(clippy::cast_precision_loss)]
            let part = |blocks: u64| blocks as f64 * 100.0 / allocated.max(1) as f64;
            out += &format!(
                ", {:.2}% fragmented, {:.2}% compressed clusters",
                part(report.fragmented_blocks),
                part(report.compressed_blocks)
            );
        }
        out += "\n";
    }
    if counts {
        out += &format!("Image end offset: {}\n", report.image_end_offset);
    }
    out
}

/// A check in the schema of `qemu-img check --output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct AsQemu<'a> {
    #[serde(skip_serializing_if = "is_none")]
    image_end_offset: u64,
    #[serde(skip_serializing_if = "is_none")]
    compressed_clusters: u64,
    #[serde(skip_serializing_if = "is_none")]
    total_clusters: u64,
    #[serde(skip_serializing_if = "is_none")]
    corruptions: u64,
    #[serde(skip_serializing_if = "is_none")]
    corruptions_fixed: u64,
    check_errors: u64,
    #[serde(skip_serializing_if = "is_none")]
    leaks: u64,
    #[serde(skip_serializing_if = "is_none")]
    leaks_fixed: u64,
    #[serde(skip_serializing_if = "is_none")]
    allocated_clusters: u64,
    filename: &'a str,
    format: &'a str,
    #[serde(skip_serializing_if = "is_none")]
    fragmented_clusters: u64,
}

/// What is 0 is not told.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl<'a> AsQemu<'a> {
    fn new(report: &CheckReport, fixed: Fixed, filename: &'a str, format: &'a str) -> Self {
        let of_qcow2 = |count: u64| if format == "qcow2" { count } else { 0 };
        Self {
            image_end_offset: of_qcow2(report.image_end_offset),
            compressed_clusters: of_qcow2(report.compressed_blocks),
            total_clusters: of_qcow2(report.total_blocks),
            corruptions: report.corruptions,
            corruptions_fixed: fixed.corruptions,
            check_errors: 0,
            leaks: report.leaks,
            leaks_fixed: fixed.leaks,
            allocated_clusters: of_qcow2(report.allocated_blocks),
            filename,
            format,
            fragmented_clusters: of_qcow2(report.fragmented_blocks),
        }
    }
}

fn as_json(report: &CheckReport, filename: &str, format: &str) -> Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "severity": finding.severity.as_str(),
                "section": finding.section,
                "code": finding.code,
                "message": finding.message,
                "reference": finding.reference,
                "offset": finding.offset,
            })
        })
        .collect();
    let mut out = json!({
        "image-end-offset": report.image_end_offset,
        "total-clusters": report.total_blocks,
        "allocated-clusters": report.allocated_blocks,
        "check-errors": 0,
        "filename": filename,
        "format": format,
        "findings": findings,
        "findings-not-shown": report.suppressed,
    });
    // As qemu-img does, only where there are any.
    for (name, count) in [
        ("corruptions", report.corruptions),
        ("leaks", report.leaks),
        ("fragmented-clusters", report.fragmented_blocks),
        ("compressed-clusters", report.compressed_blocks),
    ] {
        if count > 0 {
            out[name] = count.into();
        }
    }
    out
}
