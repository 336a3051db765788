//! What a scenario's script holds: the open disk, with every step noted for the explorer.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev_core::{BlockDevice, Error, ErrorKind, Result, Storage, ZeroFlags};

use super::history::{Effect, History};
use super::{Control, CrashSubject, Image, Mark, Recording, index};
use crate::model::Op;
use crate::stamp::{SECTOR_BYTES, stamped};

/// The guest of one run. Data calls take `&self` and may come from several threads, as long as
/// threads that meet in a sector write whole sectors.
#[derive(Debug)]
pub struct Driver<'a, S: CrashSubject> {
    subject: &'a S,
    recording: Arc<Recording>,
    files: Vec<Arc<dyn Storage>>,
    device: Option<S::Device>,
    history: Mutex<History>,
}

impl<'a, S: CrashSubject> Driver<'a, S> {
    /// Opens the image in `files`, which lead to `recording`, for writing. `content` is what the
    /// disk reads.
    ///
    /// # Errors
    /// As [`CrashSubject::open`].
    pub(crate) fn new(
        subject: &'a S,
        recording: Arc<Recording>,
        files: Vec<Arc<dyn Storage>>,
        content: Image,
    ) -> Result<Self> {
        let mut driver = Self {
            subject,
            recording,
            files,
            device: None,
            history: Mutex::new(History::new(content)),
        };
        driver.device = Some(subject.open(&driver.files, true)?);
        Ok(driver)
    }

    /// The open disk. What is written past the driver is not expected by anyone.
    ///
    /// # Panics
    /// When an earlier control operation or reopen failed.
    #[must_use]
    pub fn device(&self) -> &S::Device {
        self.device.as_ref().expect("the disk is open")
    }

    /// The files under the disk.
    #[must_use]
    pub fn files(&self) -> &[Arc<dyn Storage>] {
        &self.files
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.device().size()
    }

