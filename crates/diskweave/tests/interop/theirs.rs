//! qcow2 images of every combination of options that `qemu-img create` has, filled by `qemu-io` or by
//! `qemu-img convert`: we read the same, and a check counts the same.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use diskweave::core::locate::ChainPolicy;
use diskweave::core::{FileOptions, FileStorage, LoneLayer, OpenOptions};
use diskweave::qcow2::Qcow2Image;
use diskweave::{OpenDisk, check};
use testkit::Rng;

use crate::content::Content;
use crate::matrix::Case;
use crate::same::same;
use crate::tools::{ended, io, run, to_raw};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backing {
    Raw,
    Qcow2,
    Vhdx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataFile {
    Placed,
    Raw,
}

/// How the image is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// By `qemu-img convert`.
    Converted,
    /// By `qemu-img convert -c`.
    Packed,
    /// By commands of `qemu-io`; `packed`: some of them compress.
    Written { packed: bool },
}

#[derive(Debug, Clone)]
pub(crate) struct Theirs {
    seed: u64,
    size: u64,
    version_2: bool,
    cluster_bits: u32,
    refcount_bits: u32,
    lazy_refcounts: bool,
    extended_l2: bool,
    zstd: bool,
    preallocation: &'static str,
    backing: Option<Backing>,
    data_file: Option<DataFile>,
    filled: Filled,
    snapshots: usize,
    bitmaps: usize,
}

/// Every cluster size with every width of refcounts in both versions, some times over, each time
/// with the other options as they fall.
pub(crate) fn cases() -> Vec<Theirs> {
    let mut cases = Vec::new();
    for cluster_bits in 9..=21 {
        for round in 0..5 {
            for refcount_order in 0..7 {
                cases.push(Theirs::third(
                    cases.len() as u64,
                    cluster_bits,
                    1 << refcount_order,
                ));
            }
            if round < 3 {
                cases.push(Theirs::second(cases.len() as u64, cluster_bits));
            }
        }
    }
    cases
}

impl Theirs {
    /// Version 3, with what goes with what as `qemu-img` 10.0.2 allows it.
    fn third(seed: u64, cluster_bits: u32, refcount_bits: u32) -> Self {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let extended_l2 = cluster_bits >= 14 && rng.one_in(3);
        let data_file = match rng.below(8) {
            0 => Some(DataFile::Placed),
            1 => Some(DataFile::Raw),
            _ => None,
        };
        let backing = backing(rng).filter(|_| data_file != Some(DataFile::Raw));
        let may_preallocate = backing.is_none() || extended_l2;
        let preallocation = match rng.below(10) {
            0 | 1 if may_preallocate => "metadata",
            2 if may_preallocate => "falloc",
            3 if may_preallocate => "full",
            _ => "off",
        };
        let filled = filled(rng, data_file.is_none(), preallocation == "off");
        // A snapshot adds one to each refcount; packed clusters share theirs.
        let packed = matches!(filled, Filled::Packed | Filled::Written { packed: true });
        let has_room = refcount_bits > if packed { 8 } else { 2 } && data_file.is_none();
        let size = size(rng, cluster_bits, preallocation, filled);
        let written = matches!(filled, Filled::Written { .. }) && size > 0;
        let snapshots = if has_room && rng.one_in(3) {
            1 + rng.index(2)
        } else {
            0
        };
        let bitmaps = if written && rng.one_in(4) {
            1 + rng.index(3)
        } else {
            0
        };
        Self {
            seed,
            size,
            version_2: false,
            cluster_bits,
            refcount_bits,
            lazy_refcounts: rng.one_in(3),
            extended_l2,
            zstd: rng.one_in(2),
            preallocation,
            backing,
            data_file,
            filled,
            snapshots,
            bitmaps,
        }
    }

