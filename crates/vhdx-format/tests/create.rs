//! New images: what was put in comes out, as every reader sees it, and the same disk gives the same
//! bytes.

use std::num::NonZeroUsize;
use std::sync::Arc;

use blockdev_core::{
    BlockDevice, BulkOptions, DeviceInfo, ErrorKind, Extent, ExtentKind, FileOptions, FileStorage,
    LoneLayer, MemoryStorage, NoProgress, OpenOptions, RawLayer, Result, Storage, ZeroFlags,
    bulk_copy,
};
use proptest::prelude::*;
use testkit::oracle::QemuImg;
use vhdx_format::{CreateOptions, DiskType, Uuid, VhdxImage, VhdxWriter};

const MIB: u64 = 1 << 20;

fn raw(bytes: Vec<u8>) -> LoneLayer {
    LoneLayer::new(Box::new(
        RawLayer::open(Arc::new(MemoryStorage::from(bytes))).expect("good input"),
    ))
}

fn options(size: u64, block_size: u32) -> CreateOptions {
    let mut options = CreateOptions::new(size);
    options.block_size = block_size;
    options
}

fn write(
    source: &dyn BlockDevice,
    storage: Arc<dyn Storage>,
    options: CreateOptions,
    workers: usize,
) {
    let writer = VhdxWriter::create(storage, options).expect("good input");
    let mut bulk = BulkOptions::default();
    bulk.workers = NonZeroUsize::new(workers).expect("good input");
    bulk_copy(source, &writer, &bulk, &NoProgress).expect("good input");
    writer.finish().expect("good input");
}

fn written(bytes: &[u8], options: CreateOptions, workers: usize) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::default());
    write(&raw(bytes.to_vec()), storage.clone(), options, workers);
    storage
}

fn content(storage: Arc<dyn Storage>) -> Vec<u8> {
    let image =
        VhdxImage::open(storage, &OpenOptions::read_only().with_strict(true)).expect("good input");
    let disk = LoneLayer::new(Box::new(image));
    let mut bytes = vec![0xEE; usize::try_from(disk.size()).expect("good input")];
    disk.read_at(&mut bytes, 0).expect("good input");
    bytes
}

fn checks_clean(storage: Arc<dyn Storage>) {
    let report = vhdx_format::check(storage, &OpenOptions::read_only()).expect("good input");
    assert_eq!(report.findings, []);
}

