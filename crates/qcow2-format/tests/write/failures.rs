//! What other implementations got wrong when they wrote to qcow2 images: a test for each.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use blockdev_core::{
    BlockDevice, ErrorKind, ExtentKind, FileRole, Layer, MemoryStorage, OpenOptions, Storage,
};
use qcow2_format::inspect::first_cluster;
use qcow2_format::{NewSnapshot, Qcow2Image, Qcow2Writer, Repair, check, repair};
use testkit::counting::{CountingStorage, Fault, FaultyStorage, Op};
use testkit::oracle::{QemuImg, QemuIo};

use crate::model::qemu_agrees;
use crate::stories::{KEEP, UNMAP};
use crate::subject::{self, Disk, backed, content, damaged, empty, filled, options, packable};

const INCOMPATIBLE: usize = 72;
const COMPATIBLE: usize = 80;
const AUTOCLEAR: usize = 88;

type Shared = Arc<MemoryStorage>;

fn open(storage: &Shared) -> Disk {
    over(storage, &[])
}

fn over(storage: &Shared, base: &[u8]) -> Disk {
    subject::open(storage.clone(), true, &Arc::new(base.to_vec())).unwrap()
}

fn shared(image: Vec<u8>) -> Shared {
    Arc::new(MemoryStorage::from(image))
}

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

fn set_word(image: &mut [u8], at: usize, word: u64) {
    image[at..at + 8].copy_from_slice(&word.to_be_bytes());
}

fn reads(disk: &impl BlockDevice, at: u64, right: &[u8]) {
    let mut seen = vec![0xEE; right.len()];
    disk.read_at(&mut seen, at).unwrap();
    let differs = seen
        .chunks(512)
        .zip(right.chunks(512))
        .position(|(a, b)| a != b);
    assert_eq!(differs, None, "sector from {at:#x}");
}

fn clean(storage: &Shared) {
    let report = check(storage.clone(), &OpenOptions::read_only()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    qemu_agrees(&storage.to_vec(), &Arc::default(), "a clean image");
}

/// Place of the L2 entry for the first cluster.
fn first_entry(image: &[u8]) -> usize {
    let l1 = usize::try_from(word(image, 40)).unwrap();
    usize::try_from(word(image, l1) & 0x00ff_ffff_ffff_fe00).unwrap()
}

/// Writers that looked at the refcount of the L2 table alone wrote through into the snapshot, and a
/// discard punched out what it still had.
#[test]
fn a_snapshot_keeps_what_is_written_over_and_discarded() {
    for (bits, version, order) in [(9, 3, 4), (12, 2, 4), (12, 3, 6), (16, 3, 1)] {
        let mut shape = options(256 << 10, bits);
        (shape.version, shape.refcount_order) = (version, order);
        let before = content(256);
        let storage = shared(filled(&before, shape));
        let mut disk = open(&storage);
        disk.layer
            .create_snapshot(&NewSnapshot::now("kept"))
            .unwrap();
        let taken = disk.layer.create_snapshot(&NewSnapshot::now("kept"));
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::InvalidInput);
        disk.write_at(&[1; 70_000], 3000).unwrap();
        disk.discard(100 << 10, 80 << 10).unwrap();
        disk.write_zeroes(200 << 10, 50 << 10, KEEP).unwrap();
        disk.flush().unwrap();
        disk.write_at(&[2; 9000], 110 << 10).unwrap();
        drop(disk);
        clean(&storage);
        let options = OpenOptions::read_only();
        let kept = Qcow2Image::open_snapshot(storage.clone(), "kept", &options).unwrap();
        reads(&blockdev_core::LoneLayer::new(Box::new(kept)), 0, &before);
        let mut disk = open(&storage);
        disk.layer.apply_snapshot("kept").unwrap();
        reads(&disk, 0, &before);
        disk.layer.delete_snapshot("kept").unwrap();
        drop(disk);
        clean(&storage);
    }
}

