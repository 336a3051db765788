//! Which part of the window reached the disk: one choice for each number, the same for ever.
//!
//! The first choices of a point are the structured ones: everything, nothing, every prefix, all but
//! one, exactly one, each multi-sector write torn, each hole late, each length. Where the last unit
//! is new, those without it are left out: the point before had them. Of several files, every prefix of
//! each comes with all of the others and with nothing of them. Then come the subsets of a small window,
//! one after the other in a shuffled order, each followed by a random choice; of a large window only
//! random ones, in which each file fares by itself.

use std::fmt;

use super::recording::{Entry, Line};
use super::window::Point;
use super::{Image, index};
use crate::Rng;
use crate::stamp::{SECTOR, SECTOR_BYTES};

/// How much of a unit is there. Sectors are those of the file, counted from the unit's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Prefix(u64),
    Suffix(u64),
    One(u64),
    /// Each sector by a throw of this seed.
    Mask(u64),
}

/// Units in the order in which they reached the disk, and each file's length where it is not what
/// they make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    picks: Vec<(usize, Part)>,
    lens: Vec<Option<u64>>,
}

impl Choice {
    /// The files after the crash.
    pub(crate) fn images(&self, point: &Point, log: &[Line]) -> Vec<Image> {
        let mut images = point.bases();
        for (unit, part) in &self.picks {
            let Line { file, entry } = &log[point.window[*unit].line];
            apply(entry, *part, &mut images[*file]);
        }
        for (image, len) in images.iter_mut().zip(&self.lens) {
            if let Some(len) = len {
                image.set_len(*len);
            }
        }
        images
    }

    /// The choice in words.
    pub(crate) fn describe(&self, point: &Point, log: &[Line]) -> String {
        use fmt::Write;
        let all = point.window.len();
        let mut text = format!("{} of {all} units:", self.picks.len());
        for (unit, part) in &self.picks {
            let line = point.window[*unit].line;
            let _ = write!(text, " [{line}] {}", log[line]);
            if *part != Part::Whole {
                let _ = write!(text, " ({part:?})");
            }
            text.push(';');
        }
        for (n, unit) in point.window.iter().enumerate() {
            if !self.picks.iter().any(|(pick, _)| *pick == n) {
                let _ = write!(text, " lost [{}] {};", unit.line, log[unit.line]);
            }
        }
        for (file, len) in self.lens.iter().enumerate() {
            if let Some(len) = len {
                let of = if file > 0 {
                    format!(" of file {file}")
                } else {
                    String::new()
                };
                let _ = write!(text, " length{of} {len:#x}");
            }
        }
        text
    }
}

fn apply(entry: &Entry, part: Part, image: &mut Image) {
    let Entry::Write { offset, bytes } = entry else {
        return entry.apply(image);
    };
    let count = sectors(entry);
    let there = |n: u64| match part {
        Part::Whole => true,
        Part::Prefix(len) => n < len,
        Part::Suffix(len) => n >= count - len,
        Part::One(one) => n == one,
        Part::Mask(seed) => Rng::new(seed ^ n).one_in(2),
    };
    let mut at = *offset;
    let mut rest = &bytes[..];
    for n in 0..count {
        let room = SECTOR - index(at % SECTOR_BYTES);
        let (now, later) = rest.split_at(room.min(rest.len()));
        if there(n) {
            image.write(at, now);
        }
        at += now.len() as u64;
        rest = later;
    }
}

/// Sectors of the file that a unit touches: more than one can be torn.
fn sectors(entry: &Entry) -> u64 {
    match entry {
        Entry::Write { offset, bytes } => {
            (offset + bytes.len() as u64).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES
        }
        _ => 1,
    }
}

fn is_hole(entry: &Entry) -> bool {
    matches!(entry, Entry::Punch { .. } | Entry::Zero { .. })
}

/// The choices of one point.
#[derive(Debug)]
pub(crate) struct Choices<'a> {
    point: &'a Point,
    log: &'a [Line],
    seed: u64,
    structured: Vec<Choice>,
    /// Units of which every subset is a choice, when there are few enough.
    subsets: Option<u32>,
}

