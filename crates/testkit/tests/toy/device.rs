//! The toy as a block device.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev_core::{
    BlockDevice, Caps, DeviceInfo, Error, ErrorKind, Extent, ExtentKind, Result, Storage,
    ZeroFlags, fits,
};

use super::table::{BLOCK, FIRST_BLOCK, Header, encode_entry, encode_table, read_table};
use super::{Bug, Toy, poisoned};

#[derive(Debug)]
pub(crate) struct ToyDevice {
    pub(crate) toy: Toy,
    pub(crate) storage: Arc<dyn Storage>,
    info: DeviceInfo,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) header: Header,
    pub(crate) table: Vec<u64>,
    pub(crate) shared: BTreeSet<u64>,
    free: BTreeSet<u64>,
    /// Freed, but not yet for sure.
    freed: Vec<u64>,
    end: u64,
    pub(crate) poisoned: bool,
}

fn at(n: u64) -> usize {
    usize::try_from(n).expect("small")
}

impl ToyDevice {
    pub(crate) fn open(toy: Toy, storage: Arc<dyn Storage>, writable: bool) -> Result<Self> {
        let header = Header::read(&*storage)?;
        let mut table = read_table(&*storage, header.active)?;
        let snapshot = read_table(&*storage, header.snapshot)?;
        if !writable && toy.has(Bug::ReaderWrites) {
            let _ = storage.write_at(&header.encode(), 0);
        }
        // What a shrink left behind.
        if writable && table[header.blocks()..].iter().any(|entry| *entry != 0) {
            table[header.blocks()..].fill(0);
            let bytes = encode_table(&table);
            let from = header.blocks() * 8;
            storage.write_at(&bytes[from..], header.active * BLOCK + from as u64)?;
            toy.sync(&*storage)?;
        }
        let shared: BTreeSet<u64> = snapshot.into_iter().filter(|entry| *entry > 1).collect();
        let used: BTreeSet<u64> = shared.iter().chain(&table).copied().collect();
        // What lies past the last whole block is used again as well.
        let last = used.last().map_or(0, |block| block + 1);
        let mut end = (storage.len()? / BLOCK).max(FIRST_BLOCK);
        if writable && end > last.max(FIRST_BLOCK) {
            if toy.has(Bug::RecoveryWipesHeader) {
                storage.write_at(&[0; 512], 0)?;
                storage.write_at(&header.encode(), 0)?;
            }
            // Blocks that a crash left without a name.
            end = last.max(FIRST_BLOCK);
            storage.set_len(end * BLOCK)?;
        }
        let free = (FIRST_BLOCK..end).filter(|n| !used.contains(n)).collect();
        let info = DeviceInfo {
            size: header.size,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            block_size: Some(4096),
            read_only: !writable,
            format: "toy",
            caps: Caps {
                write: writable,
                write_zeroes: writable,
                discard: writable,
            },
        };
        let state = Mutex::new(State {
            header,
            table,
            shared,
            free,
            freed: Vec::new(),
            end,
            poisoned: false,
        });
        Ok(Self {
            toy,
            storage,
            info,
            state,
        })
    }