/// A snapshot has a size of its own. Going back to it after a resize left the disk with the wrong
/// one, or read past the snapshot's L1 table.
#[test]
fn going_back_to_a_snapshot_brings_its_size_back() {
    let before = content(100);
    let storage = shared(filled(&before, options(100 << 10, 9)));
    let mut disk = open(&storage);
    disk.layer
        .create_snapshot(&NewSnapshot::now("small"))
        .unwrap();
    subject::resize(&mut disk, 5 << 20).unwrap();
    disk.write_at(&[1; 9000], 4 << 20).unwrap();
    disk.layer
        .create_snapshot(&NewSnapshot::now("large"))
        .unwrap();
    subject::resize(&mut disk, 10 << 10).unwrap();
    disk.layer.apply_snapshot("small").unwrap();
    assert_eq!(disk.size(), 100 << 10);
    reads(&disk, 0, &before);
    disk.layer.apply_snapshot("large").unwrap();
    assert_eq!(disk.size(), 5 << 20);
    reads(&disk, 4 << 20, &[1; 9000]);
    reads(&disk, 100 << 10, &[0; 90_000]);
    drop(disk);
    clean(&storage);
}

/// What was discarded in an overlay read as the base again, which had been written over long ago.
/// Version 2 has no zero clusters to prevent it.
#[test]
fn a_discard_over_a_base_does_not_bring_its_bytes_back() {
    let base = content(128);
    for version in [2, 3] {
        let mut shape = options(128 << 10, 12);
        shape.version = version;
        let storage = shared(backed(empty(shape), 12));
        let disk = over(&storage, &base);
        disk.write_at(&[1; 40_960], 8192).unwrap();
        disk.flush().unwrap();
        disk.discard(8192, 32_768).unwrap();
        disk.write_zeroes(65_536, 8192, UNMAP).unwrap();
        drop(disk);
        let disk = over(&storage, &base);
        reads(&disk, 65_536, &[0; 8192]);
        let mut seen = [0xEE; 32_768];
        disk.read_at(&mut seen, 8192).unwrap();
        // As it was, or zeros.
        assert!(
            seen == [0; 32_768] || seen == [1; 32_768],
            "version {version}"
        );
        reads(&disk, 40_960, &[1; 8192]);
        reads(&disk, 0, &base[..8192]);
    }
}

/// The bytes past the end of a short base were left as the caller's buffer, or somebody's memory,
/// had them.
#[test]
fn a_write_across_the_end_of_a_shorter_base_carries_zeros() {
    let base = content(10);
    let storage = shared(backed(empty(options(128 << 10, 12)), 12));
    let disk = over(&storage, &base);
    disk.write_at(&[1; 100], 9000).unwrap();
    drop(disk);
    let disk = over(&storage, &base);
    reads(&disk, 9100, &base[9100..]);
    reads(&disk, base.len() as u64, &[0; 20_000]);
}

/// Content that looks like an image is content: it was taken for one, and its "backing file" read.
#[test]
fn a_base_that_looks_like_an_image_is_carried_up_as_it_is() {
    let base = filled(&content(32), options(64 << 10, 12));
    for version in [2, 3] {
        let mut shape = options(128 << 10, 12);
        shape.version = version;
        let storage = shared(backed(empty(shape), 12));
        let disk = over(&storage, &base);
        disk.write_at(&[1; 100], 1000).unwrap();
        drop(disk);
        let disk = over(&storage, &base);
        reads(&disk, 0, &base[..1000]);
        reads(&disk, 1100, &base[1100..]);
    }
}

/// Two compressed clusters share a host cluster. When one was replaced the host cluster was freed,
/// used for something else, and the other unpacked that.
#[test]
fn the_neighbour_of_a_freed_compressed_cluster_stays() {
    let before = packable(256);
    for bits in [12, 16] {
        let mut shape = options(256 << 10, bits);
        shape.compressed = true;
        let storage = shared(filled(&before, shape));
        let disk = open(&storage);
        let cluster = 1 << bits;
        disk.discard(0, cluster).unwrap();
        disk.write_at(&vec![7; 1 << bits], 2 * cluster).unwrap();
        for _ in 0..3 {
            disk.flush().unwrap();
            disk.write_at(&vec![8; 1 << bits], 0).unwrap();
        }
        drop(disk);
        let disk = open(&storage);
        let part = 1 << bits;
        reads(&disk, cluster, &before[part..2 * part]);
        reads(&disk, 3 * cluster, &before[3 * part..]);
        drop(disk);
        clean(&storage);
    }
}

