//! Many guests on one disk.
//!
//! Each sector is a register. A read of it must return a value whose write began before the read
//! ended, and which no write that began after that one's end had replaced before the read began.
//! Writers may overlap; all work in whole sectors.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use blockdev_core::{BlockDevice, ZeroFlags};

use crate::Rng;
use crate::crash::index;
use crate::stamp::{SECTOR, SECTOR_BYTES, describe, stamp, stamped};

/// What the guests do.
#[derive(Debug, Clone, Copy)]
pub struct Threads {
    /// Guests at once.
    pub threads: usize,
    /// Operations of each.
    pub ops: usize,
    /// Longest operation, in sectors.
    pub sectors: u64,
    /// Zeroings among the writes, where the device can.
    pub zeroes: bool,
    /// What decides everything but the order of events.
    pub seed: u64,
}

impl Default for Threads {
    fn default() -> Self {
        Self {
            threads: 4,
            ops: 300,
            sectors: 16,
            zeroes: true,
            seed: 0,
        }
    }
}

/// One value given to a sector; `op` is none for zeros.
#[derive(Debug, Clone, Copy)]
struct Event {
    op: Option<u32>,
    begin: u64,
    end: u64,
}

/// One sector as somebody read it.
#[derive(Debug)]
struct Seen {
    sector: u64,
    bytes: [u8; SECTOR],
    begin: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct Noted {
    writes: BTreeMap<u64, Vec<Event>>,
    seen: Vec<Seen>,
}

/// Lets the guests loose on `device`, which reads `content` at the start and is a whole number of
/// sectors long, and judges every sector that anyone read, and all of them at the end.
///
/// # Panics
/// Where a read returned what it cannot, or an operation failed.
pub fn run_threads(device: &impl BlockDevice, content: &[u8], what: Threads) {
    let clock = AtomicU64::new(1);
    let numbers = AtomicU32::new(1);
    let noted = Mutex::new(Noted::default());
    thread::scope(|scope| {
        for n in 0..what.threads {
            let (clock, numbers, noted) = (&clock, &numbers, &noted);
            scope.spawn(move || {
                let seed = what.seed.wrapping_mul(1000) + n as u64;
                let mut guest = Guest {
                    device,
                    clock,
                    numbers,
                    rng: Rng::new(seed),
                    noted: Noted::default(),
                };
                for _ in 0..what.ops {
                    guest.step(what);
                }
                guest.hand_over(noted);
            });
        }
    });
    let mut last = Guest {
        device,
        clock: &clock,
        numbers: &numbers,
        rng: Rng::new(what.seed),
        noted: Noted::default(),
    };
    last.read(0, device.size());
    last.hand_over(&noted);
    let noted = noted.into_inner().expect("no guest panicked");
    for seen in &noted.seen {
        let none = Vec::new();
        let writes = noted.writes.get(&seen.sector).unwrap_or(&none);
        if let Err(wrong) = judge(seen, writes, content) {
            panic!("seed {}: {wrong}", what.seed);
        }
    }
}

struct Guest<'a, D> {
    device: &'a D,
    clock: &'a AtomicU64,
    numbers: &'a AtomicU32,
    rng: Rng,
    noted: Noted,
}