    fn second(seed: u64, cluster_bits: u32) -> Self {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let backing = backing(rng);
        let preallocation = match rng.below(4) {
            0 if backing.is_none() => "metadata",
            _ => "off",
        };
        let filled = filled(rng, true, preallocation == "off");
        Self {
            seed,
            size: size(rng, cluster_bits, preallocation, filled),
            version_2: true,
            cluster_bits,
            refcount_bits: 16,
            lazy_refcounts: false,
            extended_l2: false,
            zstd: false,
            preallocation,
            backing,
            data_file: None,
            filled,
            snapshots: rng.index(3),
            bitmaps: 0,
        }
    }

    /// The options as `-o` takes them.
    fn options(&self) -> String {
        let compat = if self.version_2 { "0.10" } else { "1.1" };
        let mut options = format!("compat={compat},cluster_size={}", 1u64 << self.cluster_bits);
        let mut option = |set: bool, text: &str| {
            if set {
                options += ",";
                options += text;
            }
        };
        let width = format!("refcount_bits={}", self.refcount_bits);
        option(!self.version_2, &width);
        option(self.lazy_refcounts, "lazy_refcounts=on");
        option(self.extended_l2, "extended_l2=on");
        option(self.zstd, "compression_type=zstd");
        let preallocation = format!("preallocation={}", self.preallocation);
        option(self.preallocation != "off", &preallocation);
        option(self.data_file.is_some(), "data_file=data.raw");
        option(self.data_file == Some(DataFile::Raw), "data_file_raw=on");
        options
    }

    /// Makes what lies below, if anything does; the name and format of the backing file.
    fn below(&self, dir: &Path, rng: &mut Rng) -> Result<Option<[&'static str; 2]>, String> {
        let Some(backing) = self.backing else {
            return Ok(None);
        };
        // As long as the overlay, shorter or longer.
        let size = match rng.below(3) {
            0 => self.size,
            1 => (self.size / 2).next_multiple_of(512),
            _ => self.size + (1 << 20),
        };
        Content::random(rng, size).save(&dir.join("base.raw"))?;
        let (format, name) = match backing {
            Backing::Raw => return Ok(Some(["base.raw", "raw"])),
            Backing::Qcow2 => ("qcow2", "base.qcow2"),
            Backing::Vhdx => ("vhdx", "base.vhdx"),
        };
        let convert = ["convert", "-t", "unsafe", "-f", "raw", "-O", format];
        run(
            dir,
            "qemu-img",
            &[&convert[..], &["base.raw", name]].concat(),
        )?;
        Ok(Some([name, format]))
    }

    /// Makes `disk.qcow2`.
    fn make(&self, dir: &Path) -> Result<(), String> {
        let mut rng = Rng::new(self.seed ^ 0xD15C);
        let options = self.options();
        let below = self.below(dir, &mut rng)?;
        if let Filled::Converted | Filled::Packed = self.filled {
            Content::random(&mut rng, self.size).save(&dir.join("source.raw"))?;
            let mut arguments = vec!["convert", "-t", "unsafe", "-f", "raw", "-O", "qcow2"];
            arguments.extend(["-o", &options]);
            if self.filled == Filled::Packed {
                arguments.push("-c");
            }
            if let Some([name, format]) = below {
                arguments.extend(["-B", name, "-F", format]);
            }
            arguments.extend(["source.raw", "disk.qcow2"]);
            run(dir, "qemu-img", &arguments)?;
            return self.snapshots(dir, self.snapshots);
        }
        let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", &options];
        if let Some([name, format]) = below {
            arguments.extend(["-b", name, "-F", format]);
        }
        let size = self.size.to_string();
        arguments.extend(["disk.qcow2", &size]);
        run(dir, "qemu-img", &arguments)?;
        for n in 0..self.bitmaps {
            let (name, granularity) = (format!("bitmap {n}"), (65_536 >> n).to_string());
            let arguments = ["bitmap", "--add", "-g", &granularity, "disk.qcow2", &name];
            run(dir, "qemu-img", &arguments)?;
        }
        let mut commands = Vec::new();
        if self.filled == (Filled::Written { packed: true }) && self.size > 0 {
            commands = self.packing(&mut rng);
        }
        commands.extend(self.commands(&mut rng));
        io(dir, "qcow2", "disk.qcow2", &commands)?;
        for n in 0..self.snapshots {
            self.snapshots(dir, n + 1)?;
            io(dir, "qcow2", "disk.qcow2", &self.commands(&mut rng))?;
        }
        Ok(())
    }