impl<'a> Choices<'a> {
    /// Windows of up to `exhaustive` free units are gone through subset by subset.
    pub(crate) fn new(point: &'a Point, log: &'a [Line], seed: u64, exhaustive: usize) -> Self {
        let open = point.free() - usize::from(point.fresh);
        let subsets = u32::try_from(open).ok();
        let mut choices = Self {
            point,
            log,
            seed: seed ^ (point.at as u64).wrapping_mul(0x2545_F491_4F6C_DD1D),
            structured: Vec::new(),
            subsets: subsets.filter(|_| point.free() <= exhaustive.min(20)),
        };
        choices.structured = choices.structured();
        choices
    }

    /// Choices after which only random ones are left, or none.
    pub(crate) fn planned(&self) -> u64 {
        let subsets = self.subsets.map_or(0, |open| 2 << open);
        self.structured.len() as u64 + subsets
    }

    /// True when the planned choices hold every subset of the window.
    pub(crate) fn exhaustive(&self) -> bool {
        self.subsets.is_some()
    }

    /// Choice number `n`.
    pub(crate) fn choice(&self, n: u64) -> Choice {
        if let Some(choice) = usize::try_from(n).ok().and_then(|n| self.structured.get(n)) {
            return choice.clone();
        }
        let n = n - self.structured.len() as u64;
        match self.subsets {
            Some(open) if n < 2 << open && n.is_multiple_of(2) => {
                // An odd factor goes through all numbers below a power of two.
                let factor = (self.seed >> 1) | 1;
                let subset = (n / 2).wrapping_mul(factor) & ((1 << open) - 1);
                self.picked(|free| subset >> free & 1 == 1 || self.is_new(free))
            }
            _ => self.random(&mut Rng::new(self.seed ^ n.rotate_left(32))),
        }
    }

    /// Whether free unit `free` is the one that has just been added.
    fn is_new(&self, free: usize) -> bool {
        self.point.fresh && free + 1 == self.point.free()
    }

    /// The free units that `there` names (counted among the free ones) and all forced ones, whole
    /// and in order.
    fn picked(&self, there: impl Fn(usize) -> bool) -> Choice {
        let mut free = 0;
        let mut picks = Vec::new();
        for (n, unit) in self.point.window.iter().enumerate() {
            if unit.forced || there(free) {
                picks.push((n, Part::Whole));
            }
            free += usize::from(!unit.forced);
        }
        let lens = vec![None; self.point.files.len()];
        Choice { picks, lens }
    }

    /// Each file ahead of the others, and behind them: the first so many of its free units, from none
    /// to all, and of the others none or all.
    fn files_apart(&self, list: &mut Vec<Choice>) {
        let free = self.point.window.iter().filter(|unit| !unit.forced);
        let of: Vec<usize> = free.map(|unit| unit.file).collect();
        for file in 0..self.point.files.len() {
            let own: Vec<usize> = (0..of.len()).filter(|n| of[*n] == file).collect();
            for end in 0..=own.len() {
                let there = |n| own[..end].contains(&n) || self.is_new(n);
                list.push(self.picked(there));
                list.push(self.picked(|n| of[n] != file || there(n)));
            }
        }
    }

    fn structured(&self) -> Vec<Choice> {
        let free = self.point.free();
        let all = self.picked(|_| true);
        let mut list = vec![all.clone()];
        if self.point.fresh {
            list.push(self.picked(|n| self.is_new(n)));
            list.extend((0..free - 1).map(|but| self.picked(|n| n != but)));
            self.torn(&all, self.point.window.len() - 1, &mut list);
        } else {
            list.push(self.picked(|_| false));
            list.extend((1..free).map(|end| self.picked(|n| n < end)));
            list.extend((0..free).map(|but| self.picked(|n| n != but)));
            list.extend((0..free).map(|only| self.picked(|n| n == only)));
            for (n, unit) in self.point.window.iter().enumerate() {
                if !unit.forced {
                    self.torn(&all, n, &mut list);
                }
            }
        }
        for (n, unit) in self.point.window.iter().enumerate() {
            if is_hole(&self.log[unit.line].entry) && n + 1 < all.picks.len() {
                let mut late = all.clone();
                let hole = late.picks.remove(n);
                late.picks.push(hole);
                list.push(late);
            }
        }
        let whole = self.point.whole(self.log);
        for (n, (file, whole)) in self.point.files.iter().zip(&whole).enumerate() {
            for len in &file.lengths {
                let mut choice = all.clone();
                choice.lens[n] = Some(*len).filter(|len| *len != whole.len());
                list.push(choice);
                let mut choice = self.picked(|_| false);
                choice.lens[n] = Some(*len).filter(|len| *len != file.base.len());
                list.push(choice);
            }
        }
        if self.point.files.len() > 1 {
            self.files_apart(&mut list);
        }
        list
    }

