//! What the guest did and when: the ground on which [`Expected`] is built.
//!
//! A *world* is a disk as a whole: its size and, below the writes made in it, a base content. A
//! control operation ends one world and begins the next; both are acceptable, each as a whole, until
//! the operation is over and a later flush is complete (or, where it is declared durable at its end,
//! until its end).
//!
//! Moments are indexes into the log of the [`Recording`](super::Recording).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::{Control, Image, index};
use crate::stamp::{SECTOR, SECTOR_BYTES};

/// One sector's bytes.
pub(super) type Sector = Arc<[u8; SECTOR]>;

/// A value that a sector was given by one operation.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) value: Sector,
    /// The part of the sector that the operation meant; the rest is what was there before.
    pub(super) part: Range<usize>,
    pub(super) op: u32,
    pub(super) begin: usize,
    /// Never, when it failed or is still running.
    pub(super) end: Option<usize>,
}

/// Where the content of a world comes from, beneath the writes made in it.
#[derive(Debug, Clone)]
pub(super) enum Base {
    Content(Image),
    /// Another world as it was at a moment.
    Frozen {
        world: usize,
        at: usize,
    },
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) size: u64,
    pub(super) base: Base,
    pub(super) begin: usize,
    pub(super) end: Option<usize>,
    pub(super) durable_at_end: bool,
    /// The operation that began it, where it can be carried out again.
    control: Option<Control>,
    pub(super) sectors: BTreeMap<u64, Vec<Written>>,
}

/// What the next world is, seen from the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Size and content stay.
    Same,
    /// Another size; what is new reads as zeros.
    Resize(u64),
    /// The content is kept under a number; the disk stays.
    Keep(u32),
    /// Size and content become those kept under a number.
    Apply(u32),
}

#[derive(Debug, Clone)]
struct Kept {
    world: usize,
    at: usize,
    logical: Image,
}

/// All guest operations of one run.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) worlds: Vec<World>,
    /// Completed flushes, by beginning and end.
    pub(super) flushes: Vec<(usize, usize)>,
    /// What the disk reads now.
    logical: Image,
    kept: HashMap<u32, Kept>,
    /// What each operation on a range of the disk was about.
    spans: Vec<Range<u64>>,
    /// What each operation was, for messages.
    pub(super) names: Vec<String>,
}

impl History {
    /// Nothing done yet to a disk that reads `content`.
    #[must_use]
    pub fn new(content: impl Into<Image>) -> Self {
        let content = content.into();
        let first = World {
            size: content.len(),
            base: Base::Content(content.clone()),
            begin: 0,
            end: Some(0),
            durable_at_end: true,
            control: None,
            sectors: BTreeMap::new(),
        };
        Self {
            worlds: vec![first],
            flushes: Vec::new(),
            logical: content,
            kept: HashMap::new(),
            spans: Vec::new(),
            names: Vec::new(),
        }
    }

    /// What the disk must read now, when nothing is in flight.
    #[must_use]
    pub fn logical(&self) -> &Image {
        &self.logical
    }

    /// Names the next operation and gives its number.
    pub(super) fn number(&mut self, name: String) -> u32 {
        self.names.push(name);
        u32::try_from(self.names.len() - 1).expect("fewer operations than that")
    }

    /// Operation `op` begins at the moment `begin` to give `bytes` to the range from `offset`.
    pub(super) fn write_begins(&mut self, op: u32, begin: usize, offset: u64, bytes: &[u8]) {
        let from = index(offset);
        let range = offset..offset + bytes.len() as u64;
        assert!(range.end <= self.logical.len(), "a write past the disk");
        self.logical.write(offset, bytes);
        self.spans.push(range.clone());
        let world = self.worlds.last_mut().expect("there is always one");
        for sector in sectors(&range) {
            let start = index(sector * SECTOR_BYTES);
            let there = self.logical.len() - start as u64;
            let there = index(there.min(SECTOR_BYTES));
            let mut value = [0; SECTOR];
            let read = self.logical.read(start as u64, &mut value[..there]);
            debug_assert!(read, "inside the disk");
            let part = from.saturating_sub(start)..(from + bytes.len() - start).min(SECTOR);
            world.sectors.entry(sector).or_default().push(Written {
                value: Arc::new(value),
                part,
                op,
                begin,
                end: None,
            });
        }
    }

    /// Operation `op`, which wrote the range, was acknowledged at the moment `end`.
    pub(super) fn write_ends(&mut self, op: u32, end: usize, range: &Range<u64>) {
        let world = self.worlds.last_mut().expect("there is always one");
        for sector in sectors(range) {
            let writes = world.sectors.get_mut(&sector).into_iter().flatten();
            for write in writes.filter(|write| write.op == op) {
                write.end = Some(end);
            }
        }
    }

