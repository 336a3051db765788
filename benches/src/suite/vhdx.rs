//! VHDX: dynamic images with blocks of 2 MiB, and differencing ones over them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use blockdev_core::{FileOptions, FileStorage};
use testkit::vhdx_builder::{ParentLocator, VhdxBuilder};
use vhdx_format::{OpenOptions, VhdxImage};

use super::Suite;
use crate::Outcome;
use crate::engine::{Engine, Format, text};
use crate::job::Order::{self, Once, Random, Sequential};
use crate::job::Start::{Child, Fresh, Full, Part, WrittenChild as Again};
use crate::job::{Job, LARGE, SMALL};
use crate::place::OVERWRITTEN;
use crate::qemu;

/// What Hyper-V gives a differencing disk.
pub(crate) const BLOCK: u32 = 2 << 20;

pub(super) static SUITE: Suite = Suite {
    format: Format::Vhdx,
    engines: &[
        Engine::Ours,
        Engine::VhdxRs,
        Engine::Virtdisk,
        Engine::QemuImg,
        Engine::Plain,
    ],
    jobs,
    create,
    fill,
    derive: Some(derive),
    notes: "\
Blocks are 2 MiB. fresh: every 4K of a new dynamic image once, in random order; first: the first 4K
of every block. child: every 4K of a new differencing image over a full parent once, in random order,
and again for the second pass. QEMU opens no differencing image. vhdx-rs works in one thread; its
flush does nothing, so the file is synchronized for it.",
};

/// Every 4K.
const EACH: Order = Once(SMALL);
/// The first 4K of every block.
const FIRST: Order = Once(BLOCK as u64);

fn jobs(size: u64) -> Vec<Job> {
    let blocks = size / u64::from(BLOCK);
    let fresh = (size / SMALL).min(65_536);
    let (places, pieces) = (OVERWRITTEN / SMALL, 16 * (OVERWRITTEN / LARGE));
    let (one, two, some) = (&[1][..], &[1, 2][..], &[1, 2, 4][..]);
    let jobs = [
        Job::each("4K random read", Full.read(Random), 400_000, some),
        Job::each("4K random overwrite", Part.write(Random), 100_000, some),
        Job::each("4K random fresh write", Fresh.write(EACH), fresh, some),
        Job::each("4K first write", Fresh.write(FIRST), blocks, some),
        Job::each("4K child, first pass", Child.write(EACH), places, some),
        Job::each("4K child, second pass", Again.write(EACH), places, some),
        Job::each("4K read of parent", Child.read(Random), 200_000, some),
        Job::each("4K overwrite + flush", Part.write_flush(Random), 400, one),
        Job::each(
            "4K first write + flush",
            Fresh.write_flush(FIRST),
            blocks.min(200),
            one,
        ),
        Job::each("4K child write + flush", Child.write_flush(EACH), 200, one),
        Job::each("1M sequential read", Full.read(Sequential), 2048, some),
        Job::each("1M read of parent", Child.read(Sequential), pieces, some),
        Job::each(
            "1M sequential overwrite",
            Part.write(Sequential),
            pieces,
            one,
        ),
        Job::each(
            "1M sequential fresh",
            Fresh.write(Sequential),
            (size / LARGE).min(256),
            two,
        ),
    ];
    jobs.concat()
}

/// As the builder below makes them.
const OPTIONS: [&str; 2] = ["-o", "subformat=dynamic,block_size=2M"];

fn create(path: &Path, size: u64) -> Outcome {
    qemu::create(path, "vhdx", size, &OPTIONS)
}

fn fill(path: &Path, from: &Path) -> Outcome {
    qemu::convert(from, path, "vhdx", &OPTIONS)
}

/// By the builder of the tests, which no engine has a part in.
fn derive(path: &Path, parent: &Path) -> Outcome {
    let file = FileStorage::open(parent, FileOptions::read_only()).map_err(text)?;
    let image = VhdxImage::open(Arc::new(file), &OpenOptions::read_only()).map_err(text)?;
    let name = parent.file_name().ok_or("a parent has a name")?;
    let locator = ParentLocator::relative(
        image.header().data_write_guid,
        &format!(".\\{}", name.to_string_lossy()),
    );
    let child = VhdxBuilder::new(image.geometry().virtual_size())
        .block_size(BLOCK)
        .physical_sector_size(4096)
        .virtual_disk_id(image.items().virtual_disk_id)
        .differencing(locator)
        .build();
    let file = File::create(path).map_err(text)?;
    child.write_to(&file).map_err(text)
}
