//! Disks that go from format to format and back: nothing is lost, and no step stores more than the
//! step before it, in its own units.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, ExtentKind, Extents};
use diskweave::qcow2::Preallocation;
use diskweave::{ConvertOptions, NewImage, NoProgress, OpenDisk, convert};
use testkit::Rng;

use crate::content::Content;
use crate::matrix::Case;
use crate::new_images::{Asked, GENERATORS, all};
use crate::same::same;

/// What file systems keep holes by.
const RAW_UNIT: u64 = 4096;

pub(crate) struct RoundTrip {
    seed: u64,
    size: u64,
    steps: Vec<Asked>,
}

pub(crate) fn cases() -> Vec<RoundTrip> {
    let mut formats: Vec<Vec<Asked>> = GENERATORS.iter().map(|generate| generate()).collect();
    for of_format in &mut formats {
        // What holds only differences is no whole disk.
        let over = |image: &NewImage| matches!(image, NewImage::Qcow2(o) if o.backing.is_some());
        of_format.retain(|asked| !over(&asked.image));
    }
    formats.retain(|of_format| !of_format.is_empty());
    let raw = all().swap_remove(0);
    assert_eq!(raw.image, NewImage::raw(), "the first of all");
    (0..120)
        .map(|seed| {
            let mut rng = Rng::new(seed);
            let mut steps: Vec<Asked> = (0..2 + rng.index(4))
                .map(|_| {
                    let of_format = rng.pick(&formats);
                    rng.pick(of_format).clone()
                })
                .collect();
            steps.push(raw.clone());
            let small = steps.iter().any(|step| match &step.image {
                NewImage::Vhdx(options) => options.fixed,
                NewImage::Qcow2(options) => {
                    options.cluster_bits < 12 || options.preallocation != Preallocation::Off
                }
                _ => false,
            });
            // In sectors of every size, for no format keeps less.
            let most = if rng.one_in(4) && !small {
                20 << 30
            } else {
                16 << 20
            };
            let size = (1 + rng.below(most)).next_multiple_of(4096);
            RoundTrip { seed, size, steps }
        })
        .collect()
}

/// The unit in which an image of this kind stores a disk; `None` where it stores all of it.
fn unit(image: &NewImage) -> Option<u64> {
    match image {
        NewImage::Vhdx(options) if options.fixed => None,
        NewImage::Vhdx(options) => Some(options.block_size.into()),
        NewImage::Qcow2(options) if options.preallocation != Preallocation::Off => None,
        NewImage::Qcow2(options) => Some(1 << options.cluster_bits),
        _ => Some(RAW_UNIT),
    }
}

/// How many units of so many bytes hold something that is stored.
fn stored_units(disk: &Chain, unit: u64) -> Result<u64, String> {
    let mut units = BTreeSet::new();
    for run in Extents::new(disk, 0, disk.size()) {
        let (start, run) = run.map_err(|error| error.to_string())?;
        if matches!(run.kind, ExtentKind::Data | ExtentKind::Compressed) {
            units.extend(start / unit..(start + run.len).div_ceil(unit));
        }
    }
    Ok(units.len() as u64)
}

impl Case for RoundTrip {
    fn run(&self, dir: &Path) -> Result<(), String> {
        let mut rng = Rng::new(self.seed ^ 0xD15C);
        let first = dir.join("source.raw");
        Content::random(&mut rng, self.size).save(&first)?;
        let open = |path: &Path, image: &NewImage| {
            let format = match image {
                NewImage::Vhdx(_) => "vhdx",
                NewImage::Qcow2(_) => "qcow2",
                _ => "raw",
            };
            let disk = OpenDisk::new().format(format).open(path);
            disk.map_err(|error| format!("{}: {error}", path.display()))
        };
        let mut source = open(&first, &NewImage::raw())?;
        for (n, step) in self.steps.iter().enumerate() {
            let path = dir.join(format!("step{n}"));
            let options = ConvertOptions::default();
            let what = |text: String| format!("step {n}, {}: {text}", step.text);
            convert(&source, &path, &step.image, &options, &NoProgress)
                .map_err(|error| what(error.to_string()))?;
            let disk = open(&path, &step.image)?;
            same(&disk, &first).map_err(what)?;
            if let Some(unit) = unit(&step.image) {
                let (before, after) = (stored_units(&source, unit)?, stored_units(&disk, unit)?);
                if after > before {
                    let text = format!("it stores {after} units of {unit} bytes, not {before}");
                    return Err(what(text));
                }
            }
            source = disk;
        }
        Ok(())
    }
}

impl fmt::Display for RoundTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(|step| step.text.as_str()).collect();
        let Self { seed, size, .. } = self;
        write!(
            f,
            "round trip seed={seed} size={size} {}",
            steps.join(" > ")
        )
    }
}