/// An image that was not closed cleanly had its compressed clusters counted once each, and the space
/// of those that share one given away.
#[test]
fn an_unclean_image_with_compressed_clusters_is_counted_right() {
    let before = packable(128);
    let mut shape = options(128 << 10, 12);
    shape.compressed = true;
    shape.lazy_refcounts = true;
    let mut image = damaged(filled(&before, shape), true);
    image[INCOMPATIBLE + 7] |= 1;
    let storage = shared(image);
    let disk = open(&storage);
    disk.write_at(&[7; 4096], 8192).unwrap();
    disk.discard(16_384, 4096).unwrap();
    disk.flush().unwrap();
    disk.write_at(&[8; 20_000], 90_000).unwrap();
    drop(disk);
    let disk = open(&storage);
    reads(&disk, 0, &before[..8192]);
    reads(&disk, 12_288, &before[12_288..16_384]);
    reads(&disk, 20_480, &before[20_480..90_000]);
    drop(disk);
    clean(&storage);
}

/// Refcounts of one bit cannot count a snapshot's reference: it was counted 0.
#[test]
fn the_narrowest_refcounts_refuse_a_snapshot_and_the_widest_take_it() {
    for (order, taken) in [(0, Err(ErrorKind::LimitExceeded)), (6, Ok(()))] {
        let mut shape = options(128 << 10, 9);
        shape.refcount_order = order;
        let before = content(64);
        let storage = shared(filled(&before, shape));
        let mut disk = open(&storage);
        let snapshot = disk.layer.create_snapshot(&NewSnapshot::now("one"));
        assert_eq!(snapshot.map(drop).map_err(|error| error.kind()), taken);
        disk.write_at(&[1; 9000], 70_000).unwrap();
        disk.discard(8192, 8192).unwrap();
        disk.flush().unwrap();
        disk.write_at(&[2; 9000], 90_000).unwrap();
        reads(&disk, 0, &before[..8192]);
        drop(disk);
        clean(&storage);
    }
}

/// Opening an image for writing dropped `lazy_refcounts`, what is not known, and extensions that
/// belong to others.
#[test]
fn what_others_noted_in_the_header_survives() {
    let mut shape = options(128 << 10, 12);
    shape.lazy_refcounts = true;
    let mut image = filled(&content(64), shape);
    // An extension that nobody knows, behind those that are there.
    let mut at = usize::try_from(u32::from_be_bytes(image[100..104].try_into().unwrap())).unwrap();
    while image[at..at + 4] != [0; 4] {
        let len = u32::from_be_bytes(image[at + 4..at + 8].try_into().unwrap());
        at += 8 + usize::try_from(len).unwrap().next_multiple_of(8);
    }
    let unknown = [
        0x5A, 0x5A, 0x12, 0x34, 0, 0, 0, 5, b'h', b'e', b'l', b'l', b'o',
    ];
    image[at..at + unknown.len()].copy_from_slice(&unknown);
    image[AUTOCLEAR + 6] = 0x80;
    image[COMPATIBLE + 5] = 0x40;
    let storage = shared(image.clone());
    drop(open(&storage));
    assert!(
        storage.to_vec() == image,
        "opened and closed, nothing written"
    );
    let mut disk = open(&storage);
    disk.write_at(&[1; 9000], 70_000).unwrap();
    disk.layer
        .create_snapshot(&NewSnapshot::now("one"))
        .unwrap();
    subject::resize(&mut disk, 300 << 10).unwrap();
    disk.layer.delete_snapshot("one").unwrap();
    drop(disk);
    let after = storage.to_vec();
    assert_eq!(after[at..at + unknown.len()], unknown);
    assert_eq!(
        word(&after, AUTOCLEAR),
        0,
        "what is not kept up is withdrawn"
    );
    assert_eq!(word(&after, COMPATIBLE), word(&image, COMPATIBLE));
    assert_eq!(word(&after, INCOMPATIBLE), 0);
    assert!(
        first_cluster(&*storage)
            .unwrap()
            .header
            .has_lazy_refcounts()
    );
    clean(&storage);
}