    pub(crate) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `f` unless an earlier change failed; a failure of `f` is the last thing that is done.
    pub(crate) fn change(&self, f: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let mut state = self.lock_state();
        if self.info.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "opened for reading"));
        }
        if state.poisoned {
            return Err(poisoned());
        }
        let done = f(&mut state);
        if done.is_err() && self.toy.has(Bug::ForgetsOnFailure) {
            state.table.fill(0);
        }
        state.poisoned = done.is_err() && !self.toy.has(Bug::NotPoisoned);
        done
    }

    fn below(&self, n: usize, buf: &mut [u8], from: u64) {
        buf.fill(0);
        if let Some(parent) = &self.toy.parent {
            let start = (n * 4096 + at(from)).min(parent.len());
            let len = buf.len().min(parent.len() - start);
            buf[..len].copy_from_slice(&parent[start..start + len]);
        }
    }

    /// Reads from byte `from` of guest block `n`.
    fn read_block(&self, entry: u64, n: usize, buf: &mut [u8], from: u64) -> Result<()> {
        match entry {
            0 => self.below(n, buf, from),
            1 => buf.fill(0),
            block => self.storage.read_at(buf, block * BLOCK + from)?,
        }
        Ok(())
    }

    pub(crate) fn write_entry(&self, state: &mut State, n: usize, entry: u64) -> Result<()> {
        let place = state.header.active * BLOCK + n as u64 * 8;
        let bytes = encode_entry(entry);
        if self.toy.has(Bug::TornEntry) {
            self.storage.write_at(&bytes[4..], place + 4)?;
            self.storage.write_at(&bytes[..4], place)?;
        } else {
            self.storage.write_at(&bytes, place)?;
        }
        state.table[n] = entry;
        Ok(())
    }

    fn allocate(&self, state: &mut State) -> u64 {
        state.free.pop_first().unwrap_or_else(|| {
            state.end += 1;
            state.end - 1
        })
    }

    fn write_new(&self, state: &mut State, n: usize, bytes: &[u8], from: u64) -> Result<()> {
        let mut whole = [0; 4096];
        if state.table[n] != 0 || !self.toy.has(Bug::ZeroInsteadOfParent) {
            self.read_block(state.table[n], n, &mut whole, 0)?;
        }
        whole[at(from)..at(from) + bytes.len()].copy_from_slice(bytes);
        let block = self.allocate(state);
        if self.toy.has(Bug::MappingBeforeData) {
            self.write_entry(state, n, block)?;
        }
        if self.toy.has(Bug::SizeLost) {
            let used = whole
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |n| n + 1);
            self.storage.write_at(&whole[..used], block * BLOCK)?;
        } else {
            self.storage.write_at(&whole, block * BLOCK)?;
        }
        if !self.toy.has(Bug::NoBarrier) {
            self.toy.sync(&*self.storage)?;
        }
        if self.toy.has(Bug::SizeLost) && self.storage.len()? < (block + 1) * BLOCK {
            self.storage.set_len((block + 1) * BLOCK)?;
        }
        if state.table[n] != block {
            self.write_entry(state, n, block)?;
        }
        Ok(())
    }

    /// Frees the block behind guest block `n`, which now has entry `entry`.
    fn replace(&self, state: &mut State, n: usize, entry: u64) -> Result<()> {
        let old = state.table[n];
        if old == entry {
            return Ok(());
        }
        if self.toy.has(Bug::LostZeros) {
            state.table[n] = entry;
        } else {
            self.write_entry(state, n, entry)?;
        }
        if old > 1 && !state.shared.contains(&old) {
            if self.toy.has(Bug::ReuseBeforeDurable) {
                state.free.insert(old);
            } else {
                state.freed.push(old);
            }
        }
        Ok(())
    }

    /// Whole blocks around the bytes, read and written again with the lock open in between.
    fn write_around(&self, buf: &[u8], offset: u64) -> Result<()> {
        for (n, from, piece) in parts(offset, buf.len() as u64) {
            let mut whole = [0; 4096];
            self.read_at(&mut whole, n as u64 * BLOCK)?;
            std::thread::yield_now();
            let into = at(n as u64 * BLOCK + from - offset);
            whole[at(from)..at(from + piece)].copy_from_slice(&buf[into..into + at(piece)]);
            let entry = self.lock_state().table[n];
            if entry > 1 {
                self.storage.write_at(&whole, entry * BLOCK)?;
            } else {
                self.change(|state| self.write_new(state, n, &whole, 0))?;
            }
        }
        Ok(())
    }

    pub(crate) fn flush_state(&self, state: &mut State) -> Result<()> {
        if self.toy.has(Bug::EmptyFlush) {
            return Ok(());
        }
        self.toy.sync(&*self.storage)?;
        for block in std::mem::take(&mut state.freed) {
            self.storage.punch_hole(block * BLOCK, BLOCK)?;
            state.free.insert(block);
        }
        Ok(())
    }
}

/// The parts of `len` bytes at `offset`, block by block: guest block, first byte in it, bytes.
fn parts(offset: u64, len: u64) -> impl Iterator<Item = (usize, u64, u64)> {
    let mut next = offset;
    std::iter::from_fn(move || {
        let (n, from) = (next / BLOCK, next % BLOCK);
        let piece = (BLOCK - from).min(offset + len - next);
        next += piece;
        (piece > 0).then_some((at(n), from, piece))
    })
}

impl BlockDevice for ToyDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        let state = self.lock_state();
        let mut rest = buf;
        for (n, from, piece) in parts(offset, rest.len() as u64) {
            let (now, later) = rest.split_at_mut(at(piece));
            self.read_block(state.table[n], n, now, from)?;
            rest = later;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        if self.toy.has(Bug::LostUpdate) {
            return self.write_around(buf, offset);
        }
        self.change(|state| {
            let mut rest = buf;
            for (n, mut from, piece) in parts(offset, buf.len() as u64) {
                let (now, later) = rest.split_at(at(piece));
                if self.toy.has(Bug::Misplaced) && piece < BLOCK {
                    from = 0;
                }
                let entry = state.table[n];
                let own = !state.shared.contains(&entry) || self.toy.has(Bug::SharedOverwritten);
                if entry > 1 && own {
                    self.storage.write_at(now, entry * BLOCK + from)?;
                } else {
                    self.write_new(state, n, now, from)?;
                }
                rest = later;
            }
            Ok(())
        })
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        fits(offset, len, self.size())?;
        let (n, from, piece) = parts(offset, len).next().ok_or(ErrorKind::InvalidInput)?;
        Ok(match self.lock_state().table[n] {
            0 if self.toy.parent.is_some() => Extent {
                depth: 1,
                ..Extent::new(ExtentKind::Data, piece)
            },
            0 => Extent::new(ExtentKind::Absent, piece),
            1 => Extent::new(ExtentKind::Zero, piece),
            block => Extent::data(piece, block * BLOCK + from),
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: ZeroFlags) -> Result<()> {
        fits(offset, len, self.size())?;
        for (n, from, piece) in parts(offset, len) {
            if piece == BLOCK {
                self.change(|state| self.replace(state, n, 1))?;
            } else {
                self.write_at(&vec![0; at(piece)], n as u64 * BLOCK + from)?;
            }
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        fits(offset, len, self.size())?;
        self.change(|state| {
            let whole = parts(offset, len).filter(|(_, _, piece)| *piece == BLOCK);
            for (n, _, _) in whole {
                self.replace(state, n, 1)?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<()> {
        if self.info.read_only {
            return Ok(());
        }
        self.change(|state| self.flush_state(state))
    }
}
