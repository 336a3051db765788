//! Random life against a flat disk, and the real tools' view of what came of it.

use std::sync::Arc;

use blockdev_core::{BlockDevice, DiscardMode, Layer, MemoryStorage, OpenOptions};
use testkit::conformance;
use testkit::crash::CrashSubject;
use testkit::model::{Compare, Ops, Shape, Weights, run_model};
use testkit::oracle::{Libvhdi, QemuImg, same_disk};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};
use vhdx_format::check;

use crate::random::{base_of, empty_child, shape};
use crate::subject::{Disk, MIB, content, disk_of, open};

/// What our own reader finds in `image`.
fn ours(image: &[u8], base: &Arc<Vec<u8>>) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::from(image.to_vec()));
    let disk = open(storage, false, base).unwrap();
    let mut seen = vec![0xEE; usize::try_from(disk.size()).unwrap()];
    disk.read_at(&mut seen, 0).unwrap();
    seen
}

/// QEMU finds no fault in the image, and reads from it what we read. It knows no parents, and no
/// sectors of 4096 bytes.
pub(crate) fn qemu_agrees(image: &[u8], what: &str) {
    let Some(qemu) = QemuImg::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, flat) = (folder.path().join("image"), folder.path().join("flat"));
    std::fs::write(&file, image).unwrap();
    let checked = qemu.check("vhdx", &file);
    assert_eq!(checked.code, 0, "{what}: {checked:?}");
    qemu.to_raw("vhdx", &file, &flat).unwrap();
    same_disk(
        &std::fs::read(&flat).unwrap(),
        &ours(image, &Arc::default()),
        what,
    );
}

#[test]
fn a_guest_of_any_shape_of_image_reads_what_it_wrote() {
    for seed in 0..40 {
        let Shape {
            name,
            image,
            content,
            subject,
            abilities,
            by_qemu,
            ..
        } = shape(seed, false);
        let what = format!("seed {seed}, {name}");
        let size = content.len() as u64;
        let weights = Weights {
            flush: 5,
            ..Weights::default()
        };
        let ops = Ops::new(seed, size, abilities, weights).take(250);
        let compare = Compare {
            every: 25,
            check: true,
        };
        println!("{what}");
        let image = run_model(&subject, &image, content, seed, ops, compare);
        let storage = Arc::new(MemoryStorage::from(image.clone()));
        let report = subject.check(&[storage]).unwrap();
        assert!(report.is_clean(), "{what}: {:?}", report.findings);
        if by_qemu {
            qemu_agrees(&image, &what);
        }
    }
}

fn conforms(builder: &VhdxBuilder, base: &Arc<Vec<u8>>, by_qemu: bool) {
    let geometry = builder.geometry();
    let what = format!("{geometry:?}");
    let storage = Arc::new(MemoryStorage::from(builder.build().to_vec()));
    let disk = open(storage.clone(), true, base).unwrap();
    let mut content = base.to_vec();
    content.resize(usize::try_from(geometry.virtual_size).unwrap(), 0);
    conformance::writable(&disk, &mut content);
    drop(disk);
    let disk = open(storage.clone(), false, base).unwrap();
    conformance::readable(&disk, &content[..]);
    conformance::refuses_changes(&disk);
    drop(disk);
    if by_qemu {
        qemu_agrees(&storage.to_vec(), &what);
    }
}

#[test]
fn images_are_writable_disks() {
    let none = Arc::default();
    for (block_size, sector) in [(1 << 20, 512), (2 << 20, 4096), (8 << 20, 512)] {
        let disk = VhdxBuilder::new(5 * MIB + 512 * 8)
            .block_size(block_size)
            .logical_sector_size(sector);
        conforms(&disk, &none, sector == 512);
        conforms(&disk.fixed(), &none, sector == 512);
    }
}

#[test]
fn children_are_writable_disks() {
    for (block_size, sector) in [(1 << 20, 512), (2 << 20, 4096), (8 << 20, 512)] {
        let size = 5 * MIB + 4096;
        let disk = empty_child(size, block_size, sector);
        conforms(&disk, &base_of(size), false);
    }
}

/// Guests of children whose parent is a file that libvhdi reads as well. It reads ZERO blocks of a child
/// from the parent, so the guest zeroes only by writing, and discards nothing whole.
#[test]
fn libvhdi_reads_the_children_that_were_written_to() {
    let Some(vhdi) = Libvhdi::find() else { return };
    for (seed, sector) in [(1, 512), (2, 512), (3, 512), (4, 4096)] {
        let parent = (0..6).fold(
            VhdxBuilder::new(6 * MIB).logical_sector_size(sector),
            |parent, block| parent.block(block, BlockContent::full(BlockData::Pattern(block))),
        );
        let base = testkit::vhdx_builder::chain_disk(&[&parent]);
        let child = VhdxBuilder::child_of(&parent, "parent.vhdx");
        let storage = Arc::new(MemoryStorage::from(child.build().to_vec()));
        let base = Arc::new(base);
        let disk = open(storage.clone(), true, &base).unwrap();
        let right = wild_writes(&disk, seed, base.to_vec());
        drop(disk);
        let folder = tempfile::tempdir().unwrap();
        let (above, below) = (
            folder.path().join("child.vhdx"),
            folder.path().join("parent.vhdx"),
        );
        std::fs::write(&above, storage.to_vec()).unwrap();
        parent.build().save(&below).unwrap();
        let flat = folder.path().join("flat");
        vhdi.dump(&[&above, &below], &flat).unwrap();
        same_disk(&std::fs::read(&flat).unwrap(), &right, "libvhdi");
        same_disk(&ours(&storage.to_vec(), &base), &right, "ours");
    }
}