    /// Takes snapshots until there are `count`.
    fn snapshots(&self, dir: &Path, count: usize) -> Result<(), String> {
        let listed = run(dir, "qemu-img", &["snapshot", "-l", "disk.qcow2"])?;
        let lines = String::from_utf8_lossy(&listed).lines().count();
        for n in lines.saturating_sub(2)..count {
            run(
                dir,
                "qemu-img",
                &["snapshot", "-c", &format!("s{n}"), "disk.qcow2"],
            )?;
        }
        Ok(())
    }

    /// Commands that compress, in order; QEMU refuses to where a cluster has its place already.
    fn packing(&self, rng: &mut Rng) -> Vec<String> {
        let cluster = 1u64 << self.cluster_bits;
        let (mut commands, mut at) = (Vec::new(), 0);
        while commands.len() < 6 {
            let offset = (at + rng.below(self.size)) / cluster * cluster;
            if offset >= self.size {
                break;
            }
            let len = (1 + rng.below(200_000)).next_multiple_of(cluster);
            let len = len.min(self.size - offset);
            commands.push(format!("write -c -P {} {offset} {len}", 1 + rng.below(254)));
            at = (offset + len).next_multiple_of(cluster);
        }
        commands
    }

    /// Commands for `qemu-io` that write, zero and discard here and there.
    fn commands(&self, rng: &mut Rng) -> Vec<String> {
        let cluster = 1u64 << self.cluster_bits;
        let mut commands = Vec::new();
        let count = if self.size == 0 { 0 } else { rng.below(14) };
        for _ in 0..count {
            let align = *rng.pick(&[512, 4096, cluster]);
            let offset = rng.below(self.size) / align * align;
            let longest = (self.size - offset).min(1 << rng.below(20)).max(512);
            let len = longest.next_multiple_of(512).min(self.size - offset);
            let pattern = rng.below(255);
            commands.push(match rng.below(8) {
                0 => format!("write -z {offset} {len}"),
                1 => format!("write -z -u {offset} {len}"),
                2 => format!("discard {offset} {len}"),
                _ => format!("write -P {pattern} {offset} {len}"),
            });
        }
        commands
    }

    /// A check of ours against the one of `qemu-img`.
    fn checks_alike(&self, dir: &Path) -> Result<(), String> {
        let theirs = ended(
            dir,
            "qemu-img",
            &["check", "-f", "qcow2", "--output=json", "disk.qcow2"],
        )?;
        let report: serde_json::Value =
            serde_json::from_slice(&theirs.stdout).map_err(|error| error.to_string())?;
        let open = OpenDisk::new().format("qcow2");
        let ours = check(dir.join("disk.qcow2"), &open).map_err(|error| error.to_string())?;
        let ours = ours.report.ok_or("no report")?;
        let figures = [
            ("corruptions", ours.corruptions),
            ("leaks", ours.leaks),
            ("total-clusters", ours.total_blocks),
            ("allocated-clusters", ours.allocated_blocks),
            ("fragmented-clusters", ours.fragmented_blocks),
            ("compressed-clusters", ours.compressed_blocks),
            ("image-end-offset", ours.image_end_offset),
        ];
        for (name, figure) in figures {
            // QEMU leaves out zeros.
            let theirs = report[name].as_u64().unwrap_or(0);
            if figure != theirs {
                let findings: Vec<_> = ours
                    .findings
                    .iter()
                    .take(3)
                    .map(|f| f.to_string())
                    .collect();
                return Err(format!(
                    "{name} is {figure}, theirs is {theirs}: {findings:?}"
                ));
            }
        }
        let code = match (ours.corruptions, ours.leaks) {
            (0, 0) => 0,
            (0, _) => 3,
            _ => 2,
        };
        if theirs.code != Some(code) {
            return Err(format!("exit code {code}, theirs is {:?}", theirs.code));
        }
        Ok(())
    }