/// A disk of `size` bytes with some bytes at each of `places`.
fn sparse(size: usize, places: &[usize]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (n, place) in places.iter().enumerate() {
        let len = (size - place).min(3000);
        bytes[*place..place + len].fill(u8::try_from(n % 250 + 1).expect("good input"));
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_checks_clean_and_takes_no_more_blocks_than_hold_something(
        sectors in 0usize..16_000,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        block_shift in 20u32..23,
        large_sectors in any::<bool>(),
        fixed in any::<bool>(),
    ) {
        let sector = if large_sectors { 4096 } else { 512 };
        let size = sectors / (sector / 512) * sector;
        let places: Vec<usize> = if size == 0 { vec![] } else {
            places.iter().map(|place| place.index(size)).collect()
        };
        let bytes = sparse(size, &places);
        let mut options = options(size as u64, 1 << block_shift);
        options.logical_sector_size = u32::try_from(sector).unwrap();
        options.fixed = fixed;
        let storage = written(&bytes, options, 3);
        prop_assert!(content(storage.clone()) == bytes);
        checks_clean(storage.clone());
        let image = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
        let touched = bytes.chunks(1 << block_shift).filter(|b| b.iter().any(|x| *x != 0)).count();
        let blocks = if fixed { size.div_ceil(1 << block_shift) } else { touched };
        prop_assert_eq!(image.bat_entries().count(), blocks);
        let disk_type = if fixed { DiskType::Fixed } else { DiskType::Dynamic };
        prop_assert_eq!(image.disk_type(), disk_type);
    }
}

#[test]
fn the_same_disk_gives_the_same_bytes_whatever_the_workers() {
    let bytes = sparse(24 << 20, &[0, 5 << 20, (9 << 20) - 100, 23 << 20]);
    let mut options = options(24 * MIB, 2 << 20);
    options.virtual_disk_id = Some(Uuid::from_u128(1));
    options.file_write_guid = Some(Uuid::from_u128(2));
    options.data_write_guid = Some(Uuid::from_u128(3));
    let one = written(&bytes, options.clone(), 1).to_vec();
    for workers in [2, 8] {
        assert!(
            written(&bytes, options.clone(), workers).to_vec() == one,
            "{workers} workers"
        );
    }
}

/// A huge disk that holds one byte pattern in a few places and says so.
struct Huge {
    info: DeviceInfo,
    places: Vec<u64>,
}

impl BlockDevice for Huge {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let there = self.places.iter().any(|place| *place == offset / MIB * MIB);
        buf.fill(if there { 9 } else { 0 });
        Ok(())
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        let within = offset % MIB;
        if self.places.contains(&(offset - within)) {
            return Ok(Extent::new(ExtentKind::Data, len.min(MIB - within)));
        }
        let next = self.places.iter().filter(|place| **place > offset).min();
        let run = next.map_or(len, |next| len.min(next - offset));
        Ok(Extent::new(ExtentKind::Zero, run))
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: ZeroFlags) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn disks_above_one_chunk_are_laid_out_for_every_block_size_as_qemu_reads_them() {
    let Some(qemu) = QemuImg::find() else { return };
    let size = 9 << 30;
    let places = vec![0, (4 << 30) - MIB, 4 << 30, (8 << 30) + 5 * MIB, size - MIB];
    let info = DeviceInfo {
        size,
        read_only: true,
        ..raw(vec![]).info().clone()
    };
    let source = Huge {
        info,
        places: places.clone(),
    };
    for shift in 20..=28 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.vhdx");
        std::fs::write(&path, b"").unwrap();
        let file = Arc::new(FileStorage::open(&path, FileOptions::read_write()).unwrap());
        write(&source, file.clone(), options(size, 1 << shift), 2);
        checks_clean(file.clone());
        drop(file);
        let raw = dir.path().join("disk.raw");
        qemu.to_raw("vhdx", &path, &raw).unwrap();
        let raw = FileStorage::open(&raw, FileOptions::read_only()).unwrap();
        for at in places
            .iter()
            .flat_map(|place| [*place, place.saturating_sub(MIB)])
        {
            let (mut seen, mut expected) = (vec![0; 4096], vec![0; 4096]);
            raw.read_at(&mut seen, at).unwrap();
            source.read_at(&mut expected, at).unwrap();
            assert!(seen == expected, "blocks of 2^{shift} at {at:#x}");
        }
    }
}

#[test]
fn nothing_that_was_not_finished_is_a_vhdx_file() {
    let storage = Arc::new(MemoryStorage::default());
    let writer = VhdxWriter::create(storage.clone(), options(8 * MIB, 1 << 20)).unwrap();
    let bytes = sparse(8 << 20, &[0, 3 << 20]);
    bulk_copy(&raw(bytes), &writer, &BulkOptions::default(), &NoProgress).unwrap();
    drop(writer);
    let refused = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotRecognised);
}

#[test]
fn options_that_the_format_does_not_allow_are_refused_before_anything_is_written() {
    let good = options(8 * MIB, 1 << 20);
    let cases: Vec<(&str, CreateOptions)> = vec![
        ("BlockSize", options(8 * MIB, 3 << 20)),
        ("BlockSize", options(8 * MIB, 1 << 29)),
        ("VirtualDiskSize", options(65 << 40, 1 << 20)),
        ("VirtualDiskSize", options(513, 1 << 20)),
        ("LogicalSectorSize", {
            let mut bad = good.clone();
            bad.logical_sector_size = 1024;
            bad
        }),
        ("LogLength", {
            let mut bad = good.clone();
            bad.log_size = 0;
            bad
        }),
        ("LogLength", {
            let mut bad = good.clone();
            bad.log_size = 4096;
            bad
        }),
        ("Creator", {
            let mut bad = good;
            bad.creator = "x".repeat(256);
            bad
        }),
    ];
    for (name, bad) in cases {
        let storage = Arc::new(MemoryStorage::default());
        let refused = VhdxWriter::create(storage.clone(), bad).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(refused.to_string().contains(name), "{name}: {refused}");
        assert!(storage.to_vec().is_empty());
    }
}
