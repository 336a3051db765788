//! A long life of image files, for `cargo xtask soak`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev_core::{BlockDevice, FileOptions, FileStorage, OpenOptions};
use qcow2_format::{NewSnapshot, check};
use testkit::Rng;
use testkit::crash::{Control, CrashSubject};
use testkit::model::{FlatDisk, Op, Ops, Weights};
use testkit::oracle::QemuImg;

use crate::random::{Shape, shape};
use crate::subject::Disk;

/// What a soak came to.
#[derive(Debug, Default)]
struct Counts {
    images: u64,
    operations: u64,
    checks: u64,
    by_qemu: u64,
    comparisons: u64,
}

/// One image in a file, and the disk that it must be.
struct Life<'a> {
    file: &'a Path,
    shape: Shape,
    disk: Option<Disk>,
    flat: FlatDisk,
    qemu: Option<&'a QemuImg>,
    step: u32,
}

impl Life<'_> {
    fn open(&self) -> Disk {
        let storage = FileStorage::open(self.file, FileOptions::read_write()).unwrap();
        self.shape.subject.open(Arc::new(storage), true).unwrap()
    }

    fn act(&mut self, op: Op) {
        self.step += 1;
        let disk = self.disk.as_ref().unwrap();
        match op {
            Op::Write { offset, len } => {
                let bytes = self.flat.write(offset, len, self.step);
                disk.write_at(&bytes, offset).unwrap();
            }
            Op::WriteZeroes {
                offset,
                len,
                may_unmap,
            } => {
                let flags = blockdev_core::ZeroFlags {
                    may_unmap,
                    no_fallback: false,
                };
                disk.write_zeroes(offset, len, flags).unwrap();
                self.flat.zero(offset, len);
            }
            Op::Discard { offset, len } => {
                disk.discard(offset, len).unwrap();
                let mut seen = vec![0xEE; usize::try_from(len).unwrap()];
                disk.read_at(&mut seen, offset).unwrap();
                assert!(self.flat.discarded(offset, &seen), "{op:?}");
            }
            Op::Read { offset, len } => {
                let mut seen = vec![0xEE; usize::try_from(len).unwrap()];
                disk.read_at(&mut seen, offset).unwrap();
                assert!(seen == self.flat.part(offset, len), "{op:?}");
            }
            Op::Flush => disk.flush().unwrap(),
            Op::Reopen => {
                self.disk = None;
                self.disk = Some(self.open());
            }
            Op::Control(control) => self.control(control),
        }
    }

    fn control(&mut self, control: Control) {
        self.flat.control(control);
        let disk = self.disk.as_mut().unwrap();
        let name = |id: u32| format!("name {id}");
        match control {
            Control::Resize(size) => disk.resize(size).unwrap(),
            Control::SnapshotCreate(id) => {
                let new = NewSnapshot::now(name(id));
                disk.image.create_snapshot(&new).map(drop).unwrap();
            }
            Control::SnapshotApply(id) => disk.image.apply_snapshot(&name(id)).unwrap(),
            Control::SnapshotDelete(id) => disk.image.delete_snapshot(&name(id)).unwrap(),
            Control::Other(what) => unreachable!("{what}"),
        }
    }

    /// The file as it is when nobody has it open.
    fn judge(&mut self, counts: &mut Counts) {
        self.disk = None;
        let storage = FileStorage::open(self.file, FileOptions::read_only()).unwrap();
        let report = check(Arc::new(storage), &OpenOptions::read_only()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        counts.checks += 1;
        if let Some(qemu) = self.qemu {
            let checked = qemu.check("qcow2", self.file);
            assert_eq!(checked.code, 0, "{checked:?}");
            let raw = self.file.with_extension("raw");
            qemu.to_raw("qcow2", self.file, &raw).unwrap();
            assert!(
                fs::read(&raw).unwrap() == self.flat.bytes(),
                "QEMU reads it otherwise"
            );
            counts.by_qemu += 1;
        }
        let disk = self.open();
        let mut seen = vec![0xEE; self.flat.bytes().len()];
        disk.read_at(&mut seen, 0).unwrap();
        assert!(seen == self.flat.bytes(), "it reads otherwise");
        counts.comparisons += 1;
        self.disk = Some(disk);
    }
}

/// Lives through one image of random shape after the other for as many seconds as `DISKWEAVE_SOAK`
/// says, in a file each; every few hundred steps the file is checked, by us and QEMU, and compared.
#[test]
#[ignore = "cargo xtask soak says for how long"]
fn soak() {
    let seconds: f64 = std::env::var("DISKWEAVE_SOAK").unwrap().parse().unwrap();
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let qemu = QemuImg::find();
    let mut counts = Counts::default();
    let mut seeds = Rng::new(std::process::id().into());
    while Instant::now() < until {
        let seed = seeds.next_u64();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image");
        let shape = shape(seed, &[9, 10, 12, 14, 16, 17], 500);
        println!("seed {seed}: {:?}", shape.options);
        fs::write(&file, &shape.image).unwrap();
        if !shape.subject.base.is_empty() {
            fs::write(folder.path().join("base"), &*shape.subject.base).unwrap();
        }
        let size = shape.content.len() as u64;
        let ops = Ops::new(seed, size, shape.abilities.clone(), Weights::default());
        let mut life = Life {
            file: &file,
            flat: FlatDisk::new(shape.content.clone()),
            shape,
            disk: None,
            qemu: qemu.as_ref(),
            step: 0,
        };
        life.disk = Some(life.open());
        for (step, op) in ops.take(5000).enumerate() {
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
        "soak: qcow2: {} operations on {} images, {} checks, {} by qemu-img, {} comparisons",
        counts.operations, counts.images, counts.checks, counts.by_qemu, counts.comparisons
    );
}