/// Version 2 may have header extensions; a writer that knew them of version 3 only cut off the
/// backing file's format.
#[test]
fn extensions_of_a_version_2_image_survive() {
    let mut shape = options(128 << 10, 12);
    shape.version = 2;
    let mut image = backed(empty(shape), 12);
    let extension = [0xE2, 0x79, 0x2A, 0xCA, 0, 0, 0, 3, b'r', b'a', b'w'];
    image[72..72 + extension.len()].copy_from_slice(&extension);
    let storage = shared(image);
    let base = content(64);
    let mut disk = over(&storage, &base);
    disk.write_at(&[1; 9000], 1000).unwrap();
    disk.layer
        .create_snapshot(&NewSnapshot::now("one"))
        .unwrap();
    subject::resize(&mut disk, 256 << 10).unwrap();
    drop(disk);
    assert_eq!(storage.to_vec()[72..72 + extension.len()], extension);
    let first = first_cluster(&*storage).unwrap();
    assert_eq!(first.extensions.backing_format.as_deref(), Some("raw"));
    reads(&over(&storage, &base), 10_000, &base[10_000..]);
}

/// An entry that led a guest's write into the header, the L1 table, the refcounts: the image was
/// gone with the next write. It is refused, and the image says that it is corrupt until it is
/// repaired.
#[test]
fn guest_bytes_do_not_reach_the_images_own_structures() {
    let image = filled(&content(64), options(64 << 10, 12));
    let l1 = word(&image, 40);
    let table = word(&image, 48);
    let block = word(&image, usize::try_from(table).unwrap());
    let l2 = first_entry(&image);
    for target in [l1, table, block, l2 as u64] {
        let mut image = image.clone();
        set_word(&mut image, l2, target | 1 << 63);
        let storage = shared(image.clone());
        let disk = open(&storage);
        let refused = disk.write_at(&[1; 512], 0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{target:#x}");
        let later = disk.write_at(&[1; 512], 32_768).unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Poisoned);
        drop(disk);
        let mut marked = image;
        marked[INCOMPATIBLE + 7] |= 2;
        assert!(storage.to_vec() == marked, "the mark, and nothing else");
        let options = OpenOptions::read_write();
        let again = Qcow2Image::open(storage.clone(), &options).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Corrupt);
        drop(Qcow2Image::open(storage.clone(), &OpenOptions::read_only()).unwrap());
        // What overlaps cannot be told apart: the mark stays.
        let _ = repair(storage.clone(), &options, Repair::All);
        let left = first_cluster(&*storage).unwrap().header.is_corrupt();
        let report = check(storage, &OpenOptions::read_only()).unwrap();
        assert_eq!(left, report.corruptions > 0, "{:?}", report.findings);
    }
}

/// What one entry gave up was still read, and written, by way of the other.
#[test]
fn a_table_that_two_entries_call_their_own_is_not_changed() {
    let image = filled(&content(64), options(64 << 10, 9));
    let l1 = usize::try_from(word(&image, 40)).unwrap();
    let entry = word(&image, l1);
    for (first, second, opens) in [(1, 1, false), (1, 0, false), (0, 1, false), (0, 0, true)] {
        let copied = |own: u64| entry & !(1 << 63) | own << 63;
        let mut image = image.clone();
        set_word(&mut image, l1, copied(first));
        set_word(&mut image, l1 + 8, copied(second));
        let storage = shared(image.clone());
        if opens {
            // It is copied first: the other entry has the old one.
            let disk = open(&storage);
            disk.discard(0, 512).unwrap();
            disk.flush().unwrap();
            let after = storage.to_vec();
            let table = |at: usize| word(&after, at) & !(1 << 63);
            assert_ne!(table(l1), entry & !(1 << 63));
            assert_eq!(table(l1 + 8), entry & !(1 << 63));
        } else {
            let refused = Qcow2Image::open(storage.clone(), &OpenOptions::read_write());
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
            assert!(
                storage.to_vec() == image,
                "refused before anything was changed"
            );
        }
    }
}

