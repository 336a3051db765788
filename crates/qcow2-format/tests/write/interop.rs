//! Images that QEMU and we write to in turns.
//!
//! ```text
//!   qemu-img makes an image of random options
//!     ─► qemu-io or we do random things to it ─► both check it, both read the same ─► again …
//! ```
//!
//! By default a few rounds are played, the same every time; `DISKWEAVE_INTEROP=full` plays a
//! thousand (`cargo xtask interop --write`).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_core::{
    BlockDevice, FileOptions, FileRole, FileStorage, Layer, OpenOptions, ZeroFlags,
};
use qcow2_format::{NewSnapshot, Qcow2Image, check};
use testkit::Rng;
use testkit::oracle::{Qemu, rounds, same_disk};
use testkit::stamp::stamped;

use crate::subject::{Disk, packed, resize};

/// One image and who does what to it.
struct Round<'a> {
    qemu: &'a Qemu,
    folder: PathBuf,
    rng: Rng,
    story: &'a mut String,
    size: u64,
    cluster: u64,
    base: Arc<Vec<u8>>,
    has_data_file: bool,
    is_raw: bool,
    /// We write whole clusters packed.
    packs: bool,
    /// By name.
    snapshots: Vec<String>,
    may_snapshot: bool,
    /// What the disk reads, as far as somebody has read it.
    content: Vec<u8>,
}

impl<'a> Round<'a> {
    fn new(qemu: &'a Qemu, folder: &Path, seed: u64, story: &'a mut String) -> Self {
        let mut rng = Rng::new(seed);
        let extended = rng.one_in(4);
        let bits = if extended {
            14 + rng.below(4)
        } else {
            9 + rng.below(9)
        };
        let cluster = 1 << bits;
        let size = (64 + rng.below(1500)) * 512 * (1 + cluster / 8192);
        let mut options = format!("cluster_size={cluster}");
        let version_2 = !extended && rng.one_in(5);
        let mut order = 4;
        if version_2 {
            options.push_str(",compat=0.10");
        } else {
            order = rng.below(7);
            let _ = write!(options, ",compat=1.1,refcount_bits={}", 1 << order);
            if extended {
                options.push_str(",extended_l2=on");
            }
            if rng.one_in(3) {
                options.push_str(",lazy_refcounts=on");
            }
        }
        let kind = rng.below(8);
        let has_data_file = kind == 0 && !version_2;
        let is_raw = has_data_file && rng.one_in(2);
        let _ = write!(story, "seed {seed}: {size} bytes, {options}");
        let mut round = Self {
            qemu,
            folder: folder.to_owned(),
            story,
            size,
            cluster,
            base: Arc::default(),
            packs: !has_data_file && order >= 4 && rng.one_in(3),
            has_data_file,
            is_raw,
            rng,
            snapshots: Vec::new(),
            may_snapshot: !has_data_file && order >= 2,
            content: Vec::new(),
        };
        round.create(kind, &options, order);
        round.read_theirs();
        round
    }

