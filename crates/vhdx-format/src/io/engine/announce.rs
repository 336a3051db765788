//! What the header says of a file that is being changed ([MS-VHDX] §2.2.2).

use std::sync::atomic::Ordering;

use blockdev_core::{Error, ErrorKind, Result};
use uuid::Uuid;

use super::Engine;
use crate::image::VhdxImage;
use crate::io::headers::HeaderChange;

impl VhdxImage {
    /// Has the content become `guid` with its first change, for children that are to know it again then:
    /// they record it before ([`Linkage::Becomes`](crate::Linkage::Becomes)).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when the content was changed already since the image was
    /// opened, [`ReadOnly`](ErrorKind::ReadOnly).
    pub fn set_next_data_write_guid(&mut self, guid: Uuid) -> Result<()> {
        let engine = self.engine()?;
        let mut state = engine.lock();
        if engine.announced.load(Ordering::Acquire) {
            let text = "the content has its identity of this open already";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        state.next_data_write_guid = Some(guid);
        Ok(())
    }

    /// Before the first change of guest data: new identities of file and content, in both headers.
    pub(crate) fn announce(&self, engine: &Engine) -> Result<()> {
        if engine.announced.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = engine.lock();
        if engine.announced.load(Ordering::Acquire) {
            return Ok(());
        }
        self.look_for_space(&mut state)?;
        let change = HeaderChange {
            file_write_guid: (!state.is_opened_for_change).then(Uuid::new_v4),
            data_write_guid: Some(state.next_data_write_guid.unwrap_or_else(Uuid::new_v4)),
            log_guid: None,
        };
        engine.poisoned_by(self.change_headers(change))?;
        state.is_opened_for_change = true;
        engine.announced.store(true, Ordering::Release);
        Ok(())
    }

    /// Before the first change that guests do not see: a new identity of the file.
    pub(crate) fn announce_unseen(&self, engine: &Engine) -> Result<()> {
        let mut state = engine.lock();
        if state.is_opened_for_change {
            return Ok(());
        }
        self.look_for_space(&mut state)?;
        let change = HeaderChange {
            file_write_guid: Some(Uuid::new_v4()),
            ..HeaderChange::default()
        };
        engine.poisoned_by(self.change_headers(change))?;
        state.is_opened_for_change = true;
        Ok(())
    }

    /// Before a change of a repair, which `loses` content or does not: new identities, without a look
    /// at the space, which is what may be in need of repair.
    pub(crate) fn announce_repair(&self, engine: &Engine, loses: bool) -> Result<()> {
        let mut state = engine.lock();
        if engine.announced.load(Ordering::Acquire) || state.is_opened_for_change && !loses {
            return Ok(());
        }
        let change = HeaderChange {
            file_write_guid: (!state.is_opened_for_change).then(Uuid::new_v4),
            data_write_guid: loses.then(Uuid::new_v4),
            log_guid: None,
        };
        engine.poisoned_by(self.change_headers(change))?;
        state.is_opened_for_change = true;
        engine.announced.store(loses, Ordering::Release);
        Ok(())
    }
}
