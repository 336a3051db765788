//! The moments at which a crash can strike, and what is then uncertain.
//!
//! ```text
//!   log     w1  w2  sync  w3  p4  w5  |crash
//!           ─── base ───  ─ window ─
//! ```
//!
//! The base is everything that completed syncs made durable, the window what was asked for since.
//! Only these moments are looked at: the start, after each change, after each sync, and after each
//! mark that promises something durable. Between them the same files meet a looser expectation.

use blockdev_core::SyncKind;

use super::Image;
use super::recording::{Entry, Mark};

/// A change that may or may not have reached the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    /// Its line in the log.
    pub(crate) line: usize,
    /// Durable after all; here only because something older is not.
    pub(crate) forced: bool,
    /// A sync failed over it: no later one makes it durable.
    doomed: bool,
}

/// A moment, with what is certain then and what is not.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// Lines of the log that had happened.
    pub(crate) at: usize,
    /// Which sync-bounded epoch it lies in, from 0.
    pub(crate) epoch: usize,
    /// How many promises of durability had been made: the same bytes are judged anew when this grows.
    pub(crate) promises: usize,
    pub(crate) base: Image,
    pub(crate) window: Vec<Unit>,
    /// The last unit of the window has just been added: states without it were met before.
    pub(crate) fresh: bool,
    /// Lengths the file may have although the whole window says otherwise.
    pub(crate) lengths: Vec<u64>,
}

/// All moments of a log that begins with `image`, in order.
pub(crate) fn points(image: &Image, log: &[Entry]) -> Vec<Point> {
    let mut walk = Walk {
        log,
        base: image.clone(),
        pending: Vec::new(),
        weak: Vec::new(),
        epoch: 0,
        promises: 0,
    };
    let mut points = vec![walk.point(0, false)];
    for (line, entry) in log.iter().enumerate() {
        match entry {
            Entry::Sync { kind, since } => walk.sync(*kind, *since),
            Entry::SyncFailed => walk.pending.iter_mut().for_each(|unit| {
                unit.doomed |= !unit.forced;
            }),
            Entry::Mark(Mark::End { settles: true, .. }) => walk.promises += 1,
            Entry::Mark(_) => continue,
            _ => walk.pending.push(Unit {
                line,
                forced: false,
                doomed: false,
            }),
        }
        points.push(walk.point(line + 1, entry.changes()));
    }
    points
}

struct Walk<'a> {
    log: &'a [Entry],
    base: Image,
    pending: Vec<Unit>,
    /// Lengths from before a growth by `set_len` that no full sync has covered yet.
    weak: Vec<u64>,
    epoch: usize,
    promises: usize,
}

impl Walk<'_> {
    /// What was logged before `since` is durable.
    fn sync(&mut self, kind: SyncKind, since: usize) {
        self.epoch += 1;
        for unit in &mut self.pending {
            unit.forced |= unit.line < since && !unit.doomed;
        }
        let durable = self.pending.iter().take_while(|unit| unit.forced).count();
        for unit in self.pending.drain(..durable) {
            let entry = &self.log[unit.line];
            match entry {
                // Growth without bytes is not needed to read any data.
                Entry::SetLen { len } if *len > self.base.len() => self.weak.push(self.base.len()),
                Entry::Write { offset, bytes } => {
                    let end = offset + bytes.len() as u64;
                    self.weak.iter_mut().for_each(|len| *len = end.max(*len));
                }
                Entry::Zero { offset, len } => {
                    let end = offset + len;
                    self.weak.iter_mut().for_each(|len| *len = end.max(*len));
                }
                _ => {}
            }
            entry.apply(&mut self.base);
        }
        if kind == SyncKind::Full {
            self.weak.clear();
        }
        let len = self.base.len();
        self.weak.retain(|weak| *weak < len);
        self.weak.dedup();
    }

    fn point(&self, at: usize, fresh: bool) -> Point {
        let mut lengths = self.weak.clone();
        let mut len = self.base.len();
        lengths.push(len);
        for unit in &self.pending {
            let after = match &self.log[unit.line] {
                Entry::Write { offset, bytes } => len.max(offset + bytes.len() as u64),
                Entry::Zero { offset, len: zeros } => len.max(offset + zeros),
                Entry::SetLen { len } => *len,
                _ => len,
            };
            if after != len {
                lengths.push(after);
            }
            len = after;
        }
        lengths.sort_unstable();
        lengths.dedup();
        Point {
            at,
            epoch: self.epoch,
            promises: self.promises,
            base: self.base.clone(),
            window: self.pending.clone(),
            fresh,
            lengths,
        }
    }
}

impl Point {
    /// Units that may be missing.
    pub(crate) fn free(&self) -> usize {
        self.window.iter().filter(|unit| !unit.forced).count()
    }

    /// The length of the file with all of the window in it.
    pub(crate) fn whole(&self, log: &[Entry]) -> Image {
        let mut image = self.base.clone();
        for unit in &self.window {
            log[unit.line].apply(&mut image);
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use blockdev_core::Storage;

    use super::super::RecordingStorage;
    use super::*;

    #[test]
    fn a_sync_empties_the_window_but_not_of_what_a_failed_one_doomed() {
        let image = Image::from(&[0; 1024][..]);
        let storage = RecordingStorage::new(image.clone());
        storage.write_at(&[1; 512], 0).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.write_at(&[2; 512], 0).unwrap();
        storage.sync_failed();
        storage.write_at(&[3; 512], 512).unwrap();
        storage.sync(SyncKind::Full).unwrap();
        let log = storage.log();
        let points = points(&image, &log);
        let free: Vec<_> = points.iter().map(Point::free).collect();
        assert_eq!(free, [0, 1, 0, 1, 1, 2, 1]);
        let last = points.last().unwrap();
        assert_eq!(
            last.window.len(),
            2,
            "the durable write waits behind the lost one"
        );
        assert_eq!(last.base.to_vec()[..512], [1; 512]);
    }

    #[test]
    fn growth_without_bytes_needs_a_full_sync() {
        let image = Image::from(&[0; 512][..]);
        let storage = RecordingStorage::new(image.clone());
        storage.set_len(4096).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.write_at(&[1], 600).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.sync(SyncKind::Full).unwrap();
        let log = storage.log();
        let lengths: Vec<_> = points(&image, &log)
            .into_iter()
            .map(|point| point.lengths)
            .collect();
        assert_eq!(lengths[2], [512, 4096]);
        assert_eq!(lengths[4], [601, 4096]);
        assert_eq!(lengths[5], [4096]);
    }
}
