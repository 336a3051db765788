//! The moments at which a crash can strike, and what is then uncertain.
//!
//! ```text
//!   log     w1  w2  sync  w3  p4  w5  |crash
//!           ─── base ───  ─ window ─
//! ```
//!
//! The base is everything that completed syncs made durable, the window what was asked for since. Each
//! file has its own base, for a sync is of one file; the window is of all files, in the order of the log.
//! Only these moments are looked at: the start, after each change, after each sync, and after each
//! mark that promises something durable. Between them the same files meet a looser expectation.

use blockdev_core::SyncKind;

use super::Image;
use super::recording::{Entry, Line, Mark};

/// A change that may or may not have reached the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    /// Its line in the log.
    pub(crate) line: usize,
    /// The file it is a change of.
    pub(crate) file: usize,
    /// Durable after all; here only because something older in its file is not.
    pub(crate) forced: bool,
    /// A sync failed over it: no later one makes it durable.
    doomed: bool,
}

/// What is certain of one file at a moment, and what is not of its length.
#[derive(Debug, Clone)]
pub(crate) struct FileThen {
    pub(crate) base: Image,
    /// Lengths the file may have although the whole window says otherwise.
    pub(crate) lengths: Vec<u64>,
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
    pub(crate) files: Vec<FileThen>,
    pub(crate) window: Vec<Unit>,
    /// The last unit of the window has just been added: states without it were met before.
    pub(crate) fresh: bool,
}

/// All moments of a log that begins with `images`, in order.
pub(crate) fn points(images: &[Image], log: &[Line]) -> Vec<Point> {
    let sure = |image: &Image| Sure {
        base: image.clone(),
        weak: Vec::new(),
    };
    let mut walk = Walk {
        log,
        files: images.iter().map(sure).collect(),
        pending: Vec::new(),
        epoch: 0,
        promises: 0,
    };
    let mut points = vec![walk.point(0, false)];
    for (line, Line { file, entry }) in log.iter().enumerate() {
        match entry {
            Entry::Sync { kind, since } => walk.sync(*file, *kind, *since),
            Entry::SyncFailed => walk.pending.iter_mut().for_each(|unit| {
                unit.doomed |= unit.file == *file && !unit.forced;
            }),
            Entry::Mark(Mark::End { settles: true, .. }) => walk.promises += 1,
            Entry::Mark(_) => continue,
            _ => walk.pending.push(Unit {
                line,
                file: *file,
                forced: false,
                doomed: false,
            }),
        }
        points.push(walk.point(line + 1, entry.changes()));
    }
    points
}

/// What completed syncs made of one file.
struct Sure {
    base: Image,
    /// Lengths from before a growth by `set_len` that no full sync has covered yet.
    weak: Vec<u64>,
}

impl Sure {
    fn settle(&mut self, entry: &Entry) {
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

    fn settled(&mut self, kind: SyncKind) {
        if kind == SyncKind::Full {
            self.weak.clear();
        }
        let len = self.base.len();
        self.weak.retain(|weak| *weak < len);
        self.weak.dedup();
    }

    /// With `pending`, what is uncertain of this file.
    fn then<'l>(&self, pending: impl Iterator<Item = &'l Entry>) -> FileThen {
        let mut lengths = self.weak.clone();
        let mut len = self.base.len();
        lengths.push(len);
        for entry in pending {
            let after = match entry {
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
        FileThen {
            base: self.base.clone(),
            lengths,
        }
    }
}

struct Walk<'a> {
    log: &'a [Line],
    files: Vec<Sure>,
    pending: Vec<Unit>,
    epoch: usize,
    promises: usize,
}

impl Walk<'_> {
    /// What was logged of `file` before `since` is durable.
    fn sync(&mut self, file: usize, kind: SyncKind, since: usize) {
        self.epoch += 1;
        let sure = &mut self.files[file];
        let mut waits = false;
        self.pending.retain_mut(|unit| {
            if unit.file != file {
                return true;
            }
            unit.forced |= unit.line < since && !unit.doomed;
            waits |= !unit.forced;
            if !waits {
                sure.settle(&self.log[unit.line].entry);
            }
            waits
        });
        sure.settled(kind);
    }

