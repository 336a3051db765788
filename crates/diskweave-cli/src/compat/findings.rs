//! Findings of a check in QEMU's words, on standard error; those that QEMU has no words for in ours.

use diskweave::Repaired;
use diskweave::core::{CheckReport, Finding, Severity};

use crate::commands::check::Fixed;
use crate::output::plain::{complain, plain};

/// Tells what a check found.
pub(crate) fn tell(report: &CheckReport) {
    for line in lines(report, |_| true) {
        complain(&line);
    }
}

/// Tells what a check found but for flags, which say nothing where refcounts are wrong.
pub(crate) fn tell_counts(report: &CheckReport) {
    for line in lines(report, |code| code != FLAG) {
        complain(&line);
    }
}

/// Whether nothing but refcounts that are all written anew would help.
pub(crate) fn needs_new_refcounts(report: &CheckReport) -> bool {
    let low = |finding: &Finding| finding.code == REFCOUNTS[0];
    let mut findings = report.findings.iter();
    findings.any(|finding| low(finding) && number(finding, "refcount") == Some(0))
}

/// Tells what a check before a repair found, what was repaired, and what is left.
pub(crate) fn tell_repair(repaired: &Repaired) {
    let (before, mended) = (&repaired.before, &repaired.mended);
    let of = |report: &CheckReport, codes: &[&str]| -> Vec<Finding> {
        let findings = report.findings.iter();
        let findings = findings.filter(|finding| codes.contains(&finding.code));
        findings.cloned().collect()
    };
    // As a check, but flags are looked at when refcounts are right.
    tell_counts(before);
    let moved = of(mended, &["refcounts-moved"]);
    if moved.is_empty() {
        let right = of(mended, &REFCOUNTS);
        for finding in of(before, &REFCOUNTS) {
            let mended = right.iter().any(|other| other.numbers == finding.numbers);
            complain(&said(&finding, mended));
        }
        for finding in of(mended, &[FLAG]) {
            complain(&said(&finding, true));
        }
        for finding in of(&repaired.after, &[FLAG]) {
            complain(&said(&finding, false));
        }
    } else {
        complain("Rebuilding refcount structure");
        for finding in &moved {
            complain(&said(finding, true));
        }
    }
    // What was changed is checked once more.
    if mended.leaks + mended.corruptions > 0 {
        tell(&repaired.after);
    }
}

/// What was repaired, counted as QEMU counts it.
pub(crate) fn fixed(repaired: &Repaired) -> Fixed {
    let has_log = |report: &CheckReport| {
        let mut findings = report.findings.iter();
        findings.any(|finding| finding.code == "log-not-empty")
    };
    if repaired.format == "qcow2" {
        return Fixed {
            leaks: repaired.mended.leaks,
            corruptions: repaired.mended.corruptions,
        };
    }
    let mut fixed = Fixed::between(&repaired.before, &repaired.after);
    // A log that was replayed was a fault to QEMU.
    fixed.corruptions += u64::from(has_log(&repaired.before) && !has_log(&repaired.after));
    fixed
}

const FLAG: &str = "copied-flag";
const REFCOUNTS: [&str; 2] = ["refcount-low", "refcount-high"];

/// Those with a code that is `wanted`, in QEMU's order: first what is wrong by itself, then refcounts, then
/// flags.
fn lines(report: &CheckReport, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.retain(|finding| finding.severity >= Severity::Leak && wanted(finding.code));
    findings.sort_by_key(|finding| match finding.code {
        code if REFCOUNTS.contains(&code) => 1,
        FLAG => 2,
        _ => 0,
    });
    findings
        .into_iter()
        .map(|finding| said(finding, false))
        .collect()
}

/// What is said of `finding`, which is `mended` or not.
fn said(finding: &Finding, mended: bool) -> String {
    let line = line(finding);
    let rest = ["ERROR ", "Leaked "]
        .iter()
        .find_map(|what| line.strip_prefix(what));
    match (mended, rest) {
        (true, Some(rest)) => format!("Repairing {rest}"),
        _ => line,
    }
}

fn number(finding: &Finding, name: &str) -> Option<u64> {
    let mut numbers = finding.numbers.iter();
    numbers.find_map(|(of, number)| (*of == name).then_some(*number))
}

fn line(finding: &Finding) -> String {
    let number = |name: &str| number(finding, name);
    let told = match finding.code {
        "refcount-high" | "refcount-low" | "refcounts-moved" => counts(finding, number),
        FLAG => flag(finding, number),
        "l1-unaligned" => number("place").map(|place| {
            format!("ERROR l2_offset={place:x}: Table is not cluster aligned; L1 entry corrupted")
        }),
        "l2-unaligned" => number("place").map(|place| {
            format!(
                "ERROR offset={place:x}: Data cluster is not properly aligned; L2 entry corrupted."
            )
        }),
        "l2-subclusters" => number("place").map(|place| {
            format!("ERROR offset={place:x}: Allocated cluster has corrupted subcluster allocation bitmap")
        }),
        "outside-the-file" => range(number),
        _ => None,
    };
    told.unwrap_or_else(|| plain(&format!("ERROR {finding}")))
}

fn counts(finding: &Finding, number: impl Fn(&str) -> Option<u64>) -> Option<String> {
    let what = match finding.severity {
        Severity::Leak => "Leaked",
        _ => "ERROR",
    };
    let (cluster, refcount, references) = (
        number("cluster")?,
        number("refcount")?,
        number("references")?,
    );
    Some(format!(
        "{what} cluster {cluster} refcount={refcount} reference={references}"
    ))
}

fn flag(finding: &Finding, number: impl Fn(&str) -> Option<u64>) -> Option<String> {
    let (entry, index, refcount) = (number("entry")?, number("index")?, number("refcount")?);
    Some(match finding.section {
        "l1" => format!(
            "ERROR OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}"
        ),
        _ => format!("ERROR OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}"),
    })
}

fn range(number: impl Fn(&str) -> Option<u64>) -> Option<String> {
    let (offset, length) = (number("offset")?, number("length")?);
    Some(format!(
        "ERROR: counting reference for region exceeding the end of the file by one cluster or more: \
         offset {offset:#x} size {length:#x}"
    ))
}
