//! The disk in several files as a block device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev_core::{
    BlockDevice, Caps, DeviceInfo, Error, ErrorKind, Extent, ExtentKind, Result, Storage, SyncKind,
    ZeroFlags, fits,
};

use super::{BLOCK, BLOCKS, Bug, Pair, header, read_index};

#[derive(Debug)]
pub(crate) struct PairDevice {
    pair: Pair,
    files: Vec<Arc<dyn Storage>>,
    info: DeviceInfo,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_use: usize,
    table: Vec<u64>,
    poisoned: bool,
}

fn at(n: u64) -> usize {
    usize::try_from(n).expect("small")
}

impl PairDevice {
    pub(crate) fn open(pair: Pair, files: &[Arc<dyn Storage>], writable: bool) -> Result<Self> {
        let (in_use, table) = read_index(&*files[0])?;
        if !writable && pair.has(Bug::ReaderTidies) {
            let _ = files[3 - in_use].set_len(0);
        }
        let info = DeviceInfo {
            size: BLOCKS * BLOCK,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            block_size: Some(4096),
            read_only: !writable,
            format: "pair",
            caps: Caps {
                write: writable,
                write_zeroes: writable,
                discard: writable,
            },
        };
        Ok(Self {
            pair,
            files: files.to_vec(),
            info,
            state: Mutex::new(State {
                in_use,
                table,
                poisoned: false,
            }),
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `f` unless an earlier change failed; a failure of `f` is the last thing that is done.
    fn change(&self, f: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let mut state = self.lock_state();
        if state.poisoned {
            let text = "an earlier failure; open it again";
            return Err(Error::new(ErrorKind::Poisoned, text));
        }
        let done = f(&mut state);
        state.poisoned = done.is_err();
        done
    }

    fn sync(&self, file: usize) -> Result<()> {
        match self.files[file].sync(SyncKind::Data) {
            Err(_) if file > 0 && self.pair.has(Bug::SyncErrorIgnored) => Ok(()),
            done => done,
        }
    }

    fn write_new(&self, state: &mut State, n: usize, bytes: &[u8], from: u64) -> Result<()> {
        let mut whole = [0; 4096];
        whole[at(from)..at(from) + bytes.len()].copy_from_slice(bytes);
        let last = state.table.iter().max().expect("a table is not empty");
        let entry = last + 1;
        let place = 4096 + n as u64 * 8;
        self.files[state.in_use].write_at(&whole, (entry - 1) * BLOCK)?;
        if self.pair.has(Bug::WrongFileSynced) {
            self.sync(0)?;
        } else if !self.pair.has(Bug::IndexBeforeData) {
            self.sync(state.in_use)?;
        }
        self.files[0].write_at(&entry.to_le_bytes(), place)?;
        state.table[n] = entry;
        Ok(())
    }

    /// Moves all blocks to their places in file `to`, and gives the other file up. `again` when this
    /// may have been begun before.
    pub(crate) fn move_to(&self, to: usize, again: bool) -> Result<()> {
        self.change(|state| {
            let (index, old, new) = (&self.files[0], &self.files[3 - to], &self.files[to]);
            if state.in_use != to || again && self.pair.has(Bug::OverTakenForBegun) {
                self.sync(state.in_use)?;
                let moved = if again && self.pair.has(Bug::RemainsTaken) {
                    new.len()?
                } else {
                    new.set_len(0)?;
                    0
                };
                for block in state.table.iter().filter(|entry| **entry * BLOCK > moved) {
                    let mut bytes = [0; 4096];
                    old.read_at(&mut bytes, (block - 1) * BLOCK)?;
                    new.write_at(&bytes, (block - 1) * BLOCK)?;
                }
                if !self.pair.has(Bug::NamedBeforeStable) {
                    self.sync(to)?;
                }
                if self.pair.has(Bug::OldCutEarly) {
                    old.set_len(0)?;
                }
                index.write_at(&header(to as u64), 0)?;
                self.sync(0)?;
                self.sync(to)?;
                state.in_use = to;
            }
            old.set_len(0)
        })
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

impl BlockDevice for PairDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        let state = self.lock_state();
        let mut rest = buf;
        for (n, from, piece) in parts(offset, rest.len() as u64) {
            let (now, later) = rest.split_at_mut(at(piece));
            match state.table[n] {
                0 => now.fill(0),
                entry => self.files[state.in_use].read_at(now, (entry - 1) * BLOCK + from)?,
            }
            rest = later;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        fits(offset, buf.len() as u64, self.size())?;
        self.change(|state| {
            let mut rest = buf;
            for (n, from, piece) in parts(offset, buf.len() as u64) {
                let (now, later) = rest.split_at(at(piece));
                match state.table[n] {
                    0 => self.write_new(state, n, now, from)?,
                    entry => {
                        self.files[state.in_use].write_at(now, (entry - 1) * BLOCK + from)?;
                    }
                }
                rest = later;
            }
            Ok(())
        })
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        fits(offset, len, self.size())?;
        let (n, _, piece) = parts(offset, len).next().ok_or(ErrorKind::InvalidInput)?;
        let kind = match self.lock_state().table[n] {
            0 => ExtentKind::Absent,
            _ => ExtentKind::Data,
        };
        Ok(Extent::new(kind, piece))
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: ZeroFlags) -> Result<()> {
        self.write_at(&vec![0; at(len)], offset)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        fits(offset, len, self.size())
    }

    fn flush(&self) -> Result<()> {
        if self.info.read_only {
            return Ok(());
        }
        self.change(|state| {
            if !self.pair.has(Bug::FlushLeavesData) {
                self.sync(state.in_use)?;
            }
            self.sync(0)
        })
    }
}
