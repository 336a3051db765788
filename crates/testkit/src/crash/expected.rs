//! What a disk may read after a crash at one moment.
//!
//! Of each sector: the value that the last completed flush made durable, or any value whose write
//! had begun since. Of two writes that a flush covers, the one that began after the other had ended
//! rules. A sector that was written in parts may mix its values at the borders of these parts.
//! Nothing else: not another sector's stamp, not an older value, not zeros unless
//! [`Allowed`] says so.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::history::{Base, History, Sector, Written};
use super::{Image, index};
use crate::stamp::{SECTOR, SECTOR_BYTES, describe};

/// What a format permits beyond the strict rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    /// A sector with an unflushed write may read as zeros, be its old value what it may.
    pub zero_unflushed: bool,
}

/// The acceptable values of a sector that has more than one.
#[derive(Debug, Clone)]
struct Loose {
    values: Vec<Sector>,
    /// Where values may change over inside the sector; empty for whole sectors.
    borders: Vec<usize>,
}

impl Loose {
    fn accepts(&self, found: &[u8]) -> bool {
        if self.values.iter().any(|v| v[..found.len()] == *found) {
            return true;
        }
        let mut from = 0;
        !self.borders.is_empty()
            && self.borders.iter().chain([&SECTOR]).all(|to| {
                let part = from..(*to).min(found.len());
                from = *to;
                part.is_empty()
                    || self
                        .values
                        .iter()
                        .any(|v| v[part.clone()] == found[part.clone()])
            })
    }
}

/// One acceptable world.
#[derive(Debug, Clone)]
struct Face {
    /// Sectors that have one acceptable value hold it here.
    sure: Image,
    loose: BTreeMap<u64, Loose>,
}

/// Everything a disk may be at one moment: any of its worlds, each as a whole.
#[derive(Debug, Clone)]
pub struct Expected {
    faces: Vec<Face>,
}

impl Expected {
    /// What `history` permits after a crash that left the first `at` lines of the log.
    #[must_use]
    pub fn at(history: &History, at: usize, allowed: Allowed) -> Self {
        Self::build(history, at, settled_by(history, at), allowed)
    }

    /// What an open disk must read when the log has `at` lines: everything that was acknowledged,
    /// flushed or not; old or new where an operation failed.
    pub(crate) fn live(history: &History, at: usize) -> Self {
        Self::build(history, at, at, Allowed::default())
    }

    fn build(history: &History, at: usize, settled: usize, allowed: Allowed) -> Self {
        let view = View {
            history,
            settled,
            allowed,
        };
        let worlds = &history.worlds;
        let first = worlds.iter().rposition(|world| {
            world
                .end
                .is_some_and(|end| end < settled || world.durable_at_end && end < at)
        });
        let faces = (first.unwrap_or(0)..worlds.len())
            .filter(|n| *n == 0 || worlds[*n].begin < at)
            .map(|n| view.face(n, at))
            .collect();
        Self { faces }
    }

    /// What the disk may be when the operation under way has been carried out after all.
    pub(crate) fn newest(&self) -> Self {
        let newest = self.faces.last().expect("there is always one");
        Self {
            faces: vec![newest.clone()],
        }
    }

    /// The sizes that the disk may have.
    #[must_use]
    pub fn sizes(&self) -> Vec<u64> {
        let sizes = self.faces.iter().map(|face| face.sure.len());
        sizes.collect()
    }

    /// Judges a disk of `size` bytes that reads `found` at each of the ranges, in order.
    ///
    /// # Errors
    /// What is wrong with it, in the light of the newest world of that size.
    pub fn judge(&self, size: u64, found: &[(u64, &[u8])]) -> Result<(), String> {
        let mut wrong = format!("a disk of {size} bytes, not of {:?}", self.sizes());
        for face in &self.faces {
            if face.sure.len() != size {
                continue;
            }
            match found.iter().find_map(|(at, bytes)| face.wrong(*at, bytes)) {
                None => return Ok(()),
                Some(what) => wrong = what,
            }
        }
        Err(wrong)
    }
}

