//! Size and snapshot: each change is one header sector, written when everything it names is durable.

use blockdev_core::{Error, ErrorKind, Result};
use testkit::crash::Control;

use super::Bug;
use super::device::{State, ToyDevice};
use super::table::{BLOCK, Header, encode_table, read_table};

impl ToyDevice {
    /// Carries it out; the device must then be opened anew.
    pub(crate) fn control(&self, control: Control) -> Result<()> {
        self.change(|state| {
            self.flush_state(state)?;
            match control {
                Control::Resize(size) => self.resize(state, size),
                Control::SnapshotCreate(_) => self.create(state),
                Control::SnapshotApply(_) => self.apply(state),
                Control::SnapshotDelete(_) => self.put_header(Header {
                    snapshot: 0,
                    ..state.header
                }),
                Control::Other(_) => Err(Error::from(ErrorKind::Unsupported)),
            }
        })
    }

    fn put_header(&self, header: Header) -> Result<()> {
        self.storage.write_at(&header.encode(), 0)?;
        self.toy.sync(&*self.storage)
    }

    /// A table that the header does not name.
    fn spare(header: &Header) -> u64 {
        let free = |n: &u64| *n != header.active && *n != header.snapshot;
        (1..=3).find(free).expect("three tables, two in use")
    }

    fn put_table(&self, block: u64, table: &[u64]) -> Result<()> {
        self.storage.write_at(&encode_table(table), block * BLOCK)?;
        self.toy.sync(&*self.storage)
    }

    fn create(&self, state: &State) -> Result<()> {
        let snapshot = Self::spare(&state.header);
        self.put_table(snapshot, &state.table)?;
        self.put_header(Header {
            snapshot,
            ..state.header
        })
    }

    fn apply(&self, state: &mut State) -> Result<()> {
        let table = read_table(&*self.storage, state.header.snapshot)?;
        if self.toy.has(Bug::ApplyInPlace) {
            for (n, entry) in table.into_iter().enumerate() {
                if state.table[n] != entry {
                    self.write_entry(state, n, entry)?;
                }
            }
            return self.toy.sync(&*self.storage);
        }
        if self.toy.has(Bug::EarlyPunch) {
            let own = |entry: &&u64| **entry > 1 && !state.shared.contains(entry);
            for block in state.table.iter().filter(own) {
                self.storage.punch_hole(block * BLOCK, BLOCK)?;
            }
        }
        let active = Self::spare(&state.header);
        self.put_table(active, &table)?;
        self.put_header(Header {
            active,
            ..state.header
        })
    }

    /// Entries past the smaller size are cleared while no header shows them. A size that a snapshot
    /// holds is not kept: the toy's disks are resized only without one.
    fn resize(&self, state: &mut State, size: u64) -> Result<()> {
        let header = Header {
            size,
            ..state.header
        };
        if self.toy.has(Bug::ShrinkClearsFirst) {
            for n in header.blocks()..state.header.blocks() {
                self.write_entry(state, n, 0)?;
            }
            self.toy.sync(&*self.storage)?;
        }
        self.put_header(header)
    }
}