impl<D: BlockDevice> Guest<'_, D> {
    fn step(&mut self, what: Threads) {
        let all = self.device.size() / SECTOR_BYTES;
        // One half of the traffic meets in a sixteenth of the disk.
        let span = if self.rng.one_in(2) {
            all
        } else {
            all.div_ceil(16)
        };
        let first = self.rng.below(span);
        let count = (1 + self.rng.below(what.sectors)).min(all - first);
        let (offset, len) = (first * SECTOR_BYTES, count * SECTOR_BYTES);
        match self.rng.below(16) {
            0 => self.device.flush().expect("flush"),
            1 | 2 if what.zeroes => {
                let begin = self.tick();
                let flags = ZeroFlags {
                    may_unmap: self.rng.one_in(2),
                    no_fallback: false,
                };
                let zeroed = self.device.write_zeroes(offset, len, flags);
                zeroed.expect("zeroing");
                self.wrote(first..first + count, None, begin);
            }
            3..=9 => {
                let op = self.numbers.fetch_add(1, Ordering::SeqCst);
                let bytes = stamped(offset, index(len), op);
                let begin = self.tick();
                self.device.write_at(&bytes, offset).expect("write");
                self.wrote(first..first + count, Some(op), begin);
            }
            _ => self.read(offset, len),
        }
    }

    fn read(&mut self, offset: u64, len: u64) {
        let mut bytes = vec![0xEE; index(len)];
        let begin = self.tick();
        self.device.read_at(&mut bytes, offset).expect("read");
        let end = self.tick();
        let sectors = bytes.chunks_exact(SECTOR).zip(offset / SECTOR_BYTES..);
        self.noted.seen.extend(sectors.map(|(bytes, sector)| Seen {
            sector,
            bytes: bytes.try_into().expect("a whole sector"),
            begin,
            end,
        }));
    }

    fn wrote(&mut self, sectors: std::ops::Range<u64>, op: Option<u32>, begin: u64) {
        let end = self.tick();
        for sector in sectors {
            let events = self.noted.writes.entry(sector).or_default();
            events.push(Event { op, begin, end });
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn hand_over(self, noted: &Mutex<Noted>) {
        let mut all = noted.lock().expect("no guest panicked");
        all.seen.extend(self.noted.seen);
        for (sector, events) in self.noted.writes {
            all.writes.entry(sector).or_default().extend(events);
        }
    }
}

/// Whether a sector may have been read so, in the light of everything that was written to it.
fn judge(seen: &Seen, writes: &[Event], content: &[u8]) -> Result<(), String> {
    let replaced = |after: u64| writes.iter().any(|w| w.begin > after && w.end < seen.begin);
    let first = &content[index(seen.sector * SECTOR_BYTES)..][..SECTOR];
    let value = |op: Option<u32>| op.map_or([0; SECTOR], |op| stamp(seen.sector, op));
    let from_start = seen.bytes == *first && !replaced(0);
    let from_write = writes.iter().any(|write| {
        write.begin < seen.end && !replaced(write.end) && value(write.op) == seen.bytes
    });
    if from_start || from_write {
        return Ok(());
    }
    Err(format!(
        "sector {} was read as {} from {} to {}; written {writes:?}",
        seen.sector,
        describe(&seen.bytes),
        seen.begin,
        seen.end
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(op: u32, begin: u64, end: u64) -> Seen {
        Seen {
            sector: 0,
            bytes: stamp(0, op),
            begin,
            end,
        }
    }

    #[test]
    fn a_value_is_good_until_another_has_wholly_replaced_it() {
        let event = |op, begin, end| Event {
            op: Some(op),
            begin,
            end,
        };
        let writes = [event(1, 10, 20), event(2, 15, 30), event(3, 40, 50)];
        let content = [0; SECTOR];
        let good = |op, begin, end| judge(&seen(op, begin, end), &writes, &content).is_ok();
        assert!(good(1, 35, 36) && good(2, 35, 36), "these two overlapped");
        assert!(good(1, 45, 46) && good(3, 45, 46), "the third is under way");
        assert!(!good(1, 55, 56) && !good(2, 55, 56), "and now it is over");
        assert!(!good(3, 35, 36), "nothing is read before it is written");
        assert!(!good(9, 55, 56));
        let zeros = Seen {
            bytes: [0; SECTOR],
            ..seen(0, 12, 13)
        };
        assert!(judge(&zeros, &writes, &content).is_ok());
        let late = Seen {
            begin: 21,
            end: 22,
            ..zeros
        };
        assert!(judge(&late, &writes, &content).is_err());
    }
}