    /// Writes `len` stamped bytes at byte `offset`; every third time in two slices, where it
    /// has a sector's border to be cut at.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    pub fn write(&self, offset: u64, len: u64) -> Result<()> {
        let mut history = self.lock_history();
        let op = history.number(format!("write {offset:#x}+{len:#x}"));
        let bytes = stamped(offset, index(len), op);
        let begin = self.recording.mark(Mark::Begin(op));
        history.write_begins(op, begin, offset, &bytes);
        drop(history);
        // Cut between sectors: a device may take slices one by one, and then keeps whole sectors only
        // where the slices hold whole sectors.
        let border = (offset + len / 3).next_multiple_of(SECTOR_BYTES);
        if op % 3 == 2 && border < offset + len {
            let (head, tail) = bytes.split_at(index(border - offset));
            let slices = [IoSlice::new(head), IoSlice::new(tail)];
            self.device().writev_at(&slices, offset)?;
        } else {
            self.device().write_at(&bytes, offset)?;
        }
        self.ended(op, offset, len);
        Ok(())
    }

    /// Makes `len` bytes from byte `offset` zero.
    ///
    /// # Errors
    /// As [`BlockDevice::write_zeroes`].
    pub fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let mut history = self.lock_history();
        let op = history.number(format!("zero {offset:#x}+{len:#x} {flags:?}"));
        let begin = self.recording.mark(Mark::Begin(op));
        history.write_begins(op, begin, offset, &vec![0; index(len)]);
        drop(history);
        self.device().write_zeroes(offset, len, flags)?;
        self.ended(op, offset, len);
        Ok(())
    }

    /// Discards `len` bytes from byte `offset`. What they read afterwards, old or zero, is learnt
    /// by reading and must then stay.
    ///
    /// # Errors
    /// As [`BlockDevice::discard`].
    ///
    /// # Panics
    /// When a byte is neither zero nor what it was.
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let mut history = self.lock_history();
        let op = history.number(format!("discard {offset:#x}+{len:#x}"));
        let old = history.logical().part(offset, index(len));
        let begin = self.recording.mark(Mark::Begin(op));
        // Zero until the outcome is known: old values stay acceptable by themselves.
        history.write_begins(op, begin, offset, &vec![0; old.len()]);
        drop(history);
        self.device().discard(offset, len)?;
        let mut seen = vec![0; old.len()];
        self.device().read_at(&mut seen, offset)?;
        let stray = seen.iter().zip(&old).position(|(s, o)| *s != 0 && s != o);
        assert_eq!(
            stray, None,
            "discard {offset:#x}+{len:#x} shows other bytes"
        );
        let end = self.recording.mark(Mark::End { op, settles: false });
        let mut history = self.lock_history();
        history.write_ends(op, end, &(offset..offset + len));
        if seen.iter().any(|byte| *byte != 0) {
            // What was kept rules over the zeros from now on.
            let begin = self.recording.mark(Mark::Begin(op));
            history.write_begins(op, begin, offset, &seen);
            let end = self.recording.mark(Mark::End { op, settles: false });
            history.write_ends(op, end, &(offset..offset + len));
        }
        Ok(())
    }

    /// Flushes: what was acknowledged is durable from here on.
    ///
    /// # Errors
    /// As [`BlockDevice::flush`].
    pub fn flush(&self) -> Result<()> {
        let (op, begin) = self.begins("flush");
        self.device().flush()?;
        self.settled(op, begin);
        Ok(())
    }

    /// Reads `len` bytes from byte `offset` and compares them with what they must be now.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`].
    ///
    /// # Panics
    /// When they are something else.
    pub fn read(&self, offset: u64, len: u64) -> Result<()> {
        let mut seen = vec![0xEE; index(len)];
        self.device().read_at(&mut seen, offset)?;
        let history = self.lock_history();
        let stray = history.logical().differs(offset, &seen);
        assert_eq!(stray, None, "read {offset:#x}+{len:#x} shows other bytes");
        Ok(())
    }

    /// Closes the disk, which is a flush, and opens it again.
    ///
    /// # Errors
    /// As [`CrashSubject::close`] and [`CrashSubject::open`]; the disk is then no longer open.
    pub fn reopen(&mut self) -> Result<()> {
        self.close()?;
        self.device = Some(self.subject.open(&self.files, true)?);
        Ok(())
    }

    /// Carries out a control operation by [`CrashSubject::control`]; durable by the next flush.
    ///
    /// # Errors
    /// As [`CrashSubject::control`]; the disk is then no longer open.
    pub fn control(&mut self, control: Control) -> Result<()> {
        let subject = self.subject;
        let effect = effect(control);
        let name = format!("{control:?}");
        self.whole_disk(&name, effect, false, Some(control), |device, files| {
            subject.control(device, files, control)
        })
    }

    /// Carries out any change of the whole disk whose `effect` is known. With `durable_at_end` the
    /// old disk is no longer acceptable when it returns, otherwise not after the next flush.
    ///
    /// # Errors
    /// Those of `f`; the disk is then no longer open.
    pub fn control_with(
        &mut self,
        name: &str,
        effect: Effect,
        durable_at_end: bool,
        f: impl FnOnce(S::Device, &[Arc<dyn Storage>]) -> Result<S::Device>,
    ) -> Result<()> {
        self.whole_disk(name, effect, durable_at_end, None, f)
    }

    fn whole_disk(
        &mut self,
        name: &str,
        effect: Effect,
        durable_at_end: bool,
        control: Option<Control>,
        f: impl FnOnce(S::Device, &[Arc<dyn Storage>]) -> Result<S::Device>,
    ) -> Result<()> {
        let (op, begin) = self.begins(name);
        self.lock_history()
            .control_begins(effect, begin, durable_at_end, control);
        let device = self.device.take().ok_or_else(not_open)?;
        self.device = Some(f(device, &self.files)?);
        let end = self.recording.mark(Mark::End {
            op,
            settles: durable_at_end,
        });
        self.lock_history().control_ends(end);
        Ok(())
    }

    /// Does what `op` says, as the generator of the model makes it. Reads are compared.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn apply(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Write { offset, len } => self.write(offset, len),
            Op::WriteZeroes {
                offset,
                len,
                may_unmap,
            } => {
                let flags = ZeroFlags {
                    may_unmap,
                    no_fallback: false,
                };
                self.write_zeroes(offset, len, flags)
            }
            Op::Discard { offset, len } => self.discard(offset, len),
            Op::Read { offset, len } => self.read(offset, len),
            Op::Flush => self.flush(),
            Op::Reopen => self.reopen(),
            Op::Control(control) => self.control(control),
        }
    }

    /// Closes the disk for good, which is a flush.
    pub(crate) fn close(&mut self) -> Result<()> {
        let (op, begin) = self.begins("close");
        let device = self.device.take().ok_or_else(not_open)?;
        self.subject.close(device)?;
        self.settled(op, begin);
        Ok(())
    }

    /// The disk, where it is still open.
    pub(crate) fn open_device(&self) -> Option<&S::Device> {
        self.device.as_ref()
    }

    /// What was done.
    pub(crate) fn history(&self) -> History {
        self.lock_history().clone()
    }

    fn begins(&self, name: &str) -> (u32, usize) {
        let op = self.lock_history().number(name.into());
        (op, self.recording.mark(Mark::Begin(op)))
    }

    fn ended(&self, op: u32, offset: u64, len: u64) {
        let mut history = self.lock_history();
        let end = self.recording.mark(Mark::End { op, settles: false });
        history.write_ends(op, end, &(offset..offset + len));
    }

    fn settled(&self, op: u32, begin: usize) {
        let mut history = self.lock_history();
        let end = self.recording.mark(Mark::End { op, settles: true });
        history.flushed(begin, end);
    }

    fn lock_history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn effect(control: Control) -> Effect {
    match control {
        Control::Resize(size) => Effect::Resize(size),
        Control::SnapshotCreate(id) => Effect::Keep(id),
        Control::SnapshotApply(id) => Effect::Apply(id),
        Control::SnapshotDelete(_) | Control::Other(_) => Effect::Same,
    }
}

fn not_open() -> Error {
    Error::new(ErrorKind::Poisoned, "an earlier failure closed the disk")
}