/// Writes of every length all over the disk, some of them of zeros; returns what it then reads.
fn wild_writes(disk: &Disk, seed: u64, mut model: Vec<u8>) -> Vec<u8> {
    let mut rng = testkit::Rng::new(seed);
    for step in 0..300u32 {
        let len = match rng.below(8) {
            0 => 1 << 20,
            1 => 1 + rng.index(300_000),
            2..=4 => 512 * (1 + rng.index(30)),
            _ => 1 + rng.index(5000),
        };
        let at = rng.index(model.len() - len);
        let at = if rng.one_in(2) { at / 512 * 512 } else { at };
        let bytes = testkit::stamp::stamped(at as u64, len, step);
        disk.write_at(&bytes, at as u64).unwrap();
        model[at..at + len].copy_from_slice(&bytes);
        if rng.one_in(10) {
            disk.flush().unwrap();
        }
    }
    model
}

/// Whole sectors show the parent again, parts of them stay what they are, and what is written over them
/// rules again.
#[test]
fn what_is_given_back_to_the_parent_shows_it_again() {
    for (seed, sector) in [(1, 512), (2, 512), (3, 4096), (4, 4096)] {
        let full = |n| BlockContent::full(BlockData::Pattern(n));
        let size = 5 * MIB + 4096;
        let image = empty_child(size, 1 << 20, sector)
            .block(0, full(1))
            .block(1, BlockContent::Zero)
            .block(2, BlockContent::partial(BlockData::Pattern(2), 9..200))
            .stale_bitmap(0, 0xFF)
            .stale_bitmap(1, 0xFF)
            .block(4, full(4));
        let base = base_of(4 * MIB);
        let storage = Arc::new(MemoryStorage::from(image.build().to_vec()));
        let mut model = disk_of(&image, &base).to_vec();
        let mut below = base.to_vec();
        below.resize(model.len(), 0);
        let mut rng = testkit::Rng::new(seed);
        let mut disk = open(storage.clone(), true, &base).unwrap();
        for step in 0..300u32 {
            let len = match rng.below(4) {
                0 => 1 << 20,
                1 => 1 + rng.index(600_000),
                _ => 1 + rng.index(20_000),
            };
            let at = rng.index(model.len() - len);
            let at = if rng.one_in(2) { at >> 20 << 20 } else { at };
            match rng.below(8) {
                0..=2 => {
                    let unit = usize::try_from(sector).unwrap();
                    let (from, to) = (at.next_multiple_of(unit), (at + len) / unit * unit);
                    let (offset, len) = (at as u64, len as u64);
                    let done = disk.layer.discard(offset, len, DiscardMode::ToParent);
                    done.unwrap();
                    if from < to {
                        model[from..to].copy_from_slice(&below[from..to]);
                    }
                }
                3 => disk.flush().unwrap(),
                4 if rng.one_in(4) => {
                    drop(disk);
                    disk = open(storage.clone(), true, &base).unwrap();
                }
                _ => {
                    let bytes = testkit::stamp::stamped(at as u64, len, step);
                    disk.write_at(&bytes, at as u64).unwrap();
                    model[at..at + len].copy_from_slice(&bytes);
                }
            }
            if step % 20 == 0 {
                let mut seen = vec![0xEE; model.len()];
                disk.read_at(&mut seen, 0).unwrap();
                same_disk(&seen, &model, &format!("seed {seed}, step {step}"));
            }
        }
        drop(disk);
        same_disk(&ours(&storage.to_vec(), &base), &model, "after a close");
        let report = check(storage, &OpenOptions::read_only()).unwrap();
        assert!(report.is_clean(), "seed {seed}: {:?}", report.findings);
    }
}

/// A parent shorter than its child reads as zeros past its end, also where a write to a part of a sector
/// takes the rest from it.
#[test]
fn a_short_parent_ends_in_zeros_under_writes_too() {
    let base = Arc::new(content(1024 + 1));
    let disk = empty_child(4 * MIB, 1 << 20, 4096);
    let storage = Arc::new(MemoryStorage::from(disk.build().to_vec()));
    let disk = open(storage.clone(), true, &base).unwrap();
    let mut right = base.to_vec();
    right.resize(4 << 20, 0);
    for at in [(1 << 20) + 100, (1 << 20) + 1000, (1 << 20) + 9000, 3 << 20] {
        disk.write_at(&[7; 100], at as u64).unwrap();
        right[at..at + 100].fill(7);
    }
    drop(disk);
    same_disk(
        &ours(&storage.to_vec(), &base),
        &right,
        "over a short parent",
    );
}
