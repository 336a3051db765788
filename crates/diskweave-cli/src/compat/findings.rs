//! Findings of a check in QEMU's words, on standard error; those that QEMU has no words for in ours.

use diskweave::Repaired;
use diskweave::core::{CheckReport, Finding, Severity};

use crate::commands::check::Fixed;
use crate::output::plain::{complain, plain};

/// Tells what a check found.
pub(crate) fn tell(report: &CheckReport) {
    for line in lines(report) {
        complain(&line);
    }
}

/// Tells what a check before a repair found, what was repaired, and what is left.
pub(crate) fn tell_repair(repaired: &Repaired, leaks_only: bool) {
    let _ = leaks_only;
    tell(&repaired.before);
}

/// What was repaired, counted as QEMU counts it.
pub(crate) fn fixed(repaired: &Repaired) -> Fixed {
    Fixed::between(&repaired.before, &repaired.after)
}

/// In QEMU's order: first what is wrong by itself, then refcounts, then flags.
fn lines(report: &CheckReport) -> Vec<String> {
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.retain(|finding| finding.severity >= Severity::Leak);
    findings.sort_by_key(|finding| match finding.code {
        "refcount-low" | "refcount-high" => 1,
        "copied-flag" => 2,
        _ => 0,
    });
    findings.into_iter().map(line).collect()
}

fn line(finding: &Finding) -> String {
    let number = |name: &str| {
        let mut numbers = finding.numbers.iter();
        numbers.find_map(|(of, number)| (*of == name).then_some(*number))
    };
    let told = match finding.code {
        "refcount-high" | "refcount-low" => counts(finding, number),
        "copied-flag" => flag(finding, number),
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
