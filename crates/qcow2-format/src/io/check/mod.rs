//! Checking: every reference counted and compared with its refcount, all findings, nothing changed.
//!
//! ```text
//!   metadata   header, tables, snapshots, bitmaps       ─┐
//!   mapping    L1 tables ─► L2 tables ─► data clusters   ├─► counts ◄─compare─► refcount blocks
//!   refcounts  refcount table and blocks                ─┘
//! ```
//!
//! A table that several others refer to is read once and counted as often as it is referred to, and
//! tables that overlap are not read for longer than the file is, so no file makes a check long.

mod mapping;
mod metadata;
mod refcounts;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev_core::{
    ByteRange, CheckReport, Error, ErrorKind, Finding, OpenMode, OpenOptions, Result, Severity,
    Storage,
};

use super::open::load;
use crate::inspect::FirstCluster;
use crate::meta::cluster::Rules;
use crate::meta::counts::Counts;
use crate::meta::references::Breach;
use mapping::TableUse;
use refcounts::StoredRefcounts;

/// Checks the qcow2 file in `storage` without changing it, and collects everything that is wrong.
/// Backing files and data files are not looked at.
///
/// The counters are those of `qemu-img check`: a corruption for each cluster whose refcount is too
/// low and each entry that is wrong, a leak for each cluster whose refcount is too high.
///
/// # Errors
/// [`NotRecognised`](ErrorKind::NotRecognised) for a file of another format,
/// [`Unsupported`](ErrorKind::Unsupported) for encryption and unknown features,
/// [`Io`](ErrorKind::Io). Damage of any sort is in the report instead.
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::{FileOptions, FileStorage};
///
/// let file = FileStorage::open("disk.qcow2", FileOptions::read_only())?;
/// let report = qcow2_format::check(Arc::new(file), &qcow2_format::OpenOptions::read_only())?;
/// for finding in &report.findings {
///     println!("{finding}");
/// }
/// assert!(report.is_clean());
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub fn check(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<CheckReport> {
    let mut options = options.clone();
    options.mode = OpenMode::ReadOnly;
    let mut report = CheckReport::default();
    let first = match load(&*storage, &options) {
        Ok(first) => first,
        Err(error) => {
            let finding = damage("header", "does-not-open", "Header", error)?;
            report.push(finding, options.limits.check_findings);
            return Ok(report);
        }
    };
    let mut checker = Checker::new(&*storage, &first, &options, report)?;
    checker.metadata(&first)?;
    checker.mapping(&first.header)?;
    checker.refcount_table(&first.header)?;
    checker.compare(&first.header)?;
    Ok(checker.report)
}

/// References to every cluster, and the first fault that no refcount explains.
pub(super) struct Counted {
    pub(super) counts: Counts,
    pub(super) wrong: Option<Finding>,
    /// The refcount table or its blocks are at fault, or it cannot be told.
    pub(super) structure_wrong: bool,
}

/// Counts what refers to each cluster; the refcount table and its blocks only if `all` is set.
pub(super) fn references(
    storage: &dyn Storage,
    options: &OpenOptions,
    first: &FirstCluster,
    all: bool,
) -> Result<Counted> {
    let mut checker = Checker::new(storage, first, options, CheckReport::default())?;
    checker.metadata(first)?;
    checker.mapping(&first.header)?;
    if all {
        checker.refcount_table(&first.header)?;
    }
    let structure_wrong = checker.report.suppressed > 0
        || checker
            .report
            .findings
            .iter()
            .any(|finding| finding.section == "refcounts" || finding.code == "refcount-table");
    let findings = checker.report.findings.into_iter();
    let mut wrong = findings.filter(|finding| {
        finding.severity == Severity::Corruption && finding.code != "copied-flag"
    });
    Ok(Counted {
        wrong: wrong.next(),
        structure_wrong,
        counts: checker.counts,
    })
}

struct Checker<'a> {
    storage: &'a dyn Storage,
    stored: StoredRefcounts<'a>,
    rules: Rules,
    /// The external data file is a raw image of the disk.
    raw_data_file: bool,
    /// Bytes in a cluster.
    cluster: u64,
    file_len: u64,
    report: CheckReport,
    limit: usize,
    counts: Counts,
    /// Places of structures that nothing else may share.
    areas: Vec<(ByteRange, &'static str)>,
    /// L2 tables by place, with how often they are referred to.
    tables: BTreeMap<u64, TableUse>,
    /// Bytes of tables that may still be read: tables that do not overlap are no longer together
    /// than the file.
    unread: u64,
}

impl<'a> Checker<'a> {
    fn new(
        storage: &'a dyn Storage,
        first: &FirstCluster,
        options: &OpenOptions,
        mut report: CheckReport,
    ) -> Result<Self> {
        let header = &first.header;
        let file_len = storage.len()?;
        let pages = options.page_cache().owner();
        report.total_blocks = header.size.div_ceil(header.cluster_size());
        Ok(Self {
            stored: StoredRefcounts::new(storage, header, pages, file_len),
            storage,
            rules: Rules {
                geometry: header.geometry(),
                version: header.version,
                has_data_file: header.has_data_file(),
            },
            raw_data_file: header.is_data_file_raw(),
            cluster: header.cluster_size(),
            file_len,
            report,
            limit: options.limits.check_findings,
            counts: Counts::default(),
            areas: Vec::new(),
            tables: BTreeMap::new(),
            unread: file_len.saturating_add(header.cluster_size()),
        })
    }
}

impl Checker<'_> {
    fn push(
        &mut self,
        severity: Severity,
        section: &'static str,
        (code, message): Breach,
        offset: impl Into<Option<u64>>,
    ) {
        let reference = match section {
            "header" => "qcow2: Header",
            "snapshots" => "qcow2: Snapshots",
            "bitmaps" => "qcow2: Bitmaps",
            "refcounts" => "qcow2: Host cluster management",
            _ => "qcow2: Cluster mapping",
        };
        let finding = Finding {
            severity,
            section,
            code,
            message,
            reference,
            offset: offset.into(),
            numbers: Vec::new(),
        };
        self.report.push(finding, self.limit);
    }

    fn corrupt(
        &mut self,
        section: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
        offset: impl Into<Option<u64>>,
    ) {
        self.push(
            Severity::Corruption,
            section,
            (code, message.into()),
            offset,
        );
    }

    /// Adds the numbers that the finding before speaks of, if that was kept.
    fn numbers(&mut self, numbers: &[(&'static str, u64)]) {
        if self.report.suppressed == 0
            && let Some(finding) = self.report.findings.last_mut()
        {
            finding.numbers = numbers.to_vec();
        }
    }

    /// Notes `times` references to the clusters of a range; false, with a finding at `from`, when
    /// the range is not in the file. The last cluster of a file may be cut short.
    fn refer(
        &mut self,
        section: &'static str,
        (offset, len): (u64, u64),
        times: u32,
        from: u64,
    ) -> bool {
        if len == 0 {
            return true;
        }
        let end = offset.checked_add(len);
        let inside = |end: &u64| {
            offset <= self.file_len && end.saturating_sub(self.file_len) <= self.cluster
        };
        let Some(end) = end.filter(inside) else {
            let message =
                format!("it refers to {len} bytes at {offset:#x}, past the end of the file");
            self.corrupt(section, "outside-the-file", message, from);
            self.numbers(&[("offset", offset), ("length", len)]);
            return false;
        };
        for cluster in offset / self.cluster..end.div_ceil(self.cluster) {
            self.counts.add(cluster, times);
        }
        true
    }

    /// As [`refer`](Self::refer), for a structure that shares its clusters with nothing.
    fn own(
        &mut self,
        name: &'static str,
        section: &'static str,
        offset: u64,
        len: u64,
        from: u64,
    ) -> bool {
        let fine = self.refer(section, (offset, len), 1, from);
        if fine && let Some(range) = ByteRange::new(offset, len) {
            self.areas.push((range, name));
        }
        fine
    }

    /// Takes `bytes` from what may still be read of tables; false, with a finding, when there is
    /// not so much.
    fn may_read(&mut self, section: &'static str, offset: u64, bytes: u64) -> bool {
        match self.unread.checked_sub(bytes) {
            Some(left) => {
                self.unread = left;
                true
            }
            None => {
                let message = "tables overlap: together they are longer than the file";
                self.corrupt(section, "tables-overlap", message, offset);
                false
            }
        }
    }

    /// Takes a failure for a finding, unless the host is to blame.
    fn damage<T>(&mut self, section: &'static str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let finding = damage(section, "unreadable", section, error)?;
                self.report.push(finding, self.limit);
                Ok(None)
            }
        }
    }
}

/// `error` as a finding, unless it is no damage.
fn damage(
    section: &'static str,
    code: &'static str,
    reference: &'static str,
    error: Error,
) -> Result<Finding> {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::LimitExceeded) {
        return Err(error);
    }
    let (offset, message) = match error.location() {
        Some(at) => (
            Some(at.offset),
            format!("{}: {}", at.structure, error.message()),
        ),
        None => (None, error.message().to_string()),
    };
    Ok(Finding {
        severity: Severity::Corruption,
        section,
        code,
        message: message.into(),
        reference,
        offset,
        numbers: Vec::new(),
    })
}
