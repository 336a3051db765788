//! VHDX images that `qemu-img` makes: dynamic and fixed, of every block size, with every length of
//! log.

use std::fmt;
use std::path::Path;

use diskweave::{OpenDisk, check};
use testkit::Rng;

use crate::content::Content;
use crate::matrix::Case;
use crate::same::same;
use crate::tools::{io, run, to_raw};

pub(crate) struct Theirs {
    seed: u64,
    size: u64,
    fixed: bool,
    block_mib: u64,
    log_mib: u64,
    converted: bool,
}

pub(crate) fn cases() -> Vec<Theirs> {
    const MIB: u64 = 1 << 20;
    let mut cases = Vec::new();
    for block_mib in (0..9).map(|bits| 1 << bits) {
        for (n, log_mib) in [1, 2, 3, 16].into_iter().enumerate() {
            for converted in [false, true] {
                let seed = cases.len() as u64;
                let mut rng = Rng::new(seed);
                let fixed = rng.one_in(4);
                // Some above one chunk: 4 GiB for blocks of 1 MiB, and so up.
                let size = match rng.below(4) {
                    0 if !fixed => (5 * (n as u64 + 1)) << 30,
                    1 => 512,
                    _ => (1 + rng.below(64 * MIB)).next_multiple_of(512),
                };
                cases.push(Theirs {
                    seed,
                    size,
                    fixed,
                    block_mib,
                    log_mib,
                    converted,
                });
            }
        }
    }
    cases
}

impl Theirs {
    fn options(&self) -> String {
        let subformat = if self.fixed { "fixed" } else { "dynamic" };
        format!(
            "subformat={subformat},block_size={}M,log_size={}M",
            self.block_mib, self.log_mib
        )
    }

    fn make(&self, dir: &Path) -> Result<(), String> {
        let mut rng = Rng::new(self.seed ^ 0xD15C);
        let options = self.options();
        if self.converted {
            Content::random(&mut rng, self.size).save(&dir.join("source.raw"))?;
            let arguments = [
                "convert",
                "-t",
                "unsafe",
                "-f",
                "raw",
                "-O",
                "vhdx",
                "-o",
                &options,
                "source.raw",
                "disk.vhdx",
            ];
            return run(dir, "qemu-img", &arguments).map(drop);
        }
        let size = self.size.to_string();
        let arguments = [
            "create",
            "-q",
            "-f",
            "vhdx",
            "-o",
            &options,
            "disk.vhdx",
            &size,
        ];
        run(dir, "qemu-img", &arguments)?;
        let commands: Vec<String> = (0..rng.below(12))
            .map(|_| {
                let offset = rng.below(self.size) / 512 * 512;
                let len = (1 + rng.below(1 << 20)).next_multiple_of(512);
                let len = len.min(self.size - offset);
                format!("write -P {} {offset} {len}", rng.below(255))
            })
            .collect();
        io(dir, "vhdx", "disk.vhdx", &commands)
    }
}

impl Case for Theirs {
    fn run(&self, dir: &Path) -> Result<(), String> {
        self.make(dir)?;
        to_raw(dir, "vhdx", "disk.vhdx", "theirs.raw")?;
        let open = OpenDisk::new().format("vhdx");
        let image = dir.join("disk.vhdx");
        let disk = open.open(&image).map_err(|error| error.to_string())?;
        same(&disk, &dir.join("theirs.raw"))?;
        let report = check(&image, &open)
            .map_err(|error| error.to_string())?
            .report;
        let report = report.ok_or("no report")?;
        if report.is_clean() {
            Ok(())
        } else {
            Err(format!("a check finds {:?}", report.findings))
        }
    }
}

impl fmt::Display for Theirs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            size,
            converted,
            ..
        } = self;
        let how = if *converted { "converted" } else { "written" };
        write!(
            f,
            "theirs seed={seed} size={size} vhdx {} {how}",
            self.options()
        )
    }
}