/// Refcounts that say that a table is free made the next cluster be allocated over it.
#[test]
fn structures_are_not_allocated_over_whatever_refcounts_say() {
    let image = filled(&content(16), options(64 << 10, 12));
    let block = usize::try_from(word(&image, usize::try_from(word(&image, 48)).unwrap())).unwrap();
    let l2 = first_entry(&image);
    for place in [0, usize::try_from(word(&image, 40)).unwrap(), block, l2] {
        let mut image = image.clone();
        let counted = block + place / 4096 * 2;
        image[counted..counted + 2].fill(0);
        let storage = shared(image.clone());
        let disk = open(&storage);
        for at in (16 << 10..64 << 10).step_by(4096) {
            if let Err(error) = disk.write_at(&[1; 4096], at) {
                let told = [ErrorKind::Corrupt, ErrorKind::Poisoned];
                assert!(told.contains(&error.kind()), "{error}");
            }
        }
        let _ = disk.flush();
        drop(disk);
        let after = storage.to_vec();
        let end = place + 4096;
        let (mut was, mut is) = (image[place..end].to_vec(), after[place..end].to_vec());
        if place == 0 {
            // The corrupt bit.
            (was[INCOMPATIBLE + 7], is[INCOMPATIBLE + 7]) = (0, 0);
        }
        if place != block && place != l2 {
            assert!(was == is, "the structure at {place:#x} was written over");
        }
        reads_only(&storage, &content(16));
    }
}

fn reads_only(storage: &Shared, right: &[u8]) {
    let disk = subject::open(storage.clone(), false, &Arc::default()).unwrap();
    reads(&disk, 0, right);
}

/// A raw data file kept its length when the disk changed its own: raw readers saw another disk, and
/// after shrinking and growing old content where zeros had to be.
#[test]
fn a_raw_data_file_has_the_size_of_its_disk() {
    let (Some(img), Some(io)) = (QemuImg::find(), QemuIo::find()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("image"), folder.path().join("data"));
    let options = format!("data_file={},data_file_raw=on", data.display());
    img.create("qcow2", &file, 1 << 20, &options).unwrap();
    io.run("qcow2", &file, &["write -q -P 1 0 1M"]).unwrap();
    let storage = shared(std::fs::read(&file).unwrap());
    let raw = shared(std::fs::read(&data).unwrap());
    for size in [300 << 10, 2 << 20, 512 << 10, 513 << 10] {
        let mut disk = open(&storage);
        disk.layer.attach(FileRole::Data, raw.clone()).unwrap();
        subject::resize(&mut disk, size).unwrap();
        assert_eq!(raw.len().unwrap(), size);
        reads(&disk, 0, &raw.to_vec());
        let kept = usize::try_from(size.min(300 << 10)).unwrap();
        let mut right = vec![1; kept];
        right.resize(usize::try_from(size).unwrap(), 0);
        reads(&disk, 0, &right);
    }
    std::fs::write(&file, storage.to_vec()).unwrap();
    std::fs::write(&data, raw.to_vec()).unwrap();
    assert_eq!(img.check("qcow2", &file).code, 0);
    assert!(img.same(("qcow2", &file), ("raw", &data)).unwrap());
}

/// A raw data file that grew had no places for what was new: a write put its bytes there before any
/// entry said so, and a crash between the two left raw readers with bytes that the disk did not have.
#[test]
fn what_a_raw_data_file_grows_by_has_its_places() {
    for (bits, extended) in [(9, false), (12, false), (14, true)] {
        let mut shape = options(60 << 10, bits);
        shape.extended_l2 = extended;
        let (image, data) = subject::filled_beside(&content(60), shape, true);
        let mut disk = open(&shared(image));
        disk.layer.attach(FileRole::Data, shared(data)).unwrap();
        for size in [5 << 20, 40 << 10, 300 << 10] {
            subject::resize(&mut disk, size).unwrap();
            let mut at = 0;
            while at < size {
                let run = disk.block_status(at, size - at).unwrap();
                assert_eq!(
                    run.kind,
                    ExtentKind::Data,
                    "{bits} bits: {at:#x} of {size:#x}"
                );
                assert_eq!(run.host.map(|host| host.offset), Some(at));
                at += run.len;
            }
        }
    }
}

