//! Images of ours in front of other people's tools: clean, of the same content, and described as
//! they were asked for.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use diskweave::core::locate::ChainPolicy;
use diskweave::qcow2::{self, Backing, CompressionType, Preallocation};
use diskweave::{ConvertOptions, NewImage, NoProgress, OpenDisk, convert, convert_over, vhdx};
use serde_json::{Value, json};
use testkit::Rng;
use testkit::corpus::sha256_file;
use testkit::oracle::{Libvhdi, SevenZip};

use crate::content::Content;
use crate::matrix::Case;
use crate::new_images::{Asked, all};
use crate::same::same;
use crate::tools::{ended, json as ask, run};

/// Who reads a whole disk to compare it is not asked about longer ones.
const WHOLE: u64 = 64 << 20;

pub(crate) struct Ours {
    seed: u64,
    size: u64,
    asked: Asked,
}

pub(crate) fn cases() -> Vec<Ours> {
    let asked = all();
    (0u64..)
        .zip(asked)
        .map(|(seed, asked)| {
            let size = size(&mut Rng::new(seed), &asked.image);
            Ours { seed, size, asked }
        })
        .collect()
}

/// Mostly small; now and then empty, no whole number of sectors, or above one chunk and one L2 table.
fn size(rng: &mut Rng, image: &NewImage) -> u64 {
    let fixed = match image {
        NewImage::Vhdx(options) => options.fixed,
        NewImage::Qcow2(options) => options.preallocation != Preallocation::Off,
        _ => false,
    };
    if matches!(image, NewImage::Qcow2(options) if options.backing.is_some()) {
        return (1 + rng.below(8 << 20)).next_multiple_of(512);
    }
    let fine = matches!(image, NewImage::Qcow2(options) if options.cluster_bits < 12);
    match rng.below(16) {
        0 if !matches!(image, NewImage::Vhdx(_)) => 0,
        1 => 512,
        2 => 1 + rng.below(4 << 20),
        3 | 4 if !fixed && !fine => (1 + rng.below(40 << 30)).next_multiple_of(512),
        5..=7 => (1 + rng.below(64 << 20)).next_multiple_of(512),
        _ => (1 + rng.below(8 << 20)).next_multiple_of(512),
    }
}

impl Ours {
    fn convert(&self, dir: &Path) -> Result<(), String> {
        let mut rng = Rng::new(self.seed ^ 0xD15C);
        let source = dir.join("source.raw");
        if let NewImage::Qcow2(options) = &self.asked.image
            && let Some(below) = &options.backing
        {
            return self.convert_over(dir, below, &mut rng);
        }
        Content::random(&mut rng, self.size).save(&source)?;
        let disk = OpenDisk::new().format("raw").open(&source);
        let disk = disk.map_err(|error| error.to_string())?;
        let options = ConvertOptions::default();
        let image = &self.asked.image;
        convert(&disk, dir.join("disk"), image, &options, &NoProgress)
            .map_err(|error| error.to_string())?;
        // The image's last sector is whole; so is the file's from here on.
        let sector = match image {
            NewImage::Raw(_) => 1,
            NewImage::Vhdx(options) => options.logical_sector_size.into(),
            _ => 512,
        };
        let padded = std::fs::OpenOptions::new().write(true).open(&source);
        padded
            .and_then(|file| file.set_len(self.size.next_multiple_of(sector)))
            .map_err(|error| error.to_string())
    }

    /// As [`convert`](Self::convert), over a disk that is as long, shorter or longer, and mostly the
    /// same.
    fn convert_over(&self, dir: &Path, below: &Backing, rng: &mut Rng) -> Result<(), String> {
        let size = match rng.below(3) {
            0 => self.size,
            1 => (self.size / 2).next_multiple_of(512),
            _ => self.size + (1 << 20),
        };
        let (base, source) = (dir.join("base.raw"), dir.join("source.raw"));
        Content::random(rng, size).save(&base)?;
        std::fs::copy(&base, &source).map_err(|error| error.to_string())?;
        Content::random(rng, self.size).save_over(&source)?;
        if below.format != "raw" {
            let arguments = ["convert", "-f", "raw", "-O", &below.format];
            let arguments = [&arguments[..], &["base.raw", &below.name]].concat();
            run(dir, "qemu-img", &arguments)?;
        }
        let open = |format: &str, path: &Path| {
            let disk = OpenDisk::new().format(format).open(path);
            disk.map_err(|error| error.to_string())
        };
        let backing = open(&below.format, &dir.join(&below.name))?;
        let (disk, to) = (open("raw", &source)?, dir.join("disk"));
        let (image, options) = (&self.asked.image, ConvertOptions::default());
        convert_over(&disk, &backing, to, image, &options, &NoProgress)
            .map_err(|error| error.to_string())
    }

