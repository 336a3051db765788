//! What guests do in the scenarios: each story is one way for an image to change.

use std::sync::Arc;

use blockdev_core::{Result, ZeroFlags};
use qcow2_format::CreateOptions;
use testkit::crash::{Control, Driver, Named, Scenario};

use crate::random;
use crate::subject::{
    Qcow2, backed, content, damaged, empty, filled, filled_beside, options, packable,
};

pub(crate) type Story = testkit::crash::Story<Qcow2>;

pub(crate) const UNMAP: ZeroFlags = ZeroFlags {
    may_unmap: true,
    no_fallback: false,
};
pub(crate) const KEEP: ZeroFlags = ZeroFlags {
    may_unmap: false,
    no_fallback: false,
};

/// Every story.
pub(crate) const STORIES: &[Named<Qcow2>] = &[
    ("allocate, 512-byte clusters", || allocate(9)),
    ("allocate, 4 KiB clusters", || allocate(12)),
    ("overwrite in place", overwrite),
    ("many writes for one flush", many_writes),
    ("copy after a snapshot, 512-byte clusters", || {
        copy_after_snapshot(9)
    }),
    ("copy after a snapshot, 4 KiB clusters", || {
        copy_after_snapshot(12)
    }),
    ("refcount blocks grow", refcount_blocks),
    ("the refcount table moves", refcount_table),
    ("discard and use again, 512-byte clusters", || reuse(9)),
    ("discard and use again, 4 KiB clusters", || reuse(12)),
    ("zero and write", zero_and_write),
    ("subclusters", subclusters),
    ("subclusters and snapshots", subclusters_and_snapshots),
    ("lazy refcounts", lazy_refcounts),
    ("snapshot taken", || snapshots(10, 3, 4, 0)),
    ("snapshot applied", || snapshots(10, 3, 4, 1)),
    ("snapshot deleted", || snapshots(10, 3, 4, 2)),
    ("snapshots, lazy", || snapshots(12, 3, 4, 3)),
    ("snapshots, version 2", || snapshots(12, 2, 4, 4)),
    ("snapshots, 2-bit refcounts", || snapshots(9, 3, 1, 1)),
    ("the disk grows past its L1 table", grow),
    ("the disk shrinks and grows", shrink_and_grow),
    ("the disk grows over a longer base", grow_over_base),
    (
        "the disk changes its size under a snapshot",
        size_and_snapshot,
    ),
    ("over a base", || over_base(12, 3)),
    ("over a base, version 2", || over_base(10, 2)),
    ("compressed clusters are replaced", compressed),
    ("packed writes, 4 KiB clusters", || packed(12)),
    ("packed writes, 16 KiB clusters", || packed(14)),
    ("repair of leaks", || repair(false)),
    ("repair of refcounts", || repair(true)),
    ("a data file", || beside(options(96 << 10, 12), false)),
    ("a data file, 512-byte clusters", || {
        beside(options(96 << 10, 9), false)
    }),
    ("a data file, subclusters", || {
        beside(extended(96 << 10), false)
    }),
    ("a data file, lazy refcounts", || {
        let mut shape = options(96 << 10, 12);
        shape.lazy_refcounts = true;
        beside(shape, false)
    }),
    ("a raw data file", || beside(options(96 << 10, 12), true)),
    ("a raw data file, subclusters", || {
        beside(extended(96 << 10), true)
    }),
    ("a data file, over a base", data_file_over_base),
    ("the disk in a data file changes its size", || {
        size_beside(12, false)
    }),
    ("the disk in a raw data file changes its size", || {
        size_beside(12, true)
    }),
    (
        "the disk in a raw data file changes its size, 512-byte clusters",
        || size_beside(9, true),
    ),
    ("random 1 in a data file", || random::beside(1, false)),
    ("random 2 in a data file", || random::beside(2, false)),
    ("random 3 in a data file", || random::beside(3, false)),
    ("random 4 in a raw data file", || random::beside(4, true)),
    ("random 5 in a raw data file", || random::beside(5, true)),
    ("random 6 in a raw data file", || random::beside(6, true)),
];