impl Face {
    /// The first sector of `bytes`, which start at the sector-aligned byte `at`, that is not
    /// acceptable.
    fn wrong(&self, at: u64, bytes: &[u8]) -> Option<String> {
        let end = at + bytes.len() as u64;
        let first = at / SECTOR_BYTES;
        let mut next = at;
        for (sector, loose) in self.loose.range(first..end.div_ceil(SECTOR_BYTES)) {
            let start = sector * SECTOR_BYTES;
            if let Some(wrong) = self.wrong_sure(next..start, at, bytes) {
                return Some(wrong);
            }
            next = (start + SECTOR_BYTES).min(end);
            let found = &bytes[index(start - at)..index(next - at)];
            if !loose.accepts(found) {
                let may: Vec<_> = loose.values.iter().map(|v| describe(&v[..])).collect();
                return Some(format!(
                    "guest sector {sector} reads {}, not one of {may:?}",
                    describe(found)
                ));
            }
        }
        self.wrong_sure(next..end, at, bytes)
    }

    fn wrong_sure(&self, range: Range<u64>, at: u64, bytes: &[u8]) -> Option<String> {
        let found = &bytes[index(range.start - at)..index(range.end - at)];
        let stray = self.sure.differs(range.start, found)? / SECTOR;
        let found = found.chunks(SECTOR).nth(stray)?;
        let sector = range.start / SECTOR_BYTES + stray as u64;
        let right = self.sure.part(sector * SECTOR_BYTES, found.len());
        Some(format!(
            "guest sector {sector} reads {}, not {}",
            describe(found),
            describe(&right)
        ))
    }
}

/// The beginning of the last flush that was over when the log had `at` lines.
fn settled_by(history: &History, at: usize) -> usize {
    let ended = history.flushes.iter().filter(|(_, end)| *end < at);
    ended.map(|(begin, _)| *begin).max().unwrap_or(0)
}

/// A history seen from a moment at which everything before `settled` is durable.
struct View<'a> {
    history: &'a History,
    settled: usize,
    allowed: Allowed,
}

