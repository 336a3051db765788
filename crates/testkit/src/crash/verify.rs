//! Are these files, as a crash left them, what they must be?
//!
//! In turn: the check finds no corruption as it is; a read-only open reads acceptable content and
//! writes nothing; a writable open (recovery) reads the same; the check still finds nothing; a probe
//! written to a sector never written and to one that was is there after a flush and another open,
//! and nothing else has changed. An operation that was cut short is then carried out again on the
//! files as the crash left them, and what comes of it is judged in the same way.

use std::any::Any;
use std::cell::RefCell;
use std::iter;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blockdev_core::{BlockDevice, Severity};

use super::{Control, CrashSubject, Expected, History, Image, StateFiles, index};
use crate::Rng;
use crate::stamp::{SECTOR, SECTOR_BYTES, stamped};

/// Disks up to this size are read whole in every state, others in one of 64.
const READ_WHOLE: u64 = 512 << 10;

/// Larger ones are never read whole.
const TOO_LARGE: u64 = 64 << 20;

/// Probes carry operation numbers that no script reaches.
const PROBE: u32 = 1 << 31;

/// Of larger operations than twice this, the inner part is read in one of 16 states.
const EDGE: u64 = 16 << 10;

/// What of a disk is read back.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Where the script wrote, ascending.
    touched: Vec<Range<u64>>,
    /// Of that, what is near the beginning or the end of an operation.
    edges: Vec<Range<u64>>,
}

impl View {
    pub(crate) fn of(history: &History) -> Self {
        Self {
            touched: history.touched(),
            edges: history.edges(EDGE),
        }
    }

    fn ranges(&self, size: u64, rng: &mut Rng) -> Vec<Range<u64>> {
        if size <= READ_WHOLE || size <= TOO_LARGE && rng.one_in(64) {
            return iter::once(0..size).collect();
        }
        let mut ranges = if rng.one_in(16) {
            self.touched.clone()
        } else {
            self.edges.clone()
        };
        ranges.extend((0..4).map(|_| {
            let at = rng.below(size / 4096) * 4096;
            at..at + 4096
        }));
        let cut = ranges
            .into_iter()
            .map(|range| range.start..range.end.min(size));
        cut.filter(|range| !range.is_empty()).collect()
    }
}

type Wrong<T = ()> = Result<T, String>;

/// A crash at one moment, by which its states are judged.
#[derive(Debug)]
pub(crate) struct AfterCrash<'a, S> {
    pub(crate) subject: &'a S,
    pub(crate) expected: &'a Expected,
    pub(crate) view: &'a View,
    /// The operation that it cut short.
    pub(crate) interrupted: Option<Control>,
}

/// Runs `f`, a panic in it being wrong as well.
pub(crate) fn guarded<T>(f: impl FnOnce() -> Wrong<T>) -> Wrong<T> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|panic| Err(format!("panic: {}", said(&*panic))))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("of unknown cause")
}

impl<S: CrashSubject> AfterCrash<'_, S> {
    /// Judges the files `images`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn verify(&self, images: &[Image], rng: &mut Rng) -> Wrong {
        guarded(|| {
            self.as_it_is(images, rng)?;
            match self.interrupted {
                Some(control) => self.resumed(images, control, rng),
                None => Ok(()),
            }
        })
    }

    fn as_it_is(&self, images: &[Image], rng: &mut Rng) -> Wrong {
        check(self.subject, images, "as it is")?;

        let files = StateFiles::new(images, false);
        let device = open(self.subject, &files, false, "for reading")?;
        let before = read(&device, self.view.ranges(device.size(), rng))?;
        judge(&before, self.expected, "opened for reading")?;
        drop(device);
        if files.refused() > 0 || Image::hash_of(&files.images()) != Image::hash_of(images) {
            return Err("the read-only open changed a file".into());
        }

        let files = StateFiles::new(images, true);
        let device = open(self.subject, &files, true, "for writing")?;
        let after = read(&device, before.ranges())?;
        judge(&after, self.expected, "opened for writing")?;
        if before != after {
            return Err("the recovered disk reads other than the one opened for reading".into());
        }
        self.goes_on(&files, device, after, rng)
    }

    /// The operation `control`, which was cut short, is carried out after all.
    fn resumed(&self, images: &[Image], control: Control, rng: &mut Rng) -> Wrong {
        let files = StateFiles::new(images, true);
        let resumed = self.subject.resume(files.storages(), control);
        let resumed = resumed.map_err(|error| format!("{control:?} again: {error}"))?;
        let Some(device) = resumed else {
            return Ok(());
        };
        let content = read(&device, self.view.ranges(device.size(), rng))?;
        judge(&content, &self.expected.newest(), "carried out again")?;
        self.goes_on(&files, device, content, rng)
            .map_err(|wrong| format!("carried out again: {wrong}"))
    }

    /// A disk that reads `after` becomes stable, is sound, and can be written to.
    fn goes_on(
        &self,
        files: &StateFiles,
        mut device: S::Device,
        mut after: Content,
        rng: &mut Rng,
    ) -> Wrong {
        let subject = self.subject;
        // With the handle open in one half of the states, closed in the other.
        if rng.one_in(2) {
            let flushed = device.flush();
            flushed.map_err(|e| format!("flush after recovery: {e}"))?;
        } else {
            let closed = subject.close(device);
            closed.map_err(|e| format!("close after recovery: {e}"))?;
            device = open(subject, files, true, "after recovery")?;
        }
        check(subject, &files.images(), "after recovery")?;

        for (n, sector) in probes(&after, rng).into_iter().flatten().enumerate() {
            let op = PROBE + u32::try_from(n).expect("two");
            let at = sector * SECTOR_BYTES;
            let bytes = stamped(at, SECTOR, op);
            let written = device.write_at(&bytes, at);
            written.map_err(|e| format!("probe write at sector {sector}: {e}"))?;
            after.put(at, &bytes);
        }
        device
            .flush()
            .map_err(|e| format!("flush of probes: {e}"))?;
        drop(device);
        let files = StateFiles::new(&files.images(), false);
        let device = open(subject, &files, false, "after the probes")?;
        let seen = read(&device, after.ranges())?;
        if let Some(sector) = after.differs(&seen) {
            return Err(format!("after the probes, sector {sector} has changed"));
        }
        drop(device);
        check(subject, &files.images(), "after the probes")
    }
}

