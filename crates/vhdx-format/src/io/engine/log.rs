//! Writing the log ([MS-VHDX] §2.3).

use blockdev_core::{Result, Storage};
use uuid::Uuid;

use crate::meta::headers::HeaderCopy;
use crate::meta::log_encode::{EntryFields, PageUpdate, encode, encoded_len};
use crate::meta::ring::{Placement, Ring};
use crate::ondisk::MIB;

/// Pages kept for being written in place: 8 MiB, also where the log has room for more.
const MOST_LOGGED: usize = 2048;

/// The log of an image that is open for writing.
#[derive(Debug)]
pub(crate) struct LogWriter {
    offset: u64,
    length: u32,
    ring: Ring,
    /// What the entries bear.
    guid: Uuid,
    /// The header names it, so that there must be a valid sequence.
    is_named: bool,
    /// Length of the file that is known to be stable.
    pub(crate) stable_len: u64,
}

impl LogWriter {
    /// The log at the place that `header` gives, empty as it says.
    pub(crate) fn new(header: &HeaderCopy) -> Self {
        Self {
            offset: header.log_offset,
            length: header.log_length,
            ring: Ring::new(header.log_length),
            guid: Uuid::new_v4(),
            is_named: false,
            stable_len: 0,
        }
    }

    /// Pages that one entry can change.
    pub(crate) fn most_pages(&self) -> usize {
        self.ring.most_pages().min(MOST_LOGGED)
    }

    /// Where the entry for `pages` goes, when `logged` pages of earlier ones are not in their place.
    pub(crate) fn place(&self, pages: &[PageUpdate], logged: usize) -> Placement {
        self.ring.place(encoded_len(pages), logged > MOST_LOGGED)
    }

    /// Writes the entry for `pages`, in a file that is `file_len` bytes long and has no structure
    /// behind that.
    pub(crate) fn write(
        &self,
        storage: &dyn Storage,
        placement: &Placement,
        pages: &[PageUpdate],
        file_len: u64,
    ) -> Result<()> {
        let entry = encode(
            &EntryFields {
                tail: placement.tail,
                sequence_number: placement.sequence_number,
                log_guid: self.guid,
                // Both count whole MiB: the one at most what is stable, the other at least what is used.
                flushed_file_offset: self.stable_len / MIB * MIB,
                last_file_offset: file_len.next_multiple_of(MIB),
            },
            pages,
        );
        let until_end = (self.length - placement.at) as usize;
        let (first, rest) = entry.split_at(until_end.min(entry.len()));
        storage.write_at(first, self.offset + u64::from(placement.at))?;
        if !rest.is_empty() {
            storage.write_at(rest, self.offset)?;
        }
        Ok(())
    }

    /// Takes note of an entry that is stable.
    pub(crate) fn commit(&mut self, placement: &Placement) {
        self.ring.commit(placement);
    }

    /// The identity that the header is still to name.
    pub(crate) fn unnamed(&self) -> Option<Uuid> {
        (!self.is_named).then_some(self.guid)
    }

    /// The header names the log.
    pub(crate) fn named(&mut self) {
        self.is_named = true;
    }

    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    /// The header names no log any more: what comes next is another one.
    pub(crate) fn retired(&mut self) {
        self.ring = Ring::new(self.length);
        self.guid = Uuid::new_v4();
        self.is_named = false;
    }
}
