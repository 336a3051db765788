//! Updating the header ([MS-VHDX] §2.2.2.1): the other copy first, flush, then this one, flush.

use blockdev_core::{Result, Storage, SyncKind};
use uuid::Uuid;

use super::inspect;
use crate::meta::headers::{Headers, successor};
use crate::ondisk::header::OFFSETS;

/// What an update of the header changes; all else stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderChange {
    pub(crate) file_write_guid: Uuid,
    pub(crate) log_guid: Uuid,
}

/// Makes `change` in both copies, so that at every instant one of them is valid and whole. Returns
/// the headers as they are then.
pub(crate) fn update_headers(
    storage: &dyn Storage,
    headers: &Headers,
    change: HeaderChange,
) -> Result<Headers> {
    let current = headers.current()?;
    let other = OFFSETS
        .iter()
        .position(|offset| *offset != current.offset)
        .expect("there are two");
    for (ahead, slot) in [(1, other), (2, 1 - other)] {
        let bytes = successor(current, ahead, change.file_write_guid, change.log_guid);
        storage.write_at(&bytes, OFFSETS[slot])?;
        storage.sync(SyncKind::Full)?;
    }
    inspect::headers(storage)
}
