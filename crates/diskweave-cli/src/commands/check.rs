//! `check`: every finding, and an exit code that sums them up.

use diskweave::core::CheckReport;
use serde_json::{Value, json};

use super::shown;
use crate::args::{Check, Output};
use crate::failure::Failure;
use crate::output::json;
use crate::output::plain::{plain, print};

const CLEAN: u8 = 0;
const CORRUPT: u8 = 2;
const LEAKS: u8 = 3;
const NOTHING_TO_CHECK: u8 = 63;

pub(crate) fn run(args: &Check) -> Result<u8, Failure> {
    let disk = args.open.disk(&args.file, args.format.as_ref());
    let checked =
        diskweave::check(&args.file, &disk).map_err(|e| Failure::about(shown(&args.file), e))?;
    let Some(report) = checked.report else {
        let failure = Failure::new("This image format does not support checks");
        return Err(failure.with_code(NOTHING_TO_CHECK));
    };
    match args.output {
        Output::Json => {
            json::print(&as_json(
                &report,
                &args.file.display().to_string(),
                checked.format,
            ))?;
        }
        Output::Human if !args.quiet => print(&as_text(&report, checked.format))?,
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
