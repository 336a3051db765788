//! A device and the flat disk, side by side through random operations.

use std::fmt::Write as _;
use std::io::IoSlice;
use std::sync::Arc;

use blockdev_core::{BlockDevice, ExtentKind, Extents, Storage, ZeroFlags, first_nonzero};

use super::{FlatDisk, Op};
use crate::Rng;
use crate::crash::verify::{check, guarded};
use crate::crash::{CrashSubject, StateStorage, index};

/// How a device is compared with the flat disk.
#[derive(Debug, Clone, Copy)]
pub struct Compare {
    /// Whole content, random ranges and block status after every so many operations, at least 1.
    pub every: usize,
    /// The engine's check after each close.
    pub check: bool,
}

impl Default for Compare {
    fn default() -> Self {
        Self {
            every: 1,
            check: true,
        }
    }
}

/// Does `ops` to the disk in `image` (a clean one, which reads `content`) and to the flat disk, and
/// compares. Returns the image at the end, closed.
///
/// # Panics
/// Where the two differ, with `seed` and the shortest beginning of `ops` that shows it.
pub fn run_model<S: CrashSubject>(
    subject: &S,
    image: &[u8],
    content: Vec<u8>,
    seed: u64,
    ops: impl IntoIterator<Item = Op>,
    compare: Compare,
) -> Vec<u8> {
    let ops: Vec<Op> = ops.into_iter().collect();
    let tell = |ops: &[Op], compare: Compare| {
        let told = Model::new(subject, image, content.clone(), seed);
        guarded(|| told?.tell(ops, compare))
    };
    match tell(&ops, compare) {
        Ok(image) => image,
        Err(first) => {
            // Seen where it happens, it needs no more operations than that.
            let each = Compare {
                every: 1,
                ..compare
            };
            let shown = |n: usize| tell(&ops[..n], each).is_err();
            let needed = (0..=ops.len()).find(|n| shown(*n)).unwrap_or(ops.len());
            let wrong = tell(&ops[..needed], each).err().unwrap_or(first);
            panic!(
                "{wrong}\nseed {seed}, {needed} operations:{}",
                listed(&ops[..needed])
            );
        }
    }
}

fn listed(ops: &[Op]) -> String {
    let mut text = String::new();
    for (n, op) in ops.iter().enumerate() {
        let _ = write!(text, "\n  {n}: {op:?}");
    }
    text
}

struct Model<'a, S: CrashSubject> {
    subject: &'a S,
    state: Arc<StateStorage>,
    files: [Arc<dyn Storage>; 1],
    device: Option<S::Device>,
    flat: FlatDisk,
    rng: Rng,
}

type Told<T = ()> = Result<T, String>;

impl<'a, S: CrashSubject> Model<'a, S> {
    fn new(subject: &'a S, image: &[u8], content: Vec<u8>, seed: u64) -> Told<Self> {
        let state = StateStorage::writable(image.into());
        let files: [Arc<dyn Storage>; 1] = [state.clone()];
        let device = subject.open(&files, true);
        Ok(Self {
            subject,
            state,
            files,
            device: Some(device.map_err(|error| format!("open: {error}"))?),
            flat: FlatDisk::new(content),
            rng: Rng::new(seed ^ 0x5EED),
        })
    }

    fn tell(mut self, ops: &[Op], compare: Compare) -> Told<Vec<u8>> {
        self.compare()?;
        for (n, op) in ops.iter().enumerate() {
            let done = self.step(n, *op, compare.check);
            done.map_err(|wrong| format!("operation {n}, {op:?}: {wrong}"))?;
            if (n + 1) % compare.every.max(1) == 0 {
                let same = self.compare();
                same.map_err(|wrong| format!("after operation {n}, {op:?}: {wrong}"))?;
            }
        }
        self.reopen(compare.check)?;
        self.compare()?;
        self.close(compare.check)?;
        Ok(self.state.image().to_vec())
    }

    fn device(&self) -> Told<&S::Device> {
        self.device.as_ref().ok_or_else(|| "not open".to_owned())
    }