/// Entries were made stable while the bytes that they speak of, in another file, were not: after a
/// power cut the guest read what had been there before.
#[test]
fn entries_wait_for_the_bytes_in_a_data_file() {
    let Some(img) = QemuImg::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("image"), folder.path().join("data"));
    let options = format!("data_file={}", data.display());
    img.create("qcow2", &file, 1 << 20, &options).unwrap();
    let storage = shared(std::fs::read(&file).unwrap());
    let faulty = FaultyStorage::new(shared(vec![7; 1 << 20]));
    let mut disk = open(&storage);
    disk.layer.attach(FileRole::Data, faulty.clone()).unwrap();
    disk.write_at(&[1; 65_536], 0).unwrap();
    faulty.fail(Op::SyncData, 1, Fault::Io);
    assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::Io);
    drop(disk);
    // The image as it is, over the data file as it was.
    let mut disk = open(&storage);
    disk.layer
        .attach(FileRole::Data, shared(vec![7; 1 << 20]))
        .unwrap();
    reads(&disk, 0, &[0; 65_536]);
}

/// Zeroing a range of which the first subcluster read as zeros already was taken to be done, where
/// guest bytes lie in a data file: the other subclusters kept their content.
#[test]
fn zeros_over_subclusters_in_a_data_file_are_zeros_everywhere() {
    let Some(img) = QemuImg::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("image"), folder.path().join("data"));
    let options = format!("extended_l2=on,data_file={}", data.display());
    img.create("qcow2", &file, 1 << 20, &options).unwrap();
    let storage = shared(std::fs::read(&file).unwrap());
    let mut disk = open(&storage);
    disk.layer
        .attach(FileRole::Data, shared(Vec::new()))
        .unwrap();
    for flags in [UNMAP, KEEP] {
        disk.write_at(&[1; 4096], 8192).unwrap();
        disk.write_zeroes(0, 65_536, flags).unwrap();
        reads(&disk, 0, &[0; 65_536]);
    }
}

