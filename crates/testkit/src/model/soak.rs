//! A long life of images in files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev_core::{
    BlockDevice, CheckReport, FileOptions, FileStorage, LockMode, Result, Storage, ZeroFlags,
};

use super::{Abilities, FlatDisk, Op, Ops, Weights};
use crate::Rng;
use crate::crash::{Control, CrashSubject};
use crate::oracle::QemuImg;

/// An image, what lies below it, and what one may ask of it.
#[derive(Debug)]
pub struct Shape<S> {
    /// For reports.
    pub name: String,
    /// The file.
    pub image: Vec<u8>,
    /// What the disk reads.
    pub content: Vec<u8>,
    /// The engine.
    pub subject: S,
    /// What one may ask for.
    pub abilities: Abilities,
    /// Files beside the image that QEMU needs to read it, by name.
    pub beside: Vec<(&'static str, Arc<Vec<u8>>)>,
    /// True when QEMU can read such images.
    pub by_qemu: bool,
}

/// A soak to come.
#[derive(Debug)]
pub struct Soak<S> {
    /// Name of the format, for the closing line and for QEMU.
    pub format: &'static str,
    /// The image that a seed decides.
    pub shape: fn(u64) -> Shape<S>,
    /// The engine's check of a file that nobody has open: clean, or it is a failure.
    pub check: fn(Arc<dyn Storage>) -> Result<CheckReport>,
    /// Operations on one image.
    pub steps: usize,
}

/// What a soak came to.
#[derive(Debug, Default)]
struct Counts {
    images: u64,
    operations: u64,
    checks: u64,
    by_qemu: u64,
    comparisons: u64,
}

/// Lives through one image after the other for as many seconds as the variable `DISKWEAVE_SOAK`
/// says, in a file each; every few hundred steps the file is checked, by the engine and by QEMU, and
/// compared. Half of the handles are closed, half simply dropped.
///
/// # Panics
/// Where an image is not what it must be; the seed was printed.
#[expect(clippy::print_stdout, reason = "what a proof came to is printed")]
pub fn soak<S: CrashSubject>(what: &Soak<S>) {
    let seconds = std::env::var("DISKWEAVE_SOAK").ok();
    let seconds: Option<f64> = seconds.and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.expect("DISKWEAVE_SOAK, a number of seconds");
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let qemu = QemuImg::find();
    let mut counts = Counts::default();
    let mut seeds = Rng::new(std::process::id().into());
    while Instant::now() < until {
        let seed = seeds.next_u64();
        let folder = tempfile::tempdir().expect("a folder for the image");
        let file = folder.path().join("image");
        let shape = (what.shape)(seed);
        println!("seed {seed}: {}", shape.name);
        fs::write(&file, &shape.image).expect("the image's file");
        for (name, bytes) in &shape.beside {
            fs::write(folder.path().join(name), &**bytes).expect("a file beside it");
        }
        let size = shape.content.len() as u64;
        let ops = Ops::new(seed, size, shape.abilities.clone(), Weights::default());
        let mut life = Life {
            what,
            file: &file,
            flat: FlatDisk::new(shape.content.clone()),
            qemu: qemu.as_ref().filter(|_| shape.by_qemu),
            shape,
            disk: None,
            step: 0,
        };
        life.disk = Some(life.open());
        for (step, op) in ops.take(what.steps).enumerate() {
            life.act(op);
            counts.operations += 1;
            if step % 400 == 399 {
                life.judge(&mut counts);
                if Instant::now() >= until {
                    break;
                }
            }
        }
        life.judge(&mut counts);
        counts.images += 1;
    }
    println!(
        "soak: {}: {} operations on {} images, {} checks, {} by qemu-img, {} comparisons",
        what.format,
        counts.operations,
        counts.images,
        counts.checks,
        counts.by_qemu,
        counts.comparisons
    );
}

/// One image in a file, and the disk that it must be.
struct Life<'a, S: CrashSubject> {
    what: &'a Soak<S>,
    file: &'a Path,
    shape: Shape<S>,
    disk: Option<S::Device>,
    flat: FlatDisk,
    qemu: Option<&'a QemuImg>,
    step: u32,
}

