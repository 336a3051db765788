//! `check`: every finding, what was repaired, and an exit code that sums up what is left.

use diskweave::core::CheckReport;
use serde_json::{Value, json};

use super::shown;
use crate::args::{Check, Output, Repair};
use crate::failure::Failure;
use crate::output::json;
use crate::output::plain::{plain, print};

const CLEAN: u8 = 0;
const CORRUPT: u8 = 2;
const LEAKS: u8 = 3;
const NOTHING_TO_CHECK: u8 = 63;

pub(crate) fn run(args: &Check) -> Result<u8, Failure> {
    let disk = args.image.disk();
    let about = |e| Failure::about(shown(&args.image.file), e);
    if let Some(what) = args.repair {
        let leaks_only = what == Repair::Leaks;
        let repaired = diskweave::repair(&args.image.file, &disk, leaks_only).map_err(about)?;
        return tell(
            args,
            &repaired.after,
            Some(&repaired.before),
            repaired.format,
        );
    }
    let checked = diskweave::check(&args.image.file, &disk).map_err(about)?;
    let Some(report) = checked.report else {
        let failure = Failure::new("This image format does not support checks");
        return Err(failure.with_code(NOTHING_TO_CHECK));
    };
    tell(args, &report, None, checked.format)
}

/// Tells what is in `report`, and what a repair mended since the one `before` it.
fn tell(
    args: &Check,
    report: &CheckReport,
    before: Option<&CheckReport>,
    format: &str,
) -> Result<u8, Failure> {
    let fixed =
        |of: fn(&CheckReport) -> u64| before.map_or(0, |b| of(b).saturating_sub(of(report)));
    let [leaks, corruptions] = [
        fixed(|report| report.leaks),
        fixed(|report| report.corruptions),
    ];
    match args.output {
        Output::Json => {
            let mut value = as_json(report, &args.image.file.display().to_string(), format);
            for (name, count) in [("leaks-fixed", leaks), ("corruptions-fixed", corruptions)] {
                if count > 0 {
                    value[name] = count.into();
                }
            }
            json::print(&value)?;
        }
        Output::Human if !args.quiet => {
            if leaks + corruptions > 0 {
                print(&format!(
                    "The following inconsistencies were found and repaired:\n\n    {leaks} leaked \
                     clusters\n    {corruptions} corruptions\n\nDouble checking the fixed image \
                     now...\n"
                ))?;
            }
            print(&as_text(report, format))?;
        }
        Output::Human => {}
    }
    Ok(match (report.corruptions, report.leaks) {
        (0, 0) => CLEAN,
        (0, _) => LEAKS,
        _ => CORRUPT,
    })
}

fn as_text(report: &CheckReport, format: &str) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        out += &format!("{}\n", plain(&finding.to_string()));
    }
    if report.suppressed > 0 {
        out += &format!("{} more findings are not shown\n", report.suppressed);
    }
    if !report.findings.is_empty() {
        out += "\n";
    }
    if report.is_clean() {
        out += "No errors were found on the image.\n";
    }
    if report.corruptions > 0 {
        out += &format!(
            "{} errors were found on the image.\nData may be corrupted, or further writes to the \
             image may corrupt it.\n",
            report.corruptions
        );
    }
    if report.leaks > 0 {
        out += &format!(
            "{} leaked clusters were found on the image.\n",
            report.leaks
        );
    }
    if report.total_blocks > 0 {
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
        out += &format!("\nImage end offset: {}\n", report.image_end_offset);
    }
    out
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
