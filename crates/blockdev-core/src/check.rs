//! What a check found: everything, with its place; it does not stop at the first.

use std::borrow::Cow;
use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Against the specification, but no content is at risk.
    Warning,
    /// Space that nothing refers to.
    Leak,
    /// Content or structure is damaged.
    Corruption,
}

impl Severity {
    /// The severity as a lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Leak => "leak",
            Self::Corruption => "corruption",
        }
    }
}

/// One thing a check has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The part of the image: `header`, `bat`, `log` …
    pub section: &'static str,
    /// Stable machine-readable code.
    pub code: &'static str,
    /// What was found and what was expected.
    pub message: Cow<'static, str>,
    /// The rule's place in the format's specification.
    pub reference: &'static str,
    /// Byte offset in the host file, where the finding has one.
    pub offset: Option<u64>,
    /// Numbers that the message speaks of, by name, for programs.
    pub numbers: Vec<(&'static str, u64)>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.section)?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset:#x}")?;
        }
        write!(f, ": {} [{}] ({})", self.message, self.code, self.reference)
    }
}

/// Everything a check found, and what it counted on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// The findings, in the order they were met, at most as many as the limit allows.
    pub findings: Vec<Finding>,
    /// Findings of [`Severity::Corruption`], kept or not.
    pub corruptions: u64,
    /// Findings of [`Severity::Leak`], kept or not.
    pub leaks: u64,
    /// Findings of [`Severity::Warning`], kept or not.
    pub warnings: u64,
    /// Findings left out because the limit was met.
    pub suppressed: u64,
    /// Blocks or clusters of the virtual disk.
    pub total_blocks: u64,
    /// Of those, the ones that have space in the image.
    pub allocated_blocks: u64,
    /// Of the allocated ones, those that do not lie right behind the one before them in the same
    /// table; compressed ones all count. 0 where the format has no such figure.
    pub fragmented_blocks: u64,
    /// Of the allocated ones, those that are compressed.
    pub compressed_blocks: u64,
    /// End of the last structure or block, in bytes from the start of the image.
    pub image_end_offset: u64,
}

impl CheckReport {
    /// Takes in one finding, keeping at most `limit` of them.
    pub fn push(&mut self, finding: Finding, limit: usize) {
        match finding.severity {
            Severity::Corruption => self.corruptions += 1,
            Severity::Leak => self.leaks += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Note => {}
        }
        if self.findings.len() < limit {
            self.findings.push(finding);
        } else {
            self.suppressed += 1;
        }
    }

    /// True when nothing is damaged and nothing leaks.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0 && self.leaks == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_past_the_limit_are_still_counted() {
        let mut report = CheckReport::default();
        for _ in 0..3 {
            let finding = Finding {
                severity: Severity::Corruption,
                section: "bat",
                code: "bat-overlap",
                message: "two blocks share a place".into(),
                reference: "[MS-VHDX] 2.5.1",
                offset: Some(0x30_0000),
                numbers: Vec::new(),
            };
            report.push(finding, 2);
        }
        assert_eq!(
            (report.findings.len(), report.corruptions, report.suppressed),
            (2, 3, 1)
        );
        assert!(!report.is_clean());
        assert_eq!(
            report.findings[0].to_string(),
            "corruption: bat at 0x300000: two blocks share a place [bat-overlap] ([MS-VHDX] 2.5.1)"
        );
    }
}
