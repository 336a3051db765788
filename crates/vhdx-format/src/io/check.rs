//! Checking: every rule over every structure, all findings, nothing changed.
//!
//! The rules live in `meta`; this file reads the structures and hands them over. Where the log is
//! not empty it is replayed in memory first, as any reader must.

use std::sync::Arc;

use blockdev_core::{
    ByteRange, CheckReport, Error, ErrorKind, Finding, OpenMode, OpenOptions, Recovery, Result,
    Severity, Storage,
};

use super::inspect;
use super::log::log_contents;
use super::open::{check_bat_length, geometry};
use super::replay::ReplayPlan;
use crate::VhdxError;
use crate::image::VhdxImage;
use crate::known::{BAT_REGION, METADATA_REGION};
use crate::meta::bat::{BITMAP_BLOCK_BYTES, ReadSemantics, Source, bitmap_place, payload_source};
use crate::meta::geometry::BatSlot;
use crate::meta::headers::HeaderCopy;
use crate::meta::problem::{Effect, Problem};
use crate::meta::space::Space;
use crate::ondisk::MIB;
use crate::ondisk::bat_entry::{BatEntry, BitmapState, PayloadState};

/// Checks the VHDX file in `storage` without changing it, and collects everything that is wrong.
///
/// # Errors
/// [`NotRecognised`](ErrorKind::NotRecognised) for a file of another format,
/// [`Io`](ErrorKind::Io). Damage of any sort is in the report instead.
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::{FileOptions, FileStorage};
///
/// let file = FileStorage::open("disk.vhdx", FileOptions::read_only())?;
/// let report = vhdx_format::check(Arc::new(file), &vhdx_format::OpenOptions::read_only())?;
/// for finding in &report.findings {
///     println!("{finding}");
/// }
/// assert!(report.is_clean());
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub fn check(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<CheckReport> {
    inspect::file_identifier(&*storage)?;
    let mut checker = Checker {
        report: CheckReport::default(),
        limit: options.limits.check_findings,
    };
    checker.file(&storage, options)?;

    let mut options = options.clone();
    options.mode = OpenMode::ReadOnly;
    options.recovery = Recovery::InMemory;
    match VhdxImage::open(storage, &options) {
        Ok(image) => checker.blocks(&image)?,
        // The reason is among the findings already, unless a rule is known to opening alone.
        Err(_) if checker.report.corruptions > 0 => {}
        Err(error) => checker.error("file", "does-not-open", "[MS-VHDX] 2", error)?,
    }
    Ok(checker.report)
}

struct Checker {
    report: CheckReport,
    limit: usize,
}

impl Checker {
    fn add(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            self.report.push(problem.into_finding(), self.limit);
        }
    }

    /// Takes a failure for a finding, unless the host is to blame.
    fn error(
        &mut self,
        section: &'static str,
        code: &'static str,
        reference: &'static str,
        error: Error,
    ) -> Result<()> {
        if matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace) {
            return Err(error);
        }
        let (offset, message) = match error.location() {
            Some(at) => (
                Some(at.offset),
                format!("{}: {}", at.structure, error.message()),
            ),
            None => (None, error.message().to_string()),
        };
        let severity = Severity::Corruption;
        let message = message.into();
        self.report.push(
            Finding {
                severity,
                section,
                code,
                message,
                reference,
                offset,
                numbers: Vec::new(),
            },
            self.limit,
        );
        Ok(())
    }

    /// The result of a step, or a finding and `None`.
    fn step<T>(
        &mut self,
        section: &'static str,
        code: &'static str,
        reference: &'static str,
        result: Result<T, impl Into<Error>>,
    ) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self
                .error(section, code, reference, error.into())
                .map(|()| None),
        }
    }

    /// Everything but the blocks.
    fn file(&mut self, storage: &Arc<dyn Storage>, options: &OpenOptions) -> Result<()> {
        let headers = inspect::headers(&**storage)?;
        self.add(headers.problems());
        let Ok(header) = headers.current() else {
            return Ok(());
        };
        let problems = header.problems(storage.len()?);
        let usable = problems
            .iter()
            .all(|problem| problem.effect != Effect::Refused);
        self.add(problems);
        if !usable {
            return Ok(());
        }
        let Some(replayed) = self.log(storage, header, options)? else {
            return Ok(());
        };
        self.regions(&*replayed, header)
    }

    /// The log; gives the file as it is after replay.
    fn log(
        &mut self,
        storage: &Arc<dyn Storage>,
        header: &HeaderCopy,
        options: &OpenOptions,
    ) -> Result<Option<Arc<dyn Storage>>> {
        if header.log_guid.is_nil() {
            return Ok(Some(Arc::clone(storage)));
        }
        let (section, reference) = ("log", "[MS-VHDX] 2.3.3");
        let contents = log_contents(&**storage, header, &options.limits);
        let Some(contents) = self.step(section, "log-unreadable", reference, contents)? else {
            return Ok(None);
        };
        for found in contents.found.iter().filter(|found| found.active) {
            let h = &found.header;
            for (field, value) in [
                ("FlushedFileOffset", h.flushed_file_offset),
                ("LastFileOffset", h.last_file_offset),
            ] {
                if value % MIB != 0 {
                    let error = VhdxError::Field {
                        structure: "log entry",
                        offset: header.log_offset + u64::from(found.log_offset),
                        field,
                        found: value.to_string(),
                        expected: "a multiple of 1 MiB".into(),
                    };
                    let code = "log-file-offset";
                    self.add(vec![Problem::warning(
                        section,
                        code,
                        "[MS-VHDX] 2.3.1.1",
                        error,
                    )]);
                }
            }
        }
        let plan = ReplayPlan::new(&**storage, header, &contents);
        let Some(plan) = self.step(section, "log-not-replayable", reference, plan)? else {
            return Ok(None);
        };
        let Some(plan) = plan else {
            return Ok(Some(Arc::clone(storage)));
        };
        let error = VhdxError::LogNotEmpty {
            offset: header.log_offset,
            entries: plan.entries(),
        };
        self.add(vec![Problem::note(
            section,
            "log-not-empty",
            reference,
            error,
        )]);
        let replayed = plan.in_memory(Arc::clone(storage), options.limits.log_bytes);
        self.step(section, "log-not-replayable", reference, replayed)
    }

    fn regions(&mut self, storage: &dyn Storage, header: &HeaderCopy) -> Result<()> {
        let tables = inspect::region_tables(storage)?;
        self.add(tables.problems());
        let Ok(table) = tables.current() else {
            return Ok(());
        };
        let log = header.log_range().expect("the header was checked");
        self.add(table.problems(log, storage.len()?));
        let range = |guid| table.find(guid).and_then(crate::RegionEntry::range);
        match range(METADATA_REGION) {
            Some(metadata) => self.metadata(storage, metadata, range(BAT_REGION)),
            None => Ok(()),
        }
    }

    fn metadata(
        &mut self,
        storage: &dyn Storage,
        region: ByteRange,
        bat: Option<ByteRange>,
    ) -> Result<()> {
        let (section, reference) = ("metadata", "[MS-VHDX] 2.6.2");
        let table = inspect::metadata_table(storage, region)?;
        let problems = table.problems(region.len());
        let usable = problems
            .iter()
            .all(|problem| problem.effect != Effect::Refused);
        self.add(problems);
        if !usable {
            return Ok(());
        }
        let items = inspect::metadata_items(storage, &table);
        let Some(items) = self.step(section, "metadata-items", reference, items)? else {
            return Ok(());
        };
        if let Some(locator) = &items.parent_locator {
            self.add(locator.problems());
        }
        let geometry = geometry(&items, &table);
        let Some(geometry) = self.step(section, "metadata-values", reference, geometry)? else {
            return Ok(());
        };
        if let Some(bat) = bat {
            let long = check_bat_length(&geometry, bat, items.file_parameters.has_parent);
            self.step("bat", "bat-too-short", "[MS-VHDX] 2.5", long)?;
        }
        Ok(())
    }

    /// Every BAT entry of an image that opens.
    fn blocks(&mut self, image: &VhdxImage) -> Result<()> {
        let mut space = Space::new(image.fixed_structures());
        self.report.total_blocks = image.geometry().payload_blocks();
        for entry in image.bat_entries() {
            let (index, slot, entry) = entry?;
            let entry_offset = image.tables().entry_offset(index);
            match slot {
                BatSlot::Payload { block } => {
                    self.payload(image, &mut space, (block, entry, entry_offset))?;
                }
                BatSlot::Bitmap { chunk } => {
                    self.bitmap(image, &mut space, (chunk, entry, entry_offset))?;
                }
            }
            if entry.reserved_bits() != 0 {
                let error = VhdxError::Field {
                    structure: "BAT entry",
                    offset: entry_offset,
                    field: "Reserved",
                    found: format!("{:#x}", entry.reserved_bits()),
                    expected: "0".into(),
                };
                self.add(vec![Problem::warning(
                    "bat",
                    "bat-reserved",
                    "[MS-VHDX] 2.5.1",
                    error,
                )]);
            }
        }
        self.report.image_end_offset = space.end();
        if space.is_incomplete() {
            let error = VhdxError::Limit {
                structure: "BAT",
                offset: 0,
                what: "space that blocks are spread over",
                found: image.frame().file_len,
                limit: Space::MAX_BYTES,
            };
            let code = "bat-overlap-unchecked";
            self.add(vec![Problem::warning(
                "bat",
                code,
                "[MS-VHDX] 2.5.1",
                error,
            )]);
        }
        Ok(())
    }

    fn payload(
        &mut self,
        image: &VhdxImage,
        space: &mut Space,
        (block, entry, entry_offset): (u64, BatEntry, u64),
    ) -> Result<()> {
        let reference = "[MS-VHDX] 2.5.1.1";
        let geometry = image.geometry();
        let needed = geometry.block_len(block);
        if needed == 0 {
            self.beyond_disk(block, entry, entry_offset);
            return Ok(());
        }
        let (frame, semantics) = (image.frame(), ReadSemantics::Effective);
        let source = payload_source(entry, entry_offset, block, needed, frame, semantics);
        let Some(source) = self.step("bat", "bat-payload", reference, source)? else {
            return Ok(());
        };
        let place = entry.file_offset();
        let what = || format!("payload block {block}");
        match source {
            Source::Data(_) | Source::Partial(_) => {
                self.report.allocated_blocks += 1;
                let taken = space.take(place, geometry.block_size());
                self.taken(taken, what(), entry_offset);
            }
            // A place kept with another state is the block's old content, if it is anything.
            Source::Zero | Source::Absent => {}
        }
        if let Source::Partial(_) = source {
            let chunk = geometry.chunk_of(block);
            let index = geometry.bitmap_index(chunk);
            if let Some((_, bitmap)) = image.bat_entry(index)? {
                let offset = image.tables().entry_offset(index);
                let place = bitmap_place(bitmap, offset, chunk, frame.file_len);
                self.step("bat", "bat-bitmap-missing", "[MS-VHDX] 2.5.1.2", place)?;
            }
        }
        Ok(())
    }

    /// The table of a differencing disk goes on to the end of its last chunk.
    fn beyond_disk(&mut self, block: u64, entry: BatEntry, entry_offset: u64) {
        if entry.payload_state() == Some(PayloadState::NotPresent) {
            return;
        }
        let error = VhdxError::Block {
            offset: entry_offset,
            what: format!("payload block {block}"),
            place: entry.file_offset(),
            problem: "is past the end of the disk".into(),
        };
        // Nothing reads it.
        self.add(vec![Problem::warning(
            "bat",
            "bat-beyond-disk",
            "[MS-VHDX] 2.5",
            error,
        )]);
    }

    fn bitmap(
        &mut self,
        image: &VhdxImage,
        space: &mut Space,
        (chunk, entry, entry_offset): (u64, BatEntry, u64),
    ) -> Result<()> {
        let reference = "[MS-VHDX] 2.5.1.2";
        if entry.bitmap_state() == Some(BitmapState::NotPresent) {
            return Ok(());
        }
        let frame = image.frame();
        let what = format!("sector bitmap block {chunk}");
        if !frame.has_parent {
            let error = VhdxError::Block {
                offset: entry_offset,
                what,
                place: entry.file_offset(),
                problem: "is present in a disk that has no parent".into(),
            };
            // Nothing reads it.
            self.add(vec![Problem::warning(
                "bat",
                "bat-bitmap-unused",
                reference,
                error,
            )]);
            return Ok(());
        }
        let place = bitmap_place(entry, entry_offset, chunk, frame.file_len);
        if let Some(place) = self.step("bat", "bat-bitmap", reference, place)? {
            let taken = space.take(place, BITMAP_BLOCK_BYTES);
            self.taken(taken, what, entry_offset);
        }
        Ok(())
    }

    fn taken(&mut self, by: Option<&str>, what: String, offset: u64) {
        if let Some(other) = by {
            let other = other.to_string();
            let error = VhdxError::Overlap {
                structure: "BAT entry",
                offset,
                what,
                other,
            };
            self.add(vec![Problem::refused(
                "bat",
                "bat-overlap",
                "[MS-VHDX] 2.5.1",
                error,
            )]);
        }
    }
}
