//! The toy's check.

use std::collections::BTreeSet;

use blockdev_core::{CheckReport, Finding, Result, Severity, Storage};

use super::table::{BLOCK, FIRST_BLOCK, Header, read_table};

pub(crate) fn check(storage: &dyn Storage) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let header = Header::read(storage)?;
    let blocks = storage.len()? / BLOCK;
    let mut used = BTreeSet::new();
    for block in [header.active, header.snapshot] {
        let mut here = BTreeSet::new();
        for (n, entry) in read_table(storage, block)?.into_iter().enumerate() {
            let fault = if entry < 2 {
                continue;
            } else if entry < FIRST_BLOCK || entry >= blocks {
                Some("an entry leads outside the file")
            } else if !here.insert(entry) {
                Some("two entries lead to one block")
            } else {
                None
            };
            used.insert(entry);
            if let Some(message) = fault {
                report.push(finding(Severity::Corruption, message, n), 100);
            }
        }
    }
    for block in FIRST_BLOCK..blocks {
        if !used.contains(&block) {
            report.push(finding(Severity::Leak, "a block nobody names", 0), 100);
        }
    }
    Ok(report)
}

fn finding(severity: Severity, message: &'static str, entry: usize) -> Finding {
    Finding {
        severity,
        section: "table",
        code: "toy",
        message: message.into(),
        reference: "the drawing",
        offset: Some(entry as u64 * 8),
        numbers: Vec::new(),
    }
}