    fn point(&self, at: usize, fresh: bool) -> Point {
        let files = self.files.iter().enumerate().map(|(file, sure)| {
            let own = self.pending.iter().filter(|unit| unit.file == file);
            sure.then(own.map(|unit| &self.log[unit.line].entry))
        });
        Point {
            at,
            epoch: self.epoch,
            promises: self.promises,
            files: files.collect(),
            window: self.pending.clone(),
            fresh,
        }
    }
}

impl Point {
    /// Units that may be missing.
    pub(crate) fn free(&self) -> usize {
        self.window.iter().filter(|unit| !unit.forced).count()
    }

    /// The files with nothing of the window in them.
    pub(crate) fn bases(&self) -> Vec<Image> {
        self.files.iter().map(|file| file.base.clone()).collect()
    }

    /// The files with all of the window in them.
    pub(crate) fn whole(&self, log: &[Line]) -> Vec<Image> {
        let mut images = self.bases();
        for unit in &self.window {
            log[unit.line].entry.apply(&mut images[unit.file]);
        }
        images
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recording;
    use super::*;

    #[test]
    fn a_sync_empties_the_window_but_not_of_what_a_failed_one_doomed() {
        let image = [Image::from(&[0; 1024][..])];
        let recording = Recording::new(image.to_vec());
        let storage = &recording.storages()[0];
        storage.write_at(&[1; 512], 0).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.write_at(&[2; 512], 0).unwrap();
        recording.sync_failed(0);
        storage.write_at(&[3; 512], 512).unwrap();
        storage.sync(SyncKind::Full).unwrap();
        let points = points(&image, &recording.log());
        let free: Vec<_> = points.iter().map(Point::free).collect();
        assert_eq!(free, [0, 1, 0, 1, 1, 2, 1]);
        let last = points.last().unwrap();
        assert_eq!(
            last.window.len(),
            2,
            "the durable write waits behind the lost one"
        );
        assert_eq!(last.files[0].base.to_vec()[..512], [1; 512]);
    }

    #[test]
    fn a_sync_is_of_one_file() {
        let images = [512, 512].map(Image::zeros);
        let recording = Recording::new(images.to_vec());
        let [first, second] = &recording.storages()[..] else {
            panic!("two files");
        };
        first.write_at(&[1; 512], 0).unwrap();
        second.write_at(&[2; 512], 512).unwrap();
        first.sync(SyncKind::Data).unwrap();
        first.write_at(&[3; 512], 512).unwrap();
        recording.sync_failed(0);
        second.sync(SyncKind::Data).unwrap();
        let points = points(&images, &recording.log());
        let files = |point: &Point| -> Vec<_> { point.window.iter().map(|u| u.file).collect() };
        assert_eq!(files(&points[2]), [0, 1]);
        assert_eq!(
            files(&points[3]),
            [1],
            "what the sync was not of still waits"
        );
        let last = points.last().unwrap();
        assert_eq!(
            files(last),
            [0],
            "a failure in one file dooms nothing in another"
        );
        assert_eq!(last.files[0].lengths, [512, 1024]);
        assert_eq!(last.files[1].base.to_vec()[512..], [2; 512]);
    }

    #[test]
    fn growth_without_bytes_needs_a_full_sync() {
        let image = [Image::from(&[0; 512][..])];
        let recording = Recording::new(image.to_vec());
        let storage = &recording.storages()[0];
        storage.set_len(4096).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.write_at(&[1], 600).unwrap();
        storage.sync(SyncKind::Data).unwrap();
        storage.sync(SyncKind::Full).unwrap();
        let lengths: Vec<_> = points(&image, &recording.log())
            .into_iter()
            .map(|point| point.files[0].lengths.clone())
            .collect();
        assert_eq!(lengths[2], [512, 4096]);
        assert_eq!(lengths[4], [601, 4096]);
        assert_eq!(lengths[5], [4096]);
    }
}