    fn create(&mut self, kind: u64, options: &str, order: u64) {
        let (qemu, size) = (self.qemu, self.size);
        let folder = self.folder.clone();
        let make = |more: &str| {
            qemu.img(
                &folder,
                &format!("create -q -f qcow2 -o {options}{more} image {size}"),
            );
        };
        match kind {
            0 if self.has_data_file => {
                self.story.push_str(if self.is_raw {
                    ", raw data file"
                } else {
                    ", data file"
                });
                let raw = if self.is_raw { "on" } else { "off" };
                // QEMU looks for a relative name where it is called.
                let data = folder.join("data").display().to_string();
                make(&format!(",data_file={data},data_file_raw={raw}"));
            }
            1 | 2 => {
                // A base of another length.
                let length = (size / 1024 + self.rng.below(size / 512)) * 512;
                let mut base = stamped(0, usize::try_from(length).unwrap(), 5);
                let hole = usize::try_from(length / 3).unwrap();
                base[hole..hole * 2].fill(0);
                fs::write(folder.join("flat"), &base).unwrap();
                let format = if kind == 1 { "raw" } else { "qcow2" };
                let _ = write!(self.story, ", over {format}");
                qemu.img(&folder, &format!("convert -f raw -O {format} flat base"));
                make(&format!(",backing_file=base,backing_fmt={format}"));
                self.base = Arc::new(base);
            }
            // Compressed clusters that share host clusters are counted often.
            3 if order >= 4 => {
                self.story.push_str(", compressed");
                let mut disk = vec![0; usize::try_from(size).unwrap()];
                for (sector, bytes) in disk.chunks_mut(512).enumerate() {
                    if sector % 40 < 30 {
                        bytes.fill(u8::try_from(sector % 251 + 1).unwrap());
                    }
                }
                fs::write(folder.join("flat"), &disk).unwrap();
                qemu.img(
                    &folder,
                    &format!("convert -c -f raw -O qcow2 -o {options} flat image"),
                );
            }
            4 if !options.contains("extended") => {
                self.story.push_str(", preallocated");
                make(",preallocation=metadata");
            }
            _ => make(""),
        }
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn open(&self, writable: bool) -> Disk {
        let (file, options) = if writable {
            (FileOptions::read_write(), OpenOptions::read_write())
        } else {
            (FileOptions::read_only(), OpenOptions::read_only())
        };
        let storage = FileStorage::open(self.image(), file).unwrap();
        let mut image = Qcow2Image::open(Arc::new(storage), &options).unwrap();
        if self.has_data_file {
            let data = FileStorage::open(self.folder.join("data"), file).unwrap();
            image.attach(FileRole::Data, Arc::new(data)).unwrap();
        }
        let mut disk = Disk::new(image, Arc::clone(&self.base));
        if self.packs {
            disk.write = packed;
        }
        disk
    }

    /// What QEMU reads, which is what counts from now on.
    fn read_theirs(&mut self) {
        self.qemu
            .img(&self.folder, "convert -f qcow2 -O raw image read");
        self.content = fs::read(self.folder.join("read")).unwrap();
    }

    /// A range, of whole sectors if it is for QEMU: its tool takes no other zeroing.
    fn range(&mut self, sectors: bool) -> (u64, u64) {
        let rng = &mut self.rng;
        let unit = if sectors { 512 } else { 1 };
        let at = match rng.below(3) {
            0 => rng.below(self.size) / self.cluster * self.cluster,
            1 => rng.below(self.size) / 512 * 512,
            _ => rng.below(self.size),
        };
        let len = match rng.below(3) {
            0 => self.cluster * (1 + rng.below(3)),
            1 => 512 * (1 + rng.below(9)),
            _ => 1 + rng.below(3 * self.cluster),
        };
        let at = at / unit * unit;
        let len = len.div_ceil(unit) * unit;
        (at, len.min(self.size - at))
    }

    fn ours(&mut self) {
        let mut disk = self.open(true);
        for step in 0..4 + self.rng.below(20) {
            let (at, len) = self.range(false);
            let start = usize::try_from(at).unwrap();
            let part = start..start + usize::try_from(len).unwrap();
            let what = self.rng.below(12);
            let _ = write!(self.story, "\n  ours {what}: {at}+{len}");
            match what {
                0..=5 => {
                    let bytes = stamped(at, part.len(), u32::try_from(step).unwrap() + 100);
                    disk.write_at(&bytes, at).unwrap();
                    self.content[part].copy_from_slice(&bytes);
                }
                6 | 7 => {
                    let flags = ZeroFlags {
                        may_unmap: what == 6,
                        no_fallback: false,
                    };
                    disk.write_zeroes(at, len, flags).unwrap();
                    self.content[part].fill(0);
                }
                8 | 9 => {
                    disk.discard(at, len).unwrap();
                    let seen = &mut self.content[part];
                    let old = seen.to_vec();
                    disk.read_at(seen, at).unwrap();
                    let stray = seen
                        .iter()
                        .zip(old)
                        .any(|(new, old)| *new != 0 && *new != old);
                    assert!(!stray);
                }
                10 => disk.flush().unwrap(),
                _ if self.rng.one_in(2) => self.resize(&mut disk),
                _ => self.snapshot(&mut disk.layer),
            }
        }
        Box::new(disk.layer).close().unwrap();
    }

    fn resize(&mut self, disk: &mut Disk) {
        if !self.snapshots.is_empty() {
            // Their disks keep the size that they had; what to expect of going back is not followed.
            return;
        }
        let size = (1 + self.rng.below(self.size / 256)) * 512;
        let _ = write!(self.story, " to {size}");
        resize(disk, size).unwrap();
        self.content.resize(usize::try_from(size).unwrap(), 0);
        self.size = size;
    }

    fn snapshot(&mut self, image: &mut Qcow2Image) {
        if !self.may_snapshot {
            return;
        }
        if self.snapshots.is_empty() {
            let name = format!("of-ours-{}", self.rng.below(1000));
            image.create_snapshot(&NewSnapshot::now(&*name)).unwrap();
            self.snapshots.push(name);
        } else {
            image.delete_snapshot(&self.snapshots.remove(0)).unwrap();
        }
    }

    /// A fault of QEMU 10.0.2 is left alone: in one session a compressed write, zeroes with unmap over
    /// it, a plain write, and a compressed write again. The last lands inside the plain one's data.
    /// So a session either packs or unmaps.
    fn theirs(&mut self) {
        let packs = self.rng.one_in(4) && !self.has_data_file;
        let mut commands: Vec<String> = Vec::new();
        for _ in 0..4 + self.rng.below(16) {
            let (at, len) = self.range(true);
            let byte = 1 + self.rng.below(255);
            commands.push(match self.rng.below(10) {
                0..=4 => format!("write -q -P {byte} {at} {len}"),
                5 => format!("write -q -z {at} {len}"),
                6 if !packs => format!("write -q -z -u {at} {len}"),
                7 if !packs => format!("discard -q {at} {len}"),
                8 if packs && at % self.cluster == 0 && at + self.cluster <= self.size => {
                    format!("write -q -c -P {byte} {at} {}", self.cluster)
                }
                _ => "flush".into(),
            });
        }
        for command in &commands {
            let _ = write!(self.story, "\n  theirs: {command}");
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let ran = self.qemu.io.run("qcow2", &self.image(), &commands);
        // QEMU does not pack what has a place already; what it then reads counts.
        assert!(packs || ran.is_ok(), "{ran:?}");
        if self.may_snapshot && self.rng.one_in(3) {
            let folder = self.folder.clone();
            let verb = if self.snapshots.is_empty() {
                let name = format!("of-theirs-{}", self.rng.below(1000));
                self.snapshots.push(name.clone());
                format!("-c {name}")
            } else if self.rng.one_in(2) {
                format!("-a {}", self.snapshots[0])
            } else {
                format!("-d {}", self.snapshots.remove(0))
            };
            let _ = write!(self.story, "\n  theirs: snapshot {verb}");
            self.qemu.img(&folder, &format!("snapshot {verb} image"));
        }
        self.read_theirs();
    }

    /// Both find the image clean and read the same.
    fn judge(&self) {
        let theirs = self.qemu.img.check("qcow2", &self.image());
        assert_eq!(theirs.code, 0, "{theirs:?}");
        let storage = FileStorage::open(self.image(), FileOptions::read_only()).unwrap();
        let report = check(Arc::new(storage), &OpenOptions::read_only()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        let mut seen = vec![0xEE; self.content.len()];
        self.open(false).read_at(&mut seen, 0).unwrap();
        same_disk(&seen, &self.content, "we read it otherwise");
        self.qemu
            .img(&self.folder, "convert -f qcow2 -O raw image read");
        let seen = fs::read(self.folder.join("read")).unwrap();
        same_disk(&seen, &self.content, "QEMU reads it otherwise");
        if self.is_raw {
            let mut seen = fs::read(self.folder.join("data")).unwrap();
            // As QEMU makes it, the last cluster may be whole.
            let rest = seen.split_off(self.content.len());
            assert!(rest.len() < usize::try_from(self.cluster).unwrap());
            assert!(rest.iter().all(|byte| *byte == 0), "content past the end");
            same_disk(&seen, &self.content, "its raw data file is otherwise");
        }
    }

    fn play(&mut self) {
        let first = self.rng.below(2);
        for turn in first..first + 3 {
            if turn % 2 == 0 {
                self.ours();
            } else {
                self.theirs();
            }
            self.judge();
        }
    }
}

#[test]
fn images_that_qemu_and_we_write_to_in_turns_stay_clean_and_read_the_same() {
    let Some(qemu) = Qemu::find() else { return };
    rounds("qcow2 written in turns", 24, 1000, |folder, seed, story| {
        Round::new(&qemu, folder, seed, story).play();
    });
}