impl<S: CrashSubject> Life<'_, S> {
    fn storage(&self, options: FileOptions) -> Arc<dyn Storage> {
        let storage = FileStorage::open(self.file, options);
        Arc::new(storage.expect("the image's file"))
    }

    fn open(&self) -> S::Device {
        let storage = self.storage(FileOptions::read_write());
        let opened = self.shape.subject.open(&[storage], true);
        opened.unwrap_or_else(|error| panic!("step {}: open: {error}", self.step))
    }

    fn act(&mut self, op: Op) {
        self.step += 1;
        let disk = self.disk.as_ref().expect("it is open");
        let done = match op {
            Op::Write { offset, len } => {
                let bytes = self.flat.write(offset, len, self.step);
                disk.write_at(&bytes, offset)
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
                disk.write_zeroes(offset, len, flags)
            }
            Op::Discard { offset, len } => {
                let mut seen = vec![0xEE; usize::try_from(len).expect("a request's length")];
                let done = disk.discard(offset, len);
                let done = done.and_then(|()| disk.read_at(&mut seen, offset));
                assert!(self.flat.discarded(offset, &seen), "{op:?}");
                done
            }
            Op::Read { offset, len } => {
                let mut seen = vec![0xEE; usize::try_from(len).expect("a request's length")];
                let done = disk.read_at(&mut seen, offset);
                assert!(seen == self.flat.part(offset, len), "{op:?}");
                done
            }
            Op::Flush => disk.flush(),
            Op::Reopen => {
                self.close();
                self.disk = Some(self.open());
                Ok(())
            }
            Op::Control(control) => self.control(control),
        };
        done.unwrap_or_else(|error| panic!("step {}, {op:?}: {error}", self.step));
    }

    fn close(&mut self) {
        let disk = self.disk.take().expect("it is open");
        if self.step.is_multiple_of(2) {
            let closed = self.shape.subject.close(disk);
            closed.unwrap_or_else(|error| panic!("step {}: close: {error}", self.step));
        } else {
            drop(disk);
        }
    }

    fn control(&mut self, control: Control) -> Result<()> {
        self.flat.control(control);
        let disk = self.disk.take().expect("it is open");
        // Used only by engines that open the file anew.
        let storage = self.storage(FileOptions::read_write().with_lock(LockMode::None));
        self.disk = Some(self.shape.subject.control(disk, &[storage], control)?);
        Ok(())
    }

    /// The file as it is when nobody has it open.
    fn judge(&mut self, counts: &mut Counts) {
        self.close();
        let report = (self.what.check)(self.storage(FileOptions::read_only())).expect("a check");
        assert!(
            report.is_clean(),
            "step {}: {:?}",
            self.step,
            report.findings
        );
        counts.checks += 1;
        if let Some(qemu) = self.qemu {
            let format = self.what.format;
            let checked = qemu.check(format, self.file);
            assert_eq!(checked.code, 0, "step {}: {checked:?}", self.step);
            let raw = self.file.with_extension("raw");
            qemu.to_raw(format, self.file, &raw).expect("QEMU reads it");
            let theirs = fs::read(&raw).expect("what QEMU read");
            assert!(
                theirs == self.flat.bytes(),
                "step {}: QEMU reads it otherwise",
                self.step
            );
            counts.by_qemu += 1;
        }
        let disk = self.open();
        let mut seen = vec![0xEE; self.flat.bytes().len()];
        disk.read_at(&mut seen, 0).expect("read");
        assert!(
            seen == self.flat.bytes(),
            "step {}: it reads otherwise",
            self.step
        );
        counts.comparisons += 1;
        self.disk = Some(disk);
    }
}