    pub(super) fn flushed(&mut self, begin: usize, end: usize) {
        self.flushes.push((begin, end));
    }

    /// A control operation begins at the moment `begin`: `control`, if it can be carried out again.
    ///
    /// # Panics
    /// When it applies what was never kept.
    pub(super) fn control_begins(
        &mut self,
        effect: Effect,
        begin: usize,
        durable_at_end: bool,
        control: Option<Control>,
    ) {
        let present = self.worlds.len() - 1;
        let (size, base) = match effect {
            Effect::Apply(id) => {
                let kept = self.kept.get(&id).expect("a snapshot that was made");
                self.logical.clone_from(&kept.logical);
                let (world, at) = (kept.world, kept.at);
                (self.worlds[world].size, Base::Frozen { world, at })
            }
            Effect::Resize(size) => {
                self.logical.set_len(size);
                (size, self.freeze(begin))
            }
            Effect::Keep(id) => {
                let kept = Kept {
                    world: present,
                    at: begin,
                    logical: self.logical.clone(),
                };
                self.kept.insert(id, kept);
                (self.worlds[present].size, self.freeze(begin))
            }
            Effect::Same => (self.worlds[present].size, self.freeze(begin)),
        };
        self.worlds.push(World {
            size,
            base,
            begin,
            end: None,
            durable_at_end,
            control,
            sectors: BTreeMap::new(),
        });
    }

    /// The control operation under way when the log had `at` lines.
    pub(crate) fn interrupted(&self, at: usize) -> Option<Control> {
        let begun = self.worlds.iter().rfind(|world| world.begin < at)?;
        begun
            .control
            .filter(|_| begun.end.is_none_or(|end| end >= at))
    }

    pub(super) fn control_ends(&mut self, end: usize) {
        self.worlds.last_mut().expect("there is always one").end = Some(end);
    }

    /// The disk's ranges around everything that was ever written, whole 4 KiB pieces, ascending.
    #[must_use]
    pub fn touched(&self) -> Vec<Range<u64>> {
        joined(self.spans.iter().cloned())
    }

    /// The same without the inner parts of large operations: what lies within `edge` bytes of where
    /// an operation begins or ends. There it shows most surely what became of it.
    #[must_use]
    pub fn edges(&self, edge: u64) -> Vec<Range<u64>> {
        joined(self.spans.iter().flat_map(|span| {
            let head = span.start..span.end.min(span.start + edge);
            let tail = span.start.max(span.end.saturating_sub(edge))..span.end;
            [head, tail]
        }))
    }

    fn freeze(&self, at: usize) -> Base {
        let world = self.worlds.len() - 1;
        Base::Frozen { world, at }
    }
}

/// `ranges` in whole pieces of 4 KiB, ascending, joined where they meet.
fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let whole = |range: Range<u64>| range.start / 4096 * 4096..range.end.next_multiple_of(4096);
    let mut all: Vec<Range<u64>> = ranges
        .filter(|range| !range.is_empty())
        .map(whole)
        .collect();
    all.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in all {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The sectors that a range of bytes touches.
fn sectors(range: &Range<u64>) -> Range<u64> {
    range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_joined_and_its_edges_are_less() {
        let mut history = History::new(Image::zeros(4 << 20));
        for (offset, len) in [(70_000, 100), (100, 200), (1 << 20, 1 << 20), (4000, 200)] {
            history.write_begins(0, 0, offset, &vec![1; len]);
        }
        let mib = 1 << 20;
        assert_eq!(history.touched(), [0..8192, 69_632..73_728, mib..2 * mib]);
        let edges = [
            0..8192,
            69_632..73_728,
            mib..mib + 16_384,
            2 * mib - 16_384..2 * mib,
        ];
        assert_eq!(history.edges(16_384), edges);
    }

    #[test]
    fn an_operation_is_interrupted_from_its_beginning_to_its_end() {
        let mut history = History::new(Image::zeros(512));
        let compact = Control::Other("compact");
        history.control_begins(Effect::Same, 3, false, Some(compact));
        assert_eq!(history.interrupted(3), None, "not begun");
        assert_eq!(history.interrupted(4), Some(compact));
        assert_eq!(history.interrupted(90), Some(compact), "it never ended");
        history.control_ends(8);
        assert_eq!(history.interrupted(8), Some(compact));
        assert_eq!(history.interrupted(9), None, "over");
        history.control_begins(Effect::Same, 20, false, None);
        assert_eq!(history.interrupted(21), None, "nothing to carry out again");
    }
}