    /// What a snapshot reads, against `qemu-img convert -l`.
    fn snapshot_reads_alike(&self, dir: &Path, name: &str) -> Result<(), String> {
        let arguments = ["convert", "-f", "qcow2", "-O", "raw", "-l", name];
        run(
            dir,
            "qemu-img",
            &[&arguments[..], &["disk.qcow2", "snapshot.raw"]].concat(),
        )?;
        let file = FileStorage::open(dir.join("disk.qcow2"), FileOptions::read_only());
        let image = file.and_then(|file| {
            Qcow2Image::open_snapshot(Arc::new(file), name, &OpenOptions::read_only())
        });
        let image = image.map_err(|error| error.to_string())?;
        same(&LoneLayer::new(Box::new(image)), &dir.join("snapshot.raw"))
            .map_err(|error| format!("snapshot {name}: {error}"))
    }
}

impl Case for Theirs {
    fn run(&self, dir: &Path) -> Result<(), String> {
        self.make(dir)?;
        to_raw(dir, "qcow2", "disk.qcow2", "theirs.raw")?;
        let open = OpenDisk::new().policy(ChainPolicy::Beneath(dir.to_path_buf()));
        let disk = open.format("qcow2").open(dir.join("disk.qcow2"));
        let disk = disk.map_err(|error| error.to_string())?;
        same(&disk, &dir.join("theirs.raw"))?;
        for n in 0..self.snapshots {
            if self.backing.is_none() {
                self.snapshot_reads_alike(dir, &format!("s{n}"))?;
            }
        }
        self.checks_alike(dir)
    }
}

impl fmt::Display for Theirs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            size,
            backing,
            filled,
            snapshots,
            bitmaps,
            ..
        } = self;
        let options = self.options();
        write!(
            f,
            "theirs seed={seed} size={size} {options} backing={backing:?} {filled:?} \
             snapshots={snapshots} bitmaps={bitmaps}"
        )
    }
}

fn backing(rng: &mut Rng) -> Option<Backing> {
    match rng.below(9) {
        0 => Some(Backing::Raw),
        1 => Some(Backing::Qcow2),
        2 => Some(Backing::Vhdx),
        _ => None,
    }
}

fn filled(rng: &mut Rng, may_pack: bool, is_empty: bool) -> Filled {
    match rng.below(6) {
        0 if is_empty => Filled::Converted,
        1 if is_empty && may_pack => Filled::Packed,
        _ => Filled::Written {
            packed: may_pack && is_empty && rng.one_in(2),
        },
    }
}

/// Mostly small; where clusters are large, now and then too long to be written out.
fn size(rng: &mut Rng, cluster_bits: u32, preallocation: &str, filled: Filled) -> u64 {
    const MIB: u64 = 1 << 20;
    let sectors = |rng: &mut Rng, most: u64| (1 + rng.below(most)).next_multiple_of(512);
    if preallocation != "off" || cluster_bits < 12 {
        return sectors(rng, 8 * MIB);
    }
    match rng.below(24) {
        0 => 0,
        1 => 512,
        2 | 3 if matches!(filled, Filled::Written { .. }) => {
            let most = 1 << (cluster_bits * 2 - 3).clamp(27, 38);
            sectors(rng, most)
        }
        4..=6 => sectors(rng, 64 * MIB),
        _ => sectors(rng, 16 * MIB),
    }
}