    /// Everything, but unit `n` torn in the plain ways.
    fn torn(&self, all: &Choice, n: usize, list: &mut Vec<Choice>) {
        let count = sectors(&self.log[self.point.window[n].line].entry);
        if count < 2 {
            return;
        }
        let middle = count / 2;
        for part in [
            Part::Prefix(1),
            Part::Prefix(count - 1),
            Part::Suffix(1),
            Part::Suffix(count - 1),
            Part::One(middle),
            Part::Mask(self.seed),
        ] {
            let mut choice = all.clone();
            choice.picks[n].1 = part;
            list.push(choice);
        }
    }

    fn random(&self, rng: &mut Rng) -> Choice {
        let kept = self.kept(rng);
        let free = self.point.window.iter().filter(|unit| !unit.forced);
        let mask: Vec<bool> = free
            .enumerate()
            .map(|(free, unit)| {
                let (keep, of) = kept[unit.file];
                rng.below(of) < keep || self.is_new(free)
            })
            .collect();
        let mut choice = self.picked(|free| mask[free]);
        let tear = rng.one_in(2);
        for (unit, part) in &mut choice.picks {
            let unit = self.point.window[*unit];
            let count = sectors(&self.log[unit.line].entry);
            if tear && count > 1 && !unit.forced && rng.one_in(2) {
                *part = match rng.below(4) {
                    0 => Part::Prefix(1 + rng.below(count - 1)),
                    1 => Part::Suffix(1 + rng.below(count - 1)),
                    2 => Part::One(rng.below(count)),
                    _ => Part::Mask(rng.next_u64()),
                };
            }
        }
        // What is durable stays where it is: only a window without forced units is reordered.
        let movable = self.point.free() == self.point.window.len();
        if movable && choice.picks.len() > 1 && rng.one_in(3) {
            self.reorder(&mut choice, rng);
        }
        for (len, file) in choice.lens.iter_mut().zip(&self.point.files) {
            if rng.one_in(4) {
                *len = Some(*rng.pick(&file.lengths));
            }
        }
        choice
    }

    /// How much of each file's window is there: so many in so many. Of several files one may have
    /// everything and another nothing.
    fn kept(&self, rng: &mut Rng) -> Vec<(u64, u64)> {
        let some = [(1, 2), (1, 2), (7, 8), (1, 8)];
        let any = [(1, 2), (7, 8), (1, 8), (1, 1), (0, 1)];
        let kept: &[_] = if self.point.files.len() > 1 {
            &any
        } else {
            &some
        };
        let files = self.point.files.iter();
        files.map(|_| *rng.pick(kept)).collect()
    }

    /// Moves a hole to the end or the beginning, or swaps a few units.
    fn reorder(&self, choice: &mut Choice, rng: &mut Rng) {
        let picks = &mut choice.picks;
        let hole =
            |(unit, _): &(usize, Part)| is_hole(&self.log[self.point.window[*unit].line].entry);
        let holes: Vec<usize> = (0..picks.len()).filter(|n| hole(&picks[*n])).collect();
        if !holes.is_empty() && rng.one_in(2) {
            let moved = picks.remove(*rng.pick(&holes));
            let to = if rng.one_in(2) { picks.len() } else { 0 };
            picks.insert(to, moved);
            return;
        }
        for _ in 0..=rng.below(3) {
            let (a, b) = (rng.index(picks.len()), rng.index(picks.len()));
            picks.swap(a, b);
        }
    }
}
