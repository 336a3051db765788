//! Replaying the log ([MS-VHDX] §2.3.3): into memory over a file that must not change, or into the
//! file itself.
//!
//! In the file, in this order, so that a crash at any point leaves a log that replays again:
//!
//! 1. the header, both copies one after the other, gets a new FileWriteGuid; flush after each;
//! 2. the entries are applied, oldest first; the file grows to LastFileOffset; flush;
//! 3. the header, both copies, loses its LogGuid; flush after each. From here the log is stale and
//!    is never replayed again.

use std::sync::Arc;

use blockdev_core::{ByteRange, Error, ErrorKind, OverlayStorage, Result, Storage, SyncKind};
use uuid::Uuid;

use super::headers::{HeaderChange, update_headers};
use super::log::{LogContents, LogRing};
use crate::VhdxError;
use crate::meta::headers::{HeaderCopy, Headers};
use crate::meta::log::{LogDescriptor, LogEntryHeader};
use crate::ondisk::log_entry::SECTOR_BYTES;
use crate::ondisk::region_table;

/// No structure of a valid file lies beyond this: 64 TiB of blocks, their tables, and as much again.
const MAX_FILE_BYTES: u64 = 128 << 40;

/// Entries that are to be applied, known to be applicable.
#[derive(Debug)]
pub(crate) struct ReplayPlan<'a> {
    header: HeaderCopy,
    log: &'a LogContents,
    head: LogEntryHeader,
}

impl<'a> ReplayPlan<'a> {
    /// Plans the replay of the log found in `storage`; `None` when the header names no log.
    ///
    /// # Errors
    /// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) when the header names a log without a valid
    /// sequence, when the file was cut short since, or when an entry would change what the log
    /// never changes.
    pub(crate) fn new(
        storage: &dyn Storage,
        header: &HeaderCopy,
        log: &'a LogContents,
    ) -> Result<Option<Self>> {
        let Some(plan) = Self::of_any_length(header, log)? else {
            return Ok(None);
        };
        let file_len = storage.len()?;
        let flushed = plan.head.flushed_file_offset;
        if file_len < flushed {
            return Err(VhdxError::Truncated {
                offset: header.log_offset,
                file_len,
                flushed,
            }
            .into());
        }
        Ok(Some(plan))
    }

    /// The same for a file that may have been cut short.
    pub(crate) fn of_any_length(header: &HeaderCopy, log: &'a LogContents) -> Result<Option<Self>> {
        if header.log_guid.is_nil() {
            return Ok(None);
        }
        let offset = header.log_offset;
        let Some(&head) = log.active.last() else {
            return Err(VhdxError::NoActiveSequence {
                offset,
                guid: header.log_guid,
            }
            .into());
        };
        let head = log.found[head].header;
        let plan = Self {
            header: *header,
            log,
            head,
        };
        plan.check_targets()?;
        Ok(Some(plan))
    }

    /// Entries in the plan.
    pub(crate) fn entries(&self) -> usize {
        self.log.active.len()
    }

    /// The log updates metadata, and never the header section's first structures nor itself.
    fn check_targets(&self) -> Result<()> {
        let log = self.header.log_range().expect("the header was checked");
        let forbid = |offset: u32, file_offset: u64, expected: &'static str| {
            Error::from(VhdxError::Field {
                structure: "log entry",
                offset: self.header.log_offset + u64::from(offset),
                field: "FileOffset",
                found: format!("{file_offset:#x}"),
                expected: expected.into(),
            })
        };
        for &index in &self.log.active {
            let found = &self.log.found[index];
            let Ok(entry) = &found.entry else { continue };
            for descriptor in &entry.descriptors {
                let (at, len) = match *descriptor {
                    LogDescriptor::Data { file_offset, .. } => {
                        (file_offset, u64::from(SECTOR_BYTES))
                    }
                    LogDescriptor::Zero {
                        file_offset,
                        length,
                    } => (file_offset, length),
                };
                let target = ByteRange::new(at, len).filter(|range| range.end() <= MAX_FILE_BYTES);
                let Some(target) = target else {
                    return Err(forbid(found.log_offset, at, "a target below 128 TiB"));
                };
                if target.start() < region_table::OFFSETS[0] {
                    let expected = "a target after the file identifier and the headers";
                    return Err(forbid(found.log_offset, at, expected));
                }
                if target.overlaps(log) {
                    return Err(forbid(found.log_offset, at, "a target outside the log"));
                }
            }
        }
        if self.head.last_file_offset > MAX_FILE_BYTES {
            return Err(VhdxError::Field {
                structure: "log entry",
                offset: self.header.log_offset,
                field: "LastFileOffset",
                found: self.head.last_file_offset.to_string(),
                expected: "at most 128 TiB".into(),
            }
            .into());
        }
        Ok(())
    }

    /// Applies the entries to `target`, reading them from `source`, and makes `target` as long as
    /// the head entry says. Never makes it shorter.
    fn apply(&self, source: &dyn Storage, target: &dyn Storage) -> Result<()> {
        let ring = LogRing::new(source, &self.header);
        for &index in &self.log.active {
            let found = &self.log.found[index];
            let Ok(entry) = &found.entry else { continue };
            let bytes = ring.entry_bytes(found.log_offset, &found.header)?;
            for descriptor in &entry.descriptors {
                match *descriptor {
                    LogDescriptor::Data {
                        file_offset,
                        leading,
                        trailing,
                        data_sector,
                    } => {
                        let page = entry.page(&bytes, (leading, trailing, data_sector));
                        target.write_at(&page, file_offset)?;
                    }
                    LogDescriptor::Zero {
                        file_offset,
                        length,
                    } => {
                        zero(target, file_offset, length)?;
                    }
                }
            }
        }
        if target.len()? < self.head.last_file_offset {
            target.set_len(self.head.last_file_offset)?;
        }
        Ok(())
    }

    /// The file as it is after replay, without a byte of `storage` changed. At most `budget` bytes
    /// of updates are held in memory.
    pub(crate) fn in_memory(
        &self,
        storage: Arc<dyn Storage>,
        budget: u64,
    ) -> Result<Arc<dyn Storage>> {
        let overlay = OverlayStorage::new(Arc::clone(&storage), budget)?;
        self.apply(&*storage, &overlay)?;
        Ok(Arc::new(overlay))
    }

    /// Replays in `storage` and returns the headers as they are then.
    pub(crate) fn in_file(&self, storage: &dyn Storage, headers: &Headers) -> Result<Headers> {
        let change = HeaderChange {
            file_write_guid: Some(Uuid::new_v4()),
            ..HeaderChange::default()
        };
        let headers = update_headers(storage, headers, change)?;
        self.apply(storage, storage)?;
        storage.sync(SyncKind::Full)?;
        let change = HeaderChange {
            log_guid: Some(Uuid::nil()),
            ..HeaderChange::default()
        };
        update_headers(storage, &headers, change)
    }
}

/// Zeros `length` bytes from `offset` at no cost in space: a hostile length must not fill the host.
fn zero(target: &dyn Storage, offset: u64, length: u64) -> Result<()> {
    let end = offset + length;
    let file_len = target.len()?;
    let within = file_len.saturating_sub(offset).min(length);
    match target.punch_hole(offset, within) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            target.zero_range(offset, within)?;
        }
        other => other?,
    }
    if end > file_len {
        target.set_len(end)?;
    }
    Ok(())
}