fn story(
    name: &str,
    subject: Qcow2,
    image: Vec<u8>,
    script: impl Fn(&mut Driver<'_, Qcow2>) -> Result<()> + 'static,
) -> Story {
    (subject, Scenario::new(name, image, script))
}

fn alone(
    name: &str,
    image: Vec<u8>,
    script: impl Fn(&mut Driver<'_, Qcow2>) -> Result<()> + 'static,
) -> Story {
    story(name, Qcow2::default(), image, script)
}

fn allocate(bits: u32) -> Story {
    alone("allocate", empty(options(256 << 10, bits)), |d| {
        d.write(0, 512)?;
        d.write(70_000, 9000)?;
        d.flush()?;
        d.write(512, 4096)?;
        d.write(200_000, 20_000)?;
        d.flush()?;
        d.write(100, 1000)?;
        d.write(69_000, 3000)
    })
}

fn overwrite() -> Story {
    alone(
        "overwrite",
        filled(&content(64), options(64 << 10, 12)),
        |d| {
            d.write(0, 9000)?;
            d.write(30_000, 100)?;
            d.flush()?;
            d.write(512, 4096)?;
            d.write(4096, 4096)?;
            d.write(700, 5000)?;
            d.flush()?;
            d.write(0, 512)
        },
    )
}

fn many_writes() -> Story {
    alone("many", empty(options(128 << 10, 9)), |d| {
        for n in 0..12 {
            d.write(n * 9000 % 120_000, 300 + n * 170)?;
        }
        d.flush()?;
        for n in 0..12 {
            d.write(n * 7000 % 120_000, 900)?;
        }
        d.discard(30_000, 30_000)?;
        d.write(35_000, 3000)?;
        d.flush()
    })
}

fn copy_after_snapshot(bits: u32) -> Story {
    let image = filled(&content(64), options(64 << 10, bits));
    alone("copy", image, |d| {
        d.control(Control::SnapshotCreate(1))?;
        d.write(1000, 9000)?;
        d.flush()?;
        d.write(1500, 700)?;
        d.write(40_000, 512)?;
        d.write_zeroes(20_480, 8192, KEEP)?;
        d.discard(32_768, 4096)?;
        d.flush()?;
        d.write(21_000, 2000)?;
        d.write(33_000, 2000)
    })
}

/// A block counts 64 clusters: 32 KiB of the file.
fn refcount_blocks() -> Story {
    let mut shape = options(1 << 20, 9);
    shape.refcount_order = 6;
    alone("blocks", empty(shape), |d| {
        for at in 0..4 {
            d.write(at * 70_000, 40_000)?;
        }
        d.flush()?;
        d.write(300_000, 70_000)
    })
}

/// A table of one cluster names 64 blocks: 2 MiB of the file. The bulk writer leaves it some room.
fn refcount_table() -> Story {
    let mut shape = options(4 << 20, 9);
    shape.refcount_order = 6;
    let mut disk = content(1920);
    disk.resize(4 << 20, 0);
    let mut image = filled(&disk, shape);
    let place = |bytes: &[u8]| {
        let bytes = bytes.try_into().expect("eight bytes");
        usize::try_from(u64::from_be_bytes(bytes)).expect("in the image")
    };
    let table = place(&image[48..56]);
    let block = place(&image[table..table + 8]);
    let clusters = usize::from(image[59]);
    image[59] = 1;
    // What was cut off is free.
    let first = table / 512;
    image[block + (first + 1) * 8..block + (first + clusters) * 8].fill(0);
    alone("table", image, |d| {
        d.write(3 << 20, 20_000)?;
        d.flush()?;
        d.write((3 << 20) + 40_000, 90_000)?;
        d.write(0, 1000)?;
        d.flush()?;
        d.write((3 << 20) + 200_000, 30_000)?;
        d.discard(1 << 20, 9000)?;
        d.flush()?;
        d.write((3 << 20) + 300_000, 9000)
    })
}

fn reuse(bits: u32) -> Story {
    alone(
        "reuse",
        filled(&content(128), options(128 << 10, bits)),
        |d| {
            d.discard(8192, 16_384)?;
            d.write(70_000, 3000)?;
            d.flush()?;
            d.write(9000, 5000)?;
            d.write_zeroes(100_000, 9000, UNMAP)?;
            d.write_zeroes(40_000, 9000, KEEP)?;
            d.flush()?;
            d.write(99_000, 9000)?;
            d.write(41_000, 500)?;
            d.discard(0, 65_536)?;
            d.flush()?;
            d.flush()?;
            d.write(30_000, 20_000)?;
            d.flush()?;
            d.write(0, 20_000)
        },
    )
}

fn zero_and_write() -> Story {
    alone("zero", filled(&content(64), options(64 << 10, 12)), |d| {
        d.write_zeroes(0, 12_288, KEEP)?;
        d.write_zeroes(20_480, 12_288, UNMAP)?;
        d.flush()?;
        d.write(4096, 700)?;
        d.write(24_576, 700)?;
        d.flush()?;
        d.write_zeroes(3000, 3000, KEEP)?;
        d.write_zeroes(24_000, 9000, UNMAP)?;
        d.write(8192, 4096)?;
        d.flush()?;
        d.write(24_000, 9000)
    })
}

fn extended(size: u64) -> CreateOptions {
    let mut shape = options(size, 14);
    shape.extended_l2 = true;
    shape
}

fn subclusters() -> Story {
    alone("subclusters", empty(extended(512 << 10)), |d| {
        d.write(1000, 3000)?;
        d.flush()?;
        d.write(300, 100)?;
        d.write(9000, 100)?;
        d.write_zeroes(512, 2048, UNMAP)?;
        d.flush()?;
        d.write(0, 70_000)?;
        d.discard(16_384, 16_384)?;
        d.flush()?;
        d.write(20_000, 700)
    })
}

fn subclusters_and_snapshots() -> Story {
    let image = filled(&content(128), extended(128 << 10));
    alone("subclusters", image, |d| {
        d.write_zeroes(2048, 4096, KEEP)?;
        d.control(Control::SnapshotCreate(1))?;
        d.write(700, 600)?;
        d.write_zeroes(40_000, 30_000, UNMAP)?;
        d.flush()?;
        d.write(3000, 700)?;
        d.discard(65_536, 16_384)?;
        d.write(50_000, 700)?;
        d.flush()?;
        d.control(Control::SnapshotApply(1))?;
        d.write(2048, 512)
    })
}

fn lazy_refcounts() -> Story {
    let mut shape = options(128 << 10, 12);
    shape.lazy_refcounts = true;
    alone("lazy", empty(shape), |d| {
        d.write(1000, 9000)?;
        d.flush()?;
        d.write(50_000, 9000)?;
        d.discard(0, 8192)?;
        d.reopen()?;
        d.write(4000, 9000)?;
        d.flush()?;
        d.discard(4096, 8192)?;
        d.write(100_000, 700)
    })
}

/// All that is done with snapshots, but with the weight on another part each time.
fn snapshots(bits: u32, version: u32, order: u32, part: u32) -> Story {
    let mut shape = options(48 << 10, bits);
    shape.version = version;
    shape.refcount_order = order;
    shape.lazy_refcounts = part == 3;
    let image = filled(&content(48), shape);
    alone("snapshots", image, move |d| {
        d.write(1000, 9000)?;
        d.control(Control::SnapshotCreate(1))?;
        if part == 0 {
            d.write(3000, 700)?;
            d.control(Control::SnapshotCreate(2))?;
            return d.write(3500, 700);
        }
        d.write(4000, 9000)?;
        d.discard(16_384, 8192)?;
        d.flush()?;
        if part == 1 {
            d.control(Control::SnapshotApply(1))?;
            d.write(5000, 700)?;
            return d.control(Control::SnapshotApply(1));
        }
        if part == 2 {
            d.control(Control::SnapshotDelete(1))?;
            return d.write(17_000, 9000);
        }
        d.control(Control::SnapshotCreate(2))?;
        d.write(5000, 700)?;
        d.control(Control::SnapshotApply(1))?;
        d.write(30_000, 3000)?;
        d.flush()?;
        d.control(Control::SnapshotDelete(1))?;
        d.write(30_500, 3000)?;
        d.control(Control::SnapshotDelete(2))?;
        d.write(60, 30_000)
    })
}

/// An L1 table of one cluster reaches to 2 MiB.
fn grow() -> Story {
    alone("grow", filled(&content(60), options(60 << 10, 9)), |d| {
        d.write(59_000, 2000)?;
        d.control(Control::Resize(5 << 20))?;
        d.write(4 << 20, 9000)?;
        d.write(61_000, 700)?;
        d.flush()?;
        d.control(Control::Resize(9 << 20))?;
        d.write(8 << 20, 700)
    })
}

fn shrink_and_grow() -> Story {
    alone("size", filled(&content(60), options(60 << 10, 12)), |d| {
        d.write(1000, 9000)?;
        d.control(Control::Resize(300 << 10))?;
        d.write(200_000, 9000)?;
        d.flush()?;
        d.control(Control::Resize((30 << 10) + 512))?;
        d.write(20_000, 9000)?;
        d.control(Control::Resize(70 << 10))?;
        d.write(33_000, 700)
    })
}

fn over(base: Vec<u8>) -> Qcow2 {
    Qcow2 {
        base: Arc::new(base),
        ..Qcow2::default()
    }
}

fn grow_over_base() -> Story {
    let image = backed(empty(options(33 << 10, 12)), 12);
    story("grow over", over(content(200)), image, |d| {
        d.write(700, 300)?;
        d.control(Control::Resize(120 << 10))?;
        d.write(33 << 10, 700)?;
        d.flush()?;
        d.control(Control::Resize(20 << 10))?;
        d.control(Control::Resize(300 << 10))?;
        d.write(200_000, 700)
    })
}

fn size_and_snapshot() -> Story {
    alone("size", filled(&content(40), options(40 << 10, 10)), |d| {
        d.control(Control::SnapshotCreate(1))?;
        d.control(Control::Resize((20 << 10) + 512))?;
        d.write(19_000, 1500)?;
        d.control(Control::SnapshotCreate(2))?;
        d.control(Control::Resize(90 << 10))?;
        d.write(50_000, 700)?;
        d.control(Control::SnapshotApply(1))?;
        d.write(30_000, 700)?;
        d.control(Control::SnapshotApply(2))?;
        d.control(Control::SnapshotDelete(1))
    })
}

fn over_base(bits: u32, version: u32) -> Story {
    let mut shape = options(128 << 10, bits);
    shape.version = version;
    let image = backed(empty(shape), bits);
    story("over", over(content(100)), image, |d| {
        d.write(700, 300)?;
        d.write_zeroes(8192, 9000, UNMAP)?;
        d.discard(40_960, 8192)?;
        d.flush()?;
        d.write(9000, 100)?;
        d.write(42_000, 6000)?;
        d.write(100_000, 9000)?;
        d.flush()?;
        d.discard(0, 65_536)?;
        d.write(4000, 100)
    })
}

/// Several of them share a host cluster.
fn compressed() -> Story {
    let mut shape = options(96 << 10, 12);
    shape.compressed = true;
    alone("compressed", filled(&packable(96), shape), |d| {
        d.write(5000, 700)?;
        d.discard(12_288, 8192)?;
        d.flush()?;
        d.write(0, 4096)?;
        d.write_zeroes(24_576, 8192, UNMAP)?;
        d.control(Control::SnapshotCreate(1))?;
        d.write(40_960, 9000)?;
        d.discard(61_440, 16_384)?;
        d.flush()?;
        d.control(Control::SnapshotDelete(1))?;
        d.write(70_000, 9000)
    })
}

/// Whole clusters are packed as they are written.
fn packed(bits: u32) -> Story {
    let mut shape = options(128 << 10, bits);
    shape.compressed = true;
    let subject = Qcow2 {
        packs: true,
        ..Qcow2::default()
    };
    let mut disk = packable(64);
    disk.resize(128 << 10, 0);
    story("packed", subject, filled(&disk, shape), |d| {
        d.write(0, 49_152)?;
        d.flush()?;
        d.write(16_384, 16_384)?;
        d.write(20_000, 700)?;
        d.write(81_920, 16_384)?;
        d.flush()?;
        d.control(Control::SnapshotCreate(1))?;
        d.write(16_384, 32_768)?;
        d.discard(81_920, 16_384)?;
        d.flush()?;
        d.write(65_536, 49_152)?;
        d.control(Control::SnapshotDelete(1))?;
        d.write(0, 16_384)
    })
}

/// The image is repaired whenever it is opened for writing.
fn repair(corrupt: bool) -> Story {
    let subject = Qcow2 {
        repairs: true,
        ..Qcow2::default()
    };
    let image = damaged(filled(&content(48), options(64 << 10, 10)), corrupt);
    story("repair", subject, image, |d| {
        d.write(3000, 9000)?;
        d.flush()?;
        d.write(50_000, 700)
    })
}

fn story_beside(
    name: &str,
    subject: Qcow2,
    (image, data): (Vec<u8>, Vec<u8>),
    script: impl Fn(&mut Driver<'_, Qcow2>) -> Result<()> + 'static,
) -> Story {
    let (subject, scenario) = story(name, subject, image, script);
    (subject, scenario.beside(data))
}

/// The first half of the disk is stored, the second is not.
fn beside(shape: CreateOptions, raw: bool) -> Story {
    let mut disk = content(48);
    disk.resize(96 << 10, 0);
    let files = filled_beside(&disk, shape, raw);
    story_beside("beside", Qcow2::default(), files, |d| {
        d.write(1000, 9000)?;
        d.write(60_000, 5000)?;
        d.flush()?;
        d.write(1500, 700)?;
        d.write_zeroes(16_384, 16_384, KEEP)?;
        d.write_zeroes(34_000, 9000, UNMAP)?;
        d.write(80_000, 9000)?;
        d.flush()?;
        d.write(17_000, 700)?;
        d.write(36_000, 9000)?;
        d.discard(0, 12_288)?;
        d.write_zeroes(60_000, 3000, UNMAP)?;
        d.flush()?;
        d.discard(61_440, 4096)?;
        d.write(4096, 4096)?;
        d.write(60_500, 700)
    })
}

fn data_file_over_base() -> Story {
    let (image, data) = filled_beside(&vec![0; 96 << 10], options(96 << 10, 12), false);
    let files = (backed(image, 12), data);
    story_beside("beside over", over(content(80)), files, |d| {
        d.write(700, 300)?;
        d.write_zeroes(8192, 9000, UNMAP)?;
        d.flush()?;
        d.write(9000, 100)?;
        d.write(42_000, 6000)?;
        d.discard(40_960, 8192)?;
        d.write_zeroes(0, 4096, KEEP)?;
        d.flush()?;
        d.write(600, 9000)?;
        d.write(84_000, 700)
    })
}

fn size_beside(bits: u32, raw: bool) -> Story {
    let files = filled_beside(&content(60), options(60 << 10, bits), raw);
    story_beside("size beside", Qcow2::default(), files, |d| {
        d.write(1000, 9000)?;
        d.control(Control::Resize(100 << 10))?;
        d.write(90_000, 9000)?;
        d.flush()?;
        d.control(Control::Resize((30 << 10) + 512))?;
        d.write(20_000, 9000)?;
        d.control(Control::Resize(70 << 10))?;
        d.write(33_000, 700)
    })
}