    fn step(&mut self, n: usize, op: Op, check: bool) -> Told {
        let number = u32::try_from(n).expect("fewer operations than that");
        let done = match op {
            Op::Write { offset, len } => {
                let bytes = self.flat.write(offset, len, number);
                if n % 3 == 2 {
                    let (head, tail) = bytes.split_at(bytes.len() / 3);
                    let slices = [IoSlice::new(head), IoSlice::new(tail)];
                    self.device()?.writev_at(&slices, offset)
                } else {
                    self.device()?.write_at(&bytes, offset)
                }
            }
            Op::WriteZeroes {
                offset,
                len,
                may_unmap,
            } => {
                self.flat.zero(offset, len);
                let flags = ZeroFlags {
                    may_unmap,
                    no_fallback: false,
                };
                self.device()?.write_zeroes(offset, len, flags)
            }
            Op::Discard { offset, len } => {
                let mut seen = vec![0xEE; index(len)];
                let device = self.device()?;
                let done = device.discard(offset, len);
                let done = done.and_then(|()| device.read_at(&mut seen, offset));
                if done.is_ok() && !self.flat.discarded(offset, &seen) {
                    return Err("bytes that are neither zero nor what they were".into());
                }
                done
            }
            Op::Read { offset, len } => return self.same(offset, len),
            Op::Flush => self.device()?.flush(),
            Op::Reopen => return self.reopen(check),
            Op::Control(control) => {
                self.flat.control(control);
                let device = self.device.take().ok_or("not open")?;
                let changed = self.subject.control(device, &self.files, control);
                changed.map(|device| self.device = Some(device))
            }
        };
        done.map_err(|error| error.to_string())
    }

    fn close(&mut self, checked: bool) -> Told {
        let device = self.device.take().ok_or("not open")?;
        let closed = self.subject.close(device);
        closed.map_err(|error| format!("close: {error}"))?;
        if checked {
            check(self.subject, &[self.state.image()], "after a close")?;
        }
        Ok(())
    }

    fn reopen(&mut self, check: bool) -> Told {
        self.close(check)?;
        let device = self.subject.open(&self.files, true);
        self.device = Some(device.map_err(|error| format!("reopen: {error}"))?);
        Ok(())
    }

    /// Whole content, a few ranges by themselves, and the status of everything.
    fn compare(&mut self) -> Told {
        let size = self.flat.bytes().len() as u64;
        let shown = self.device()?.size();
        if shown != size {
            return Err(format!("a disk of {shown} bytes, not {size}"));
        }
        self.same(0, size)?;
        for _ in 0..4 {
            let offset = self.rng.below(size);
            let len = 1 + self.rng.below((size - offset).min(10_000));
            self.same(offset, len)?;
        }
        self.status()
    }

    fn same(&self, offset: u64, len: u64) -> Told {
        let mut seen = vec![0xEE; index(len)];
        let read = self.device()?.read_at(&mut seen, offset);
        read.map_err(|error| format!("read {offset:#x}+{len:#x}: {error}"))?;
        let right = self.flat.part(offset, len);
        match first_difference(&seen, right) {
            None => Ok(()),
            Some(at) => Err(format!(
                "read {offset:#x}+{len:#x}: byte {:#x} (sector {}) is {:#04x}, not {:#04x}",
                offset + at as u64,
                (offset + at as u64) / 512,
                seen[at],
                right[at]
            )),
        }
    }

    /// What is called zero or absent reads as zeros, and the runs fill the disk.
    fn status(&self) -> Told {
        let size = self.flat.bytes().len() as u64;
        let mut next = 0;
        for run in Extents::new(self.device()?, 0, size) {
            let (at, run) = run.map_err(|error| format!("block status: {error}"))?;
            if at != next || run.len == 0 || run.len > size - at {
                return Err(format!("a run of {:#x} at {at:#x}, not {next:#x}", run.len));
            }
            next = at + run.len;
            let empty = matches!(run.kind, ExtentKind::Zero | ExtentKind::Absent);
            let stray = first_nonzero(self.flat.part(at, run.len));
            if let (true, Some(stray)) = (empty, stray) {
                let at = at + stray as u64;
                return Err(format!("{:?} at {at:#x}, where there is content", run.kind));
            }
        }
        if next == size {
            Ok(())
        } else {
            Err(format!("the runs end at {next:#x} of {size:#x}"))
        }
    }
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b)
}
