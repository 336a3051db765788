//! What changes an image as a whole: sizes, and the space it takes.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use blockdev_core::{
    Below, DiscardMode, ErrorKind, Holes, Layer, MemoryStorage, NoProgress, Result, Storage,
    ZeroFlags, ZerosBelow,
};
use testkit::Rng;
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::VhdxBuilder;
use vhdx_format::{
    CreateOptions, DiskType, Linkage, OpenOptions, ParentFormat, ParentLink, ParentPaths,
    VhdxImage, VhdxWriter, check,
};

const MIB: usize = 1 << 20;

struct Base<'a>(&'a [u8]);

impl Below for Base<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let from = usize::try_from(offset).unwrap().min(self.0.len());
        let there = (self.0.len() - from).min(buf.len());
        buf[..there].copy_from_slice(&self.0[from..from + there]);
        buf[there..].fill(0);
        Ok(())
    }
}

fn dynamic(size: usize, fixed: bool) -> Arc<MemoryStorage> {
    let file = Arc::new(MemoryStorage::default());
    let mut options = CreateOptions::new(size as u64);
    options.block_size = 1 << 20;
    options.fixed = fixed;
    let writer = VhdxWriter::create(file.clone(), options).unwrap();
    writer.finish().unwrap();
    file
}

fn child(size: usize) -> Arc<MemoryStorage> {
    let size = size as u64;
    let parent = VhdxBuilder::new(size).block_size(1 << 20);
    let child = VhdxBuilder::child_of(&parent, "parent.vhdx").block_size(1 << 20);
    Arc::new(MemoryStorage::from(child.build().to_vec()))
}

fn open(file: &Arc<MemoryStorage>) -> VhdxImage {
    VhdxImage::open(file.clone(), &OpenOptions::read_write()).unwrap()
}

