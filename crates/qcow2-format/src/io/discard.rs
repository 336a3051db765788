//! Giving guest bytes up: whole clusters go back to the host, once it is stable that nothing needs
//! them.

use blockdev_core::{DiscardMode, Error, ErrorKind, Result, ZeroFlags, ZerosBelow};

use crate::image::Qcow2Image;
use crate::meta::zero_plan::Change;

impl Qcow2Image {
    /// Gives up the space of `len` bytes from `offset`; the range lies inside the disk.
    pub(crate) fn discard_guest(&self, offset: u64, len: u64, mode: DiscardMode) -> Result<()> {
        self.engine()?;
        let backing = self.has_backing_file();
        let whole = self.whole_units(offset, offset + len, self.cluster_size());
        match mode {
            DiscardMode::ToZero => {
                let inside = offset == whole.start && whole.end >= offset + len;
                if backing && !inside {
                    let text = "parts of clusters are made zeros only with what is below at hand";
                    return Err(Error::new(ErrorKind::InvalidInput, text));
                }
                let flags = ZeroFlags {
                    may_unmap: true,
                    no_fallback: false,
                };
                return self.zero_guest(offset, len, flags, &ZerosBelow);
            }
            DiscardMode::ToParent if self.rules.has_data_file => {
                let text = "what an external data file holds is not given up for the parent's";
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            // Leave to free space, not an order: the bytes read as before.
            DiscardMode::Best if self.rules.has_data_file => return Ok(()),
            DiscardMode::ToParent | DiscardMode::Best => {}
        }
        let zeros = mode == DiscardMode::Best && backing;
        self.change_entries(whole, true, |slot, part| {
            if !zeros {
                return self.rules.unmapped(slot);
            }
            // What is below must not come to light again.
            Ok(match self.rules.zeroed(slot, part, true, true)? {
                Change::ByBytes => Change::Nothing,
                change => change,
            })
        })?;
        self.flush_if_much()
    }
}
