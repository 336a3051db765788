//! Updating the header ([MS-VHDX] §2.2.2.1): the other copy first, flush, then this one, flush.

use std::sync::PoisonError;

use blockdev_core::{Result, Storage, SyncKind};
use uuid::Uuid;

use super::inspect;
use crate::image::VhdxImage;
use crate::meta::headers::{HeaderCopy, Headers, successor};
use crate::ondisk::header::OFFSETS;

/// What an update of the header changes; all else stays.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeaderChange {
    pub(crate) file_write_guid: Option<Uuid>,
    pub(crate) data_write_guid: Option<Uuid>,
    pub(crate) log_guid: Option<Uuid>,
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
    let changed = HeaderCopy {
        file_write_guid: change.file_write_guid.unwrap_or(current.file_write_guid),
        data_write_guid: change.data_write_guid.unwrap_or(current.data_write_guid),
        log_guid: change.log_guid.unwrap_or(current.log_guid),
        ..*current
    };
    for (ahead, slot) in [(1, other), (2, 1 - other)] {
        storage.write_at(&successor(&changed, ahead), OFFSETS[slot])?;
        storage.sync(SyncKind::Full)?;
    }
    inspect::headers(storage)
}

impl VhdxImage {
    /// Makes `change` in the header of this image. A failure leaves it open which header holds.
    pub(crate) fn change_headers(&self, change: HeaderChange) -> Result<()> {
        let mut headers = self.headers.write().unwrap_or_else(PoisonError::into_inner);
        *headers = update_headers(&*self.storage, &headers, change)?;
        Ok(())
    }
}