fn is_clean(file: &Arc<MemoryStorage>) {
    let report = check(file.clone(), &OpenOptions::read_only()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

fn reads(image: &VhdxImage, base: &[u8]) -> Vec<u8> {
    let mut seen = vec![0xEE; usize::try_from(image.info().size).unwrap()];
    let mut holes = Holes::new();
    image.read_at(&mut seen, 0, &mut holes).unwrap();
    for hole in holes.iter() {
        Base(base)
            .read_at(hole.slice_of(&mut seen, 0), hole.start())
            .unwrap();
    }
    seen
}

/// Writes, zeros and discards at random; the model does the same.
fn live(image: &VhdxImage, model: &mut [u8], base: &[u8], rng: &mut Rng, steps: usize) {
    let below = Base(base);
    for _ in 0..steps {
        let at = rng.index(model.len());
        let most = if rng.one_in(5) { 3 * MIB } else { 20_000 };
        let len = (1 + rng.index(most)).min(model.len() - at);
        let part = &mut model[at..at + len];
        match rng.below(6) {
            0..=3 => {
                part.fill(rng.below(255).to_le_bytes()[0] + 1);
                image.write_at(part, at as u64, &below).unwrap();
            }
            4 => {
                let flags = ZeroFlags {
                    may_unmap: rng.one_in(2),
                    no_fallback: false,
                };
                image.zero(at as u64, len as u64, flags, &below).unwrap();
                part.fill(0);
            }
            _ => image.flush().unwrap(),
        }
    }
}

#[test]
fn a_disk_of_another_size_keeps_what_it_had_and_gains_zeros() {
    for seed in 0..24 {
        let mut rng = Rng::new(seed);
        let kind = seed % 3;
        let base: Vec<u8> = if kind == 2 {
            (0..6 * MIB)
                .map(|at| (at / 512 % 251 + 1).to_le_bytes()[0])
                .collect()
        } else {
            Vec::new()
        };
        let mut size = 4 * MIB + 512 * rng.index(2000);
        let file = match kind {
            2 => child(size),
            _ => dynamic(size, kind == 1),
        };
        let mut model = vec![0; size];
        let there = base.len().min(size);
        model[..there].copy_from_slice(&base[..there]);
        for _ in 0..6 {
            let mut image = open(&file);
            live(&image, &mut model, &base, &mut rng, 25);
            size = 512 * (1 + rng.index(9 * MIB / 512));
            image.resize(size as u64, base.len() as u64).unwrap();
            model.resize(size, 0);
            assert_eq!(image.info().size, size as u64);
            assert!(reads(&image, &base) == model, "seed {seed}, as it is open");
            live(&image, &mut model, &base, &mut rng, 10);
            drop(image);
            is_clean(&file);
            let image = VhdxImage::open(file.clone(), &OpenOptions::read_only()).unwrap();
            assert!(reads(&image, &base) == model, "seed {seed}, opened again");
        }
    }
}

/// A BAT of 1 MiB has room for some 128 GiB of such blocks.
#[test]
fn a_bat_that_is_too_short_moves() {
    let file = dynamic(3 * MIB, false);
    let mut image = open(&file);
    image.write_at(&[7; 5000], 1000, &ZerosBelow).unwrap();
    image.resize(600 << 30, 0).unwrap();
    image
        .write_at(&[8; 5000], (500 << 30) - 100, &ZerosBelow)
        .unwrap();
    image.flush().unwrap();
    let mut seen = [0; 5000];
    let is_there = |image: &VhdxImage, seen: &mut [u8; 5000]| {
        image.read_at(seen, 1000, &mut Holes::new()).unwrap();
        assert_eq!(*seen, [7; 5000]);
        image
            .read_at(seen, (500 << 30) - 100, &mut Holes::new())
            .unwrap();
        assert_eq!(*seen, [8; 5000]);
    };
    is_there(&image, &mut seen);
    // What lay in the old table's place is used again, and no entry of the log writes there.
    for n in 0..40 {
        image
            .write_at(&[9; 512], (n * 5) << 30, &ZerosBelow)
            .unwrap();
        image.flush().unwrap();
    }
    image
        .read_at(&mut seen, (500 << 30) - 100, &mut Holes::new())
        .unwrap();
    drop(image);
    is_clean(&file);
    let image = VhdxImage::open(file.clone(), &OpenOptions::read_only()).unwrap();
    is_there_again(&image);
    let [first, second] = &image.region_tables().copies;
    assert!(first.is_valid() && second.is_valid());
    assert_eq!(first.entries.len(), second.entries.len());
}

fn is_there_again(image: &VhdxImage) {
    let mut seen = [0; 512];
    for n in 1..40 {
        image
            .read_at(&mut seen, (n * 5) << 30, &mut Holes::new())
            .unwrap();
        assert_eq!(seen, [9; 512], "{n}");
    }
}

#[test]
fn sizes_that_the_format_does_not_allow_are_refused() {
    let file = dynamic(3 * MIB, false);
    let before = file.to_vec();
    let mut image = open(&file);
    for size in [1, 513, (64 << 40) + 512, u64::MAX] {
        let refused = image.resize(size, 0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{size}");
    }
    drop(image);
    assert!(file.to_vec() == before, "a refusal changes nothing");
}

#[test]
fn a_compacted_disk_reads_the_same_and_is_as_short_as_it_can_be() {
    let qemu = QemuImg::find();
    for seed in 0..18 {
        let mut rng = Rng::new(seed);
        let base: Vec<u8> = if seed % 3 == 2 {
            vec![5; 8 * MIB]
        } else {
            Vec::new()
        };
        let size = 12 * MIB;
        let file = match seed % 3 {
            2 => child(size),
            _ => dynamic(size, seed % 3 == 1),
        };
        let mut model = vec![0; size];
        model[..base.len()].copy_from_slice(&base);
        let mut image = open(&file);
        for _ in 0..3 {
            live(&image, &mut model, &base, &mut rng, 40);
            let zeros = rng.index(8) * MIB..(8 + rng.index(4)) * MIB;
            model[zeros.clone()].fill(0);
            let bytes = vec![0; zeros.len()];
            image
                .write_at(&bytes, zeros.start as u64, &Base(&base))
                .unwrap();
            let file_before = file.len().unwrap();
            let identity = image.header().data_write_guid;
            let done = image.compact(&NoProgress).unwrap();
            assert_eq!(image.header().data_write_guid, identity);
            assert_eq!(
                (done.old_length, done.new_length),
                (file_before, file.len().unwrap())
            );
            assert!(reads(&image, &base) == model, "seed {seed}");
            let used = image.bat_entries().filter(|entry| {
                let (_, _, entry) = entry.as_ref().unwrap();
                entry.file_offset() != 0
            });
            let used = used.count() as u64;
            // Of 1 MiB all: header section, log, metadata, BAT, and what is in use.
            if seed % 3 != 2 {
                assert_eq!(file.len().unwrap(), (4 + used) << 20, "seed {seed}");
            }
            let again = image.compact(&NoProgress).unwrap();
            assert_eq!(
                (again.dropped_blocks, again.moved_blocks),
                (0, 0),
                "seed {seed}"
            );
        }
        drop(image);
        is_clean(&file);
        let image = VhdxImage::open(file.clone(), &OpenOptions::read_only()).unwrap();
        assert!(reads(&image, &base) == model, "seed {seed}");
        if let (Some(qemu), true) = (&qemu, base.is_empty()) {
            let folder = tempfile::tempdir().unwrap();
            let (path, flat) = (folder.path().join("image"), folder.path().join("flat"));
            std::fs::write(&path, file.to_vec()).unwrap();
            assert_eq!(qemu.check("vhdx", &path).code, 0, "seed {seed}");
            qemu.to_raw("vhdx", &path, &flat).unwrap();
            assert!(
                std::fs::read(&flat).unwrap() == model,
                "seed {seed}: QEMU reads otherwise"
            );
        }
    }
}

fn link(linkage: vhdx_format::Uuid, path: &str) -> ParentLink {
    let paths = ParentPaths::relative(path).unwrap();
    ParentLink::new(ParentFormat::Vhdx, linkage, paths)
}

#[test]
fn a_parent_that_moved_is_found_by_its_new_name() {
    let file = child(3 * MIB);
    let mut image = open(&file);
    image.write_at(&[7; 5000], 1000, &ZerosBelow).unwrap();
    let linkage = image.parent_locator().unwrap().linkages()[0];
    let identity = image.header().data_write_guid;
    let long = format!("{}/parent.vhdx", "folder/".repeat(900));
    for path in ["../elsewhere/parent.vhdx", &long, "p"] {
        image.relink(&link(linkage, path)).unwrap();
        assert_eq!(image.header().data_write_guid, identity, "children find it");
        let stored = path.replace('/', "\\");
        let names = |image: &VhdxImage| {
            let locator = image.parent_locator().unwrap();
            assert_eq!(locator.linkages(), [linkage]);
            locator.get("relative_path").map(str::to_owned)
        };
        assert_eq!(names(&image).as_ref(), Some(&stored), "as it is open");
        let copy = Arc::new(MemoryStorage::from(file.to_vec()));
        let again = VhdxImage::open(copy, &OpenOptions::read_only().with_strict(true)).unwrap();
        assert_eq!(
            names(&again).as_ref(),
            Some(&stored),
            "as it is in the file"
        );
    }
    drop(image);
    is_clean(&file);
    let image = VhdxImage::open(file, &OpenOptions::read_only()).unwrap();
    assert_eq!(&reads(&image, &[])[1000..6000], [7; 5000]);
}

/// A child that is merged into its parent must know it before and after the parent's identity changes.
#[test]
fn a_child_knows_its_parent_before_and_after_the_parent_changes() {
    let (child, parent) = (child(3 * MIB), dynamic(3 * MIB, false));
    let mut image = open(&parent);
    let (from, to) = (
        image.header().data_write_guid,
        vhdx_format::Uuid::from_u128(9),
    );
    {
        let mut child = open(&child);
        child.set_linkage(Linkage::Becomes { from, to }).unwrap();
    }
    let reads_as_parent = |id| {
        let copy = Arc::new(MemoryStorage::from(child.to_vec()));
        let child = VhdxImage::open(copy, &OpenOptions::read_only().with_strict(true)).unwrap();
        let locator = child.parent_locator().unwrap();
        assert_eq!(
            locator.get("relative_path"),
            Some("parent.vhdx"),
            "where it is stays"
        );
        locator.linkages().contains(&id)
    };
    assert!(reads_as_parent(from) && reads_as_parent(to));
    image.set_next_data_write_guid(to).unwrap();
    assert_eq!(
        image.header().data_write_guid,
        from,
        "nothing was changed yet"
    );
    image.write_at(&[7; 512], 0, &ZerosBelow).unwrap();
    assert_eq!(image.header().data_write_guid, to);
    let late = image.set_next_data_write_guid(from).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidInput);
    open(&child).set_linkage(Linkage::Is(to)).unwrap();
    assert!(!reads_as_parent(from) && reads_as_parent(to));
    is_clean(&child);
    let refused = open(&child).set_linkage(Linkage::Changing).unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::InvalidInput,
        "a VHDX keeps an identity"
    );
}

#[test]
fn only_a_differencing_disk_has_a_parent_to_find() {
    let file = dynamic(3 * MIB, false);
    let before = file.to_vec();
    let mut image = open(&file);
    let refused = image
        .relink(&link(vhdx_format::Uuid::nil(), "p"))
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    drop(image);
    assert!(file.to_vec() == before);
}

/// There and back again: the disk reads the same, and each time it is what it says.
#[test]
fn a_disk_of_another_type_reads_the_same() {
    let qemu = QemuImg::find();
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        let base: Vec<u8> = (0..5 * MIB)
            .map(|at| {
                if at / MIB == 2 {
                    0
                } else {
                    (at / 512 % 251 + 1).to_le_bytes()[0]
                }
            })
            .collect();
        let size = 7 * MIB + 512 * rng.index(2000);
        let file = child(size);
        let mut model = base.clone();
        model.resize(size, 0);
        let mut image = open(&file);
        live(&image, &mut model, &base, &mut rng, 20);
        let identity = image.header().data_write_guid;

        let mut image = {
            image.make_standalone(&Base(&base)).unwrap();
            assert_eq!(image.header().data_write_guid, identity);
            assert_eq!(image.disk_type(), DiskType::Dynamic);
            assert!(image.file_refs().is_empty() && image.parent_locator().is_none());
            image
        };
        assert!(reads(&image, &[]) == model, "seed {seed}");
        live(&image, &mut model, &[], &mut rng, 10);

        image.make_fixed().unwrap();
        assert_eq!(image.disk_type(), DiskType::Fixed);
        let present = image.bat_entries().count() as u64;
        assert_eq!(present, image.geometry().payload_blocks());
        live(&image, &mut model, &[], &mut rng, 10);
        drop(image);
        is_clean(&file);
        if let Some(qemu) = &qemu {
            let folder = tempfile::tempdir().unwrap();
            let (path, flat) = (folder.path().join("image"), folder.path().join("flat"));
            std::fs::write(&path, file.to_vec()).unwrap();
            assert_eq!(qemu.check("vhdx", &path).code, 0, "seed {seed}");
            qemu.to_raw("vhdx", &path, &flat).unwrap();
            assert!(
                std::fs::read(&flat).unwrap() == model,
                "seed {seed}: QEMU reads otherwise"
            );
        }

        let mut image = open(&file);
        image.make_dynamic().unwrap();
        assert_eq!(image.disk_type(), DiskType::Dynamic);
        image.compact(&NoProgress).unwrap();
        let id = vhdx_format::Uuid::from_u128(5);
        image.make_differencing(&link(id, "base.vhdx")).unwrap();
        assert_eq!(image.disk_type(), DiskType::Differencing);
        assert_eq!(image.parent_locator().unwrap().linkages(), [id]);
        // Nothing of the parent shows, until it is asked for.
        assert!(reads(&image, &[9; 8 * MIB]) == model, "seed {seed}");
        live(&image, &mut model, &[9; 8 * MIB], &mut rng, 20);
        let given_up = 3 * MIB + 512..5 * MIB - 1024;
        let len = given_up.len() as u64;
        image
            .discard(given_up.start as u64, len, DiscardMode::ToParent)
            .unwrap();
        model[given_up].fill(9);
        assert!(reads(&image, &[9; 8 * MIB]) == model, "seed {seed}");
        live(&image, &mut model, &[9; 8 * MIB], &mut rng, 20);
        drop(image);
        is_clean(&file);
        let image = VhdxImage::open(file.clone(), &OpenOptions::read_only()).unwrap();
        assert!(reads(&image, &[9; 8 * MIB]) == model, "seed {seed}");
    }
}