/// A dirty bitmap that was not kept up while others wrote makes the next incremental backup lose
/// what they wrote. QEMU must see that it cannot be believed.
#[test]
fn a_bitmap_that_was_not_kept_up_is_not_believed() {
    let Some(img) = QemuImg::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image");
    img.create("qcow2", &file, 1 << 20, "").unwrap();
    for args in [&["--add"][..], &["--add", "--disable"]] {
        let name = format!("bitmap-{}", args.len());
        let path = file.to_str().unwrap();
        let all: Vec<&str> = ["bitmap"]
            .iter()
            .chain(args)
            .chain(&[path, &name])
            .copied()
            .collect();
        img.run(&all).ok().unwrap();
    }
    let flags = |file: &std::path::Path| {
        let info = img.info("qcow2", file).unwrap();
        let bitmaps = info["format-specific"]["data"]["bitmaps"]
            .as_array()
            .unwrap()
            .clone();
        bitmaps
            .iter()
            .map(|bitmap| bitmap["flags"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(flags(&file), [r#"["auto"]"#, "[]"]);
    let storage = shared(std::fs::read(&file).unwrap());
    let disk = open(&storage);
    disk.write_at(&[1; 512], 4096).unwrap();
    // Already before it is flushed, in case that never comes.
    std::fs::write(&file, storage.to_vec()).unwrap();
    assert_eq!(flags(&file), [r#"["in-use","auto"]"#, "[]"]);
    drop(disk);
    std::fs::write(&file, storage.to_vec()).unwrap();
    assert_eq!(flags(&file), [r#"["in-use","auto"]"#, "[]"]);
    assert_eq!(img.check("qcow2", &file).code, 0);
}

/// The header's cluster counted 0 is the next one to be allocated, to a guest.
#[test]
fn an_image_never_grows_into_its_header() {
    let storage = shared(empty(options(64 << 10, 9)));
    let disk = open(&storage);
    for n in 0..40u8 {
        let at = u64::from(n) * 997 % 60_000;
        disk.write_at(&vec![n + 1; 600], at).unwrap();
        disk.discard(at / 512 * 512, 512).unwrap();
        if n % 5 == 0 {
            disk.flush().unwrap();
        }
        assert_eq!(storage.to_vec()[..4], *b"QFI\xfb");
    }
    drop(disk);
    clean(&storage);
}

/// Somebody's flush failed while somebody else had a cluster in hand, which was then never let go of:
/// whoever wanted it waited for ever.
#[test]
fn a_failed_sync_leaves_nobody_waiting() {
    for round in 0..60 {
        let image = empty(options(8 << 20, 12));
        let faulty = FaultyStorage::new(Arc::new(MemoryStorage::from(image)));
        let disk = subject::open(faulty.clone(), true, &Arc::default()).unwrap();
        let (done, all_done) = mpsc::channel();
        let disk = Arc::new(disk);
        for guest in 0..4u64 {
            let (disk, done) = (Arc::clone(&disk), done.clone());
            thread::spawn(move || {
                let mut clusters = (0..2048u64).cycle();
                let write = |n: u64| disk.write_at(&[1; 512], n * 4096 + guest * 512);
                while clusters.next().is_some_and(|n| write(n).is_ok()) {}
                done.send(()).unwrap();
            });
        }
        faulty.fail(Op::SyncData, 1 + round % 4, Fault::Io);
        while disk.flush().is_ok() {}
        for _ in 0..4 {
            let waited = all_done.recv_timeout(Duration::from_secs(20));
            assert!(waited.is_ok(), "round {round}: a guest waits");
        }
    }
}

/// The entries of a whole disk that was made zeros, or discarded, were all kept in memory until the
/// last was changed.
/// The host failed once when the refcount of what had been given up was looked up. The image was
/// marked corrupt for it where that had been packed, and space leaked where it had been discarded.
#[test]
fn a_read_that_fails_while_space_is_freed_neither_condemns_nor_leaks() {
    for compressed in [true, false] {
        let mut options = options(1 << 20, 16);
        options.compressed = compressed;
        let storage = shared(filled(&packable(1024), options));
        let host = FaultyStorage::new(storage.clone());
        let disk = subject::open(host.clone(), true, &Arc::default()).unwrap();
        for at in [0, 5 << 16] {
            disk.write_zeroes(at, 1 << 16, UNMAP).unwrap();
        }
        host.fail_from(Op::Read, 1, Fault::Io);
        assert_eq!(disk.flush().unwrap_err().kind(), ErrorKind::Io);
        assert!(host.hit());
        host.heal();
        disk.flush().unwrap();
        disk.write_at(&[7; 512], 3 << 16).unwrap();
        drop(disk);
        assert_eq!(word(&storage.to_vec(), INCOMPATIBLE), 0);
        clean(&storage);
    }
}

#[test]
fn zeroing_a_huge_disk_does_not_gather_its_tables_in_memory() {
    let storage = Arc::new(MemoryStorage::default());
    let writer = Qcow2Writer::create(storage.clone(), options(16 << 40, 21)).unwrap();
    writer.finish().unwrap();
    let image = backed(storage.to_vec(), 21);
    let counting = CountingStorage::new(Arc::new(MemoryStorage::from(image)));
    let disk = subject::open(counting.clone(), true, &Arc::default()).unwrap();
    disk.write_zeroes(0, 16 << 40, UNMAP).unwrap();
    // Each entry has eight bytes, and no more than 16 MiB of them wait to be written.
    let flushes = ((16u64 << 40) >> 21) * 8 / (16 << 20);
    let syncs = counting.count(Op::SyncData) as u64;
    assert!(syncs >= 2 * flushes, "{syncs} syncs");
}