fn open<S: CrashSubject>(
    subject: &S,
    files: &StateFiles,
    writable: bool,
    when: &str,
) -> Wrong<S::Device> {
    let opened = subject.open(files.storages(), writable);
    opened.map_err(|error| format!("open {when}: {error}"))
}

/// Fails where the check finds corruption, or leaks that may not be.
pub(crate) fn check<S: CrashSubject>(subject: &S, images: &[Image], when: &str) -> Wrong {
    let files = StateFiles::new(images, false);
    let report = subject.check(files.storages());
    let report = report.map_err(|error| format!("check {when}: {error}"))?;
    if files.refused() > 0 {
        return Err(format!("the check {when} writes"));
    }
    let least = if subject.leaks_allowed() {
        Severity::Corruption
    } else {
        Severity::Leak
    };
    let counted = report.corruptions > 0 || !subject.leaks_allowed() && report.leaks > 0;
    match report.findings.iter().find(|f| f.severity >= least) {
        Some(finding) => Err(format!("check {when}: {finding}")),
        None if counted => Err(format!("check {when}: damage without a finding")),
        None => Ok(()),
    }
}

/// What was read of a disk.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    size: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

thread_local! {
    /// Memory of contents that are no longer needed: the host is slow to give fresh pages.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Content {
    fn drop(&mut self) {
        let spent = self.parts.drain(..).map(|(_, bytes)| bytes);
        BUFFERS.with_borrow_mut(|buffers| {
            buffers.extend(spent);
            buffers.truncate(8);
        });
    }
}

impl Content {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        for (from, part) in &mut self.parts {
            if *from <= at && end <= *from + part.len() as u64 {
                let into = index(at - *from);
                part[into..into + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        let ranges = self.parts.iter().map(|(at, b)| *at..*at + b.len() as u64);
        ranges.collect()
    }

    fn differs(&self, other: &Self) -> Option<u64> {
        let pairs = self.parts.iter().zip(&other.parts);
        let mut unequal = pairs.filter(|((_, a), (_, b))| a != b);
        unequal.find_map(|((at, a), (_, b))| {
            let place = a.iter().zip(b).position(|(a, b)| a != b)?;
            Some((at + place as u64) / SECTOR_BYTES)
        })
    }
}

fn read(device: &impl BlockDevice, ranges: Vec<Range<u64>>) -> Wrong<Content> {
    let size = device.size();
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        let range = range.start.min(size)..range.end.min(size);
        let mut bytes = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
        bytes.clear();
        bytes.resize(index(range.end - range.start), 0xEE);
        let read = device.read_at(&mut bytes, range.start);
        read.map_err(|error| format!("read at {:#x}: {error}", range.start))?;
        parts.push((range.start, bytes));
    }
    Ok(Content { size, parts })
}

fn judge(content: &Content, expected: &Expected, when: &str) -> Wrong {
    let parts: Vec<(u64, &[u8])> = content.parts.iter().map(|(at, b)| (*at, &b[..])).collect();
    let judged = expected.judge(content.size, &parts);
    judged.map_err(|wrong| format!("{when}: {wrong}"))
}

/// A sector that reads as zeros and one that does not, where the disk has them.
fn probes(content: &Content, rng: &mut Rng) -> [Option<u64>; 2] {
    let mut found = [None; 2];
    let Some((at, bytes)) = content.parts.get(rng.index(content.parts.len())) else {
        return found;
    };
    let count = bytes.len() / SECTOR;
    let start = rng.index(count);
    for n in (start..count).chain(0..start) {
        let used = bytes[n * SECTOR..(n + 1) * SECTOR].iter().any(|b| *b != 0);
        found[usize::from(used)].get_or_insert(at / SECTOR_BYTES + n as u64);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found
}

/// What a subject reads of the whole disk in `images`.
pub(crate) fn content<S: CrashSubject>(subject: &S, images: &[Image]) -> Wrong<Image> {
    let files = StateFiles::new(images, false);
    let device = open(subject, &files, false, "of the first image")?;
    let size = device.size();
    let mut content = Image::zeros(size);
    for at in (0..size).step_by(1 << 20) {
        let piece = at..(at + (1 << 20)).min(size);
        for (at, bytes) in &read(&device, vec![piece])?.parts {
            content.write(*at, bytes);
        }
    }
    Ok(content)
}