    fn is_clean_and_the_same(&self, dir: &Path, format: &str) -> Result<(), String> {
        let check = ["check", "-f", format, "--output=json", "disk"];
        let checked = ended(dir, "qemu-img", &check)?;
        if checked.code != Some(0) {
            let report = String::from_utf8_lossy(&checked.stdout).into_owned();
            let code = checked.code;
            return Err(format!("check: {code:?} {report} {}", checked.stderr));
        }
        let compare = ["compare", "-f", format, "-F", "raw", "disk", "source.raw"];
        run(dir, "qemu-img", &compare).map(drop)
    }

    fn qcow2(&self, dir: &Path, options: &qcow2::CreateOptions) -> Result<(), String> {
        self.is_clean_and_the_same(dir, "qcow2")?;
        let info = ask(dir, &["info", "-f", "qcow2", "--output=json", "disk"])?;
        let specific = &info["format-specific"]["data"];
        let expect = |name: &str, found: &Value, expected: Value| {
            if *found == expected {
                Ok(())
            } else {
                Err(format!("{name} is {found}, asked for was {expected}"))
            }
        };
        let size = self.size.next_multiple_of(512);
        expect("virtual-size", &info["virtual-size"], json!(size))?;
        let cluster_size = 1u64 << options.cluster_bits;
        expect("cluster-size", &info["cluster-size"], json!(cluster_size))?;
        let bits = 1 << options.refcount_order;
        expect("refcount-bits", &specific["refcount-bits"], json!(bits))?;
        let compression = match options.compression_type {
            CompressionType::Zstd => "zstd",
            _ => "zlib",
        };
        let found = &specific["compression-type"];
        expect("compression-type", found, json!(compression))?;
        if let Some(below) = &options.backing {
            expect("backing file", &info["backing-filename"], json!(below.name))?;
            let format = &info["backing-filename-format"];
            expect("backing format", format, json!(below.format))?;
        }
        if options.version == 2 {
            return expect("compat", &specific["compat"], json!("0.10"));
        }
        let lazy = json!(options.lazy_refcounts);
        let extended = json!(options.extended_l2);
        expect("compat", &specific["compat"], json!("1.1"))?;
        expect("lazy-refcounts", &specific["lazy-refcounts"], lazy)?;
        expect("extended-l2", &specific["extended-l2"], extended)?;
        expect("corrupt", &specific["corrupt"], json!(false))
    }

    fn vhdx(&self, dir: &Path, options: &vhdx::CreateOptions) -> Result<(), String> {
        let sector = u64::from(options.logical_sector_size);
        let size = self.size.next_multiple_of(sector);
        // QEMU 10.0.2 reads sectors of 512 bytes only.
        if sector == 512 {
            self.is_clean_and_the_same(dir, "vhdx")?;
            let info = ask(dir, &["info", "-f", "vhdx", "--output=json", "disk"])?;
            if info["virtual-size"] != json!(size) {
                return Err(format!("virtual-size is {}", info["virtual-size"]));
            }
            if info["cluster-size"] != json!(options.block_size) {
                return Err(format!("block size is {}", info["cluster-size"]));
            }
        }
        if size > WHOLE {
            return Ok(());
        }
        let hash = sha256_file(&dir.join("source.raw"));
        let image = dir.join("disk");
        if let Some(vhdi) = libvhdi() {
            let theirs = vhdi.sha256(&[&image])?;
            if theirs != (size, hash.clone()) {
                return Err(format!("libvhdi reads {theirs:?}, expected {size} {hash}"));
            }
        }
        // 7-Zip 26.02 refuses disks of an odd number of sectors, those that QEMU makes too.
        if (size / sector).is_multiple_of(2)
            && let Some(zip) = seven_zip()
        {
            let raw = dir.join("7z.raw");
            zip.to_raw(&image, &raw)?;
            let theirs = sha256_file(&raw);
            if theirs != hash {
                return Err(format!("7-Zip reads {theirs}, expected {hash}"));
            }
        }
        Ok(())
    }
}

/// Looked for once, so that its absence is told once.
fn libvhdi() -> Option<&'static Libvhdi> {
    static TOOL: OnceLock<Option<Libvhdi>> = OnceLock::new();
    TOOL.get_or_init(Libvhdi::find).as_ref()
}

fn seven_zip() -> Option<&'static SevenZip> {
    static TOOL: OnceLock<Option<SevenZip>> = OnceLock::new();
    TOOL.get_or_init(SevenZip::find).as_ref()
}

impl Case for Ours {
    fn run(&self, dir: &Path) -> Result<(), String> {
        self.convert(dir)?;
        let open = OpenDisk::new().policy(ChainPolicy::Beneath(dir.to_path_buf()));
        let disk = open.open(dir.join("disk"));
        same(
            &disk.map_err(|error| error.to_string())?,
            &dir.join("source.raw"),
        )?;
        match &self.asked.image {
            NewImage::Qcow2(options) => self.qcow2(dir, options),
            NewImage::Vhdx(options) => self.vhdx(dir, options),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, size, asked } = self;
        write!(f, "ours seed={seed} size={size} {}", asked.text)
    }
}