impl View<'_> {
    /// World `n` as far as it was begun at the moment `at`.
    fn face(&self, n: usize, at: usize) -> Face {
        let world = &self.history.worlds[n];
        let mut face = match &world.base {
            Base::Content(bytes) => Face {
                sure: bytes.clone(),
                loose: BTreeMap::new(),
            },
            Base::Frozen { world, at } => self.face(*world, *at),
        };
        face.sure.set_len(world.size);
        face.loose
            .retain(|sector, _| sector * SECTOR_BYTES < world.size);
        for (sector, writes) in &world.sectors {
            self.sector(&mut face, *sector, writes, at);
        }
        face
    }

    fn sector(&self, face: &mut Face, sector: u64, writes: &[Written], at: usize) {
        let begun: Vec<_> = writes.iter().filter(|write| write.begin < at).collect();
        let done = |write: &Written| write.end.is_some_and(|end| end < self.settled);
        let outdone = |write: &Written| {
            let later = |other: &&Written| Some(other.begin) > write.end && done(other);
            write.end.is_some() && begun.iter().any(later)
        };
        if begun.is_empty() {
            return;
        }
        let start = sector * SECTOR_BYTES;
        let len = index((face.sure.len() - start).min(SECTOR_BYTES));
        let mut loose = Loose {
            values: Vec::new(),
            borders: Vec::new(),
        };
        if !begun.iter().any(|write| done(write)) {
            // Nothing written here is durable: what was below may still be there.
            loose = face.loose.remove(&sector).unwrap_or_else(|| {
                let mut value = [0; SECTOR];
                face.sure.read(start, &mut value[..len]);
                Loose {
                    values: vec![Arc::new(value)],
                    borders: Vec::new(),
                }
            });
        } else {
            face.loose.remove(&sector);
        }
        for write in begun.iter().filter(|write| !outdone(write)) {
            loose.values.push(Arc::clone(&write.value));
            let borders = [write.part.start, write.part.end];
            let inside = borders.into_iter().filter(|b| (1..SECTOR).contains(b));
            loose.borders.extend(inside);
        }
        if self.allowed.zero_unflushed && begun.iter().any(|write| !done(write)) {
            loose.values.push(Arc::new([0; SECTOR]));
        }
        loose.borders.sort_unstable();
        if let [only] = &loose.values[..] {
            face.sure.write(start, &only[..len]);
        } else {
            face.loose.insert(sector, loose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Effect;
    use super::*;
    use crate::stamp::{stamp, stamped};

    fn begins(history: &mut History, op: u32, begin: usize, offset: u64, len: usize) {
        history.write_begins(op, begin, offset, &stamped(offset, len, op));
    }

    fn accepts(history: &History, at: usize, allowed: Allowed, disk: &[u8]) -> bool {
        let expected = Expected::at(history, at, allowed);
        expected.judge(disk.len() as u64, &[(0, disk)]).is_ok()
    }

    /// A disk of two sectors: the first by the operations given, byte ranges of them later ones.
    fn disk(first: &[(u32, Range<usize>)]) -> Vec<u8> {
        let mut disk = vec![0; 2 * SECTOR];
        for (op, part) in first {
            disk[part.clone()].copy_from_slice(&stamp(0, *op)[part.clone()]);
        }
        disk
    }

    #[test]
    fn what_is_flushed_stays_and_what_is_not_may_be_any_of_its_values() {
        let strict = Allowed::default();
        let zero = Allowed {
            zero_unflushed: true,
        };
        let mut history = History::new(vec![0; 2 * SECTOR]);
        begins(&mut history, 1, 1, 0, SECTOR);
        history.write_ends(1, 3, &(0..512));
        let (none, one) = (disk(&[]), disk(&[(1, 0..512)]));
        assert!(accepts(&history, 1, strict, &none) && !accepts(&history, 1, strict, &one));
        assert!(accepts(&history, 4, strict, &none) && accepts(&history, 4, strict, &one));
        history.flushed(5, 7);
        assert!(
            accepts(&history, 7, strict, &none),
            "the flush is under way"
        );
        assert!(!accepts(&history, 8, strict, &none) && accepts(&history, 8, strict, &one));
        begins(&mut history, 2, 9, 100, 50);
        let mixed = disk(&[(1, 0..512), (2, 100..150)]);
        assert!(accepts(&history, 10, strict, &mixed) && accepts(&history, 10, strict, &one));
        assert!(!accepts(&history, 10, strict, &none) && accepts(&history, 10, zero, &none));
        let torn = disk(&[(1, 0..512), (2, 100..120)]);
        assert!(!accepts(&history, 10, strict, &torn));
        let foreign = [stamp(1, 1), [0; SECTOR]].concat();
        assert!(!accepts(&history, 10, strict, &foreign));
    }

    #[test]
    fn parts_of_a_sector_may_be_of_different_age() {
        let mut history = History::new(vec![0; 2 * SECTOR]);
        for (op, begin, offset) in [(1, 1, 0), (2, 3, 200)] {
            begins(&mut history, op, begin, offset, 100);
            history.write_ends(op, begin + 1, &(offset..offset + 100));
        }
        let only_second = disk(&[(2, 200..300)]);
        assert!(accepts(&history, 9, Allowed::default(), &only_second));
        let across = disk(&[(2, 150..300)]);
        assert!(!accepts(&history, 9, Allowed::default(), &across));
    }

    #[test]
    fn a_world_is_taken_whole() {
        let strict = Allowed::default();
        let mut history = History::new(vec![0; 2 * SECTOR]);
        begins(&mut history, 0, 1, 0, 2 * SECTOR);
        history.write_ends(0, 2, &(0..1024));
        history.flushed(3, 4);
        history.control_begins(Effect::Keep(1), 5, false, None);
        history.control_ends(6);
        begins(&mut history, 1, 7, 0, 2 * SECTOR);
        history.write_ends(1, 8, &(0..1024));
        history.flushed(9, 10);
        history.control_begins(Effect::Apply(1), 11, false, None);
        let old = [stamp(0, 1), stamp(1, 1)].concat();
        let new = [stamp(0, 0), stamp(1, 0)].concat();
        let half = [stamp(0, 0), stamp(1, 1)].concat();
        assert!(accepts(&history, 11, strict, &old) && !accepts(&history, 11, strict, &new));
        assert!(accepts(&history, 12, strict, &old) && accepts(&history, 12, strict, &new));
        assert!(!accepts(&history, 12, strict, &half));
        history.control_ends(13);
        assert!(accepts(&history, 14, strict, &old), "not flushed yet");
        history.flushed(15, 16);
        assert!(!accepts(&history, 17, strict, &old) && accepts(&history, 17, strict, &new));
        history.control_begins(Effect::Resize(512), 18, true, None);
        history.control_ends(19);
        assert!(accepts(&history, 19, strict, &new));
        assert!(!accepts(&history, 20, strict, &new) && accepts(&history, 20, strict, &new[..512]));
    }
}
