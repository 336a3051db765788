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
    BlockDevice, FileOptions, FileStorage, Layer, NoProgress, OpenOptions, ZeroFlags,
};
use testkit::Rng;
use testkit::oracle::{Qemu, rounds, same_disk};
use testkit::stamp::stamped;
use vhdx_format::check;

use crate::subject::{Disk, MIB, open};

/// One image and who does what to it.
struct Round<'a> {
    qemu: &'a Qemu,
    folder: PathBuf,
    rng: Rng,
    story: &'a mut String,
    size: u64,
    block: u64,
    /// What the disk reads, as far as somebody has read it.
    content: Vec<u8>,
}

impl<'a> Round<'a> {
    fn new(qemu: &'a Qemu, folder: &Path, seed: u64, story: &'a mut String) -> Self {
        let mut rng = Rng::new(seed);
        let block = MIB << rng.below(4);
        let size = (1 + rng.below(12 * MIB / 512)) * 512;
        let log = 1 + rng.below(3);
        let kind = if rng.one_in(4) { "fixed" } else { "dynamic" };
        // QEMU itself does not notice `block_state_zero=off` when it is off for a fixed disk.
        let zero = *rng.pick(&["on", "off"]);
        let options = format!(
            "subformat={kind},block_size={block},log_size={}M,block_state_zero={zero}",
            log
        );
        let _ = write!(story, "seed {seed}: {size} bytes, {options}");
        let round = Self {
            qemu,
            folder: folder.to_owned(),
            rng,
            story,
            size,
            block,
            content: vec![0; usize::try_from(size).unwrap()],
        };
        let make = format!("create -q -f vhdx -o {options} image {size}");
        qemu.img(folder, &make);
        round
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn open(&self, writable: bool) -> Disk {
        let options = if writable {
            FileOptions::read_write()
        } else {
            FileOptions::read_only()
        };
        let storage = FileStorage::open(self.image(), options).unwrap();
        open(Arc::new(storage), writable, &Arc::default()).unwrap()
    }

    /// A range, of whole sectors if it is for QEMU: its tool takes no other zeroing.
    fn range(&mut self, sectors: bool) -> (u64, u64) {
        let rng = &mut self.rng;
        let unit = if sectors { 512 } else { 1 };
        let at = match rng.below(3) {
            0 => rng.below(self.size) / self.block * self.block,
            1 => rng.below(self.size) / 512 * 512,
            _ => rng.below(self.size),
        };
        let len = match rng.below(6) {
            0 => self.block * (1 + rng.below(2)),
            1..=3 => 512 * (1 + rng.below(30)),
            _ => 1 + rng.below(200_000),
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
                _ if self.rng.one_in(2) => drop(disk.layer.compact(&NoProgress).unwrap()),
                _ => {
                    let size = (1 + self.rng.below(12 * MIB / 512)) * 512;
                    let _ = write!(self.story, " to {size}");
                    disk.layer.resize(size, 0).unwrap();
                    self.content.resize(usize::try_from(size).unwrap(), 0);
                    self.size = size;
                }
            }
        }
        if self.rng.one_in(2) {
            Box::new(disk.layer).close().unwrap();
        }
    }

    /// QEMU's driver knows neither zeroing nor discarding by state: it writes zeros, and passes over
    /// a discard.
    fn theirs(&mut self) {
        let mut commands: Vec<String> = Vec::new();
        for _ in 0..4 + self.rng.below(16) {
            let (at, len) = self.range(true);
            let byte = 1 + self.rng.below(255);
            commands.push(match self.rng.below(10) {
                0..=5 => format!("write -q -P {byte} {at} {len}"),
                6 => format!("write -q -z {at} {len}"),
                7 => format!("discard -q {at} {len}"),
                _ => "flush".into(),
            });
        }
        for command in &commands {
            let _ = write!(self.story, "\n  theirs: {command}");
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let ran = self.qemu.io.run("vhdx", &self.image(), &commands);
        ran.unwrap_or_else(|error| panic!("qemu-io: {error}"));
        self.qemu
            .img(&self.folder, "convert -f vhdx -O raw image read");
        self.content = fs::read(self.folder.join("read")).unwrap();
    }

    /// Both find the image clean and read the same.
    fn judge(&self) {
        let theirs = self.qemu.img.check("vhdx", &self.image());
        assert_eq!(theirs.code, 0, "{theirs:?}");
        let storage = FileStorage::open(self.image(), FileOptions::read_only()).unwrap();
        let report = check(Arc::new(storage), &OpenOptions::read_only()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        let mut seen = vec![0xEE; self.content.len()];
        self.open(false).read_at(&mut seen, 0).unwrap();
        same_disk(&seen, &self.content, "we read it otherwise");
        self.qemu
            .img(&self.folder, "convert -f vhdx -O raw image read");
        let seen = fs::read(self.folder.join("read")).unwrap();
        same_disk(&seen, &self.content, "QEMU reads it otherwise");
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
    rounds("vhdx written in turns", 24, 1000, |folder, seed, story| {
        Round::new(&qemu, folder, seed, story).play();
    });
}
