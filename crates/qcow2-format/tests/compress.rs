//! Compressed clusters: other decoders unpack them within QEMU's window, counts of shared clusters
//! are right at every width, and the image is as small as QEMU's.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use blockdev_core::{
    BulkOptions, FileOptions, FileStorage, LoneLayer, MemoryStorage, NoProgress, RawLayer, Storage,
    bulk_copy,
};
use common::{be64, check, index, memory};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use qcow2_format::{CompressionType, CreateOptions, L2Entry, Qcow2Writer};
use testkit::Rng;
use testkit::oracle::QemuImg;

fn write(bytes: &[u8], storage: Arc<dyn Storage>, options: CreateOptions, workers: usize) {
    let writer = Qcow2Writer::create(storage, options).unwrap();
    let raw = RawLayer::open(memory(bytes)).unwrap();
    let mut bulk = BulkOptions::default();
    bulk.workers = NonZeroUsize::new(workers).unwrap();
    bulk_copy(&LoneLayer::new(Box::new(raw)), &writer, &bulk, &NoProgress).unwrap();
    writer.finish().unwrap();
}

fn made(bytes: &[u8], options: &CreateOptions, workers: usize) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::default());
    write(bytes, storage.clone(), options.clone(), workers);
    storage.to_vec()
}

/// A disk with what packs well, a little and not at all, and with zeros.
fn mixed(size: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let len = usize::try_from(rng.below(90_000)).unwrap() + 1;
        let start = bytes.len();
        match rng.below(4) {
            0 => bytes.resize(start + len, 0),
            1 => bytes.extend((0..len).map(|_| rng.below(256).to_le_bytes()[0])),
            2 => bytes.extend((0..len).map(|_| b"etaoin shrdlu"[index(rng.below(13))])),
            // Repeats from farther back than QEMU's window, and from nearer.
            _ => {
                let period = [700, 4000, 5000, 20_000][index(rng.below(4))];
                let word: Vec<u8> = (0..period)
                    .map(|_| rng.below(256).to_le_bytes()[0])
                    .collect();
                bytes.extend(word.iter().cycle().take(len.max(period * 2)));
            }
        }
    }
    bytes.truncate(size);
    bytes
}

/// Every kind of image, thinned out.
fn shapes(size: usize) -> Vec<CreateOptions> {
    let mut shapes = Vec::new();
    for (n, cluster_bits) in [9, 10, 12, 14, 16, 18, 21].into_iter().enumerate() {
        for refcount_order in 0..=6 {
            let mut shape = CreateOptions::new(size as u64);
            shape.compressed = true;
            shape.cluster_bits = cluster_bits;
            shape.refcount_order = refcount_order;
            let odd = (n + refcount_order as usize) % 2 == 1;
            shape.extended_l2 = cluster_bits >= 14 && refcount_order % 3 == 0;
            if odd {
                shape.compression_type = CompressionType::Zstd;
            }
            shapes.push(shape);
        }
        let mut second = CreateOptions::new(size as u64);
        (second.version, second.cluster_bits, second.compressed) = (2, cluster_bits, true);
        shapes.push(second);
    }
    shapes
}

fn save(path: &Path, bytes: &[u8], shape: &CreateOptions) {
    std::fs::write(path, b"").unwrap();
    let file = FileStorage::open(path, FileOptions::read_write()).unwrap();
    write(bytes, Arc::new(file), shape.clone(), 2);
}

#[test]
fn qemu_finds_every_shape_clean_reads_the_same_and_counts_the_same() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (image, raw) = (dir.path().join("disk.qcow2"), dir.path().join("disk.raw"));
    for (seed, shape) in shapes((3 << 20) + 512).into_iter().enumerate() {
        let bytes = mixed((3 << 20) + 512, seed as u64);
        std::fs::write(&raw, &bytes).unwrap();
        save(&image, &bytes, &shape);
        let theirs = qemu.check("qcow2", &image);
        assert_eq!(theirs.code, 0, "{shape:?}: {theirs:?}");
        assert!(
            qemu.same(("qcow2", &image), ("raw", &raw)).unwrap(),
            "{shape:?}"
        );

        let theirs = theirs.report.unwrap();
        let ours = check(common::file(&image)).unwrap();
        assert_eq!(ours.findings, [], "{shape:?}");
        let counted = |key: &str| theirs[key].as_u64().unwrap_or(0);
        assert_eq!(
            ours.allocated_blocks,
            counted("allocated-clusters"),
            "{shape:?}"
        );
        assert_eq!(
            ours.compressed_blocks,
            counted("compressed-clusters"),
            "{shape:?}"
        );
        assert_eq!(
            ours.image_end_offset,
            counted("image-end-offset"),
            "{shape:?}"
        );
        assert!(ours.compressed_blocks > 0, "{shape:?}");

        let told = qemu.info("qcow2", &image).unwrap();
        let data = &told["format-specific"]["data"];
        assert_eq!(told["cluster-size"], 1 << shape.cluster_bits, "{told}");
        assert_eq!(data["refcount-bits"], 1 << shape.refcount_order, "{told}");
        let name = shape.compression_type.as_str();
        assert_eq!(data["compression-type"], name, "{told}");
        if shape.version == 3 {
            assert_eq!(data["extended-l2"], shape.extended_l2, "{told}");
        }
    }
}

/// Unpacks one cluster with decoders that are not the library's, deflate in a window of 4 KiB.
fn unpack(compression: CompressionType, bytes: &[u8], cluster: usize) -> Vec<u8> {
    if compression == CompressionType::Zstd {
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes).unwrap();
        let mut out = vec![0; cluster];
        decoder.read_exact(&mut out).unwrap();
        return out;
    }
    let mut decoder = DecompressorOxide::new();
    // Going round: a distance past its length is an error.
    let mut window = [0; 4096];
    let (mut read, mut at, mut out) = (0, 0, Vec::new());
    loop {
        let (status, consumed, written) =
            decompress(&mut decoder, &bytes[read..], &mut window, at, 0);
        out.extend_from_slice(&window[at..at + written]);
        (read, at) = (read + consumed, (at + written) % window.len());
        match status {
            TINFLStatus::Done => return out,
            TINFLStatus::HasMoreOutput => {}
            other => panic!("{other:?} after {} bytes", out.len()),
        }
    }
}

#[test]
fn other_decoders_unpack_every_cluster_deflate_within_4_kib() {
    for compression in [CompressionType::Zlib, CompressionType::Zstd] {
        for cluster_bits in [9, 12, 16, 21] {
            let size = (6 << 20) + 700 * 512;
            let bytes = mixed(size, cluster_bits.into());
            let mut options = CreateOptions::new(size as u64);
            (options.cluster_bits, options.compressed) = (cluster_bits, true);
            options.compression_type = compression;
            let image = made(&bytes, &options, 3);
            let cluster = 1 << cluster_bits;
            let (per_table, l1) = (cluster / 8, index(be64(&image, 40)));
            let mut seen = 0;
            for (n, expected) in bytes.chunks(cluster).enumerate() {
                let table = index(be64(&image, l1 + n / per_table * 8) & 0x00FF_FFFF_FFFF_FE00);
                if table == 0 {
                    continue;
                }
                let entry = L2Entry(be64(&image, table + n % per_table * 8));
                if entry.is_compressed() {
                    let (at, len) = entry.compressed_range(cluster_bits);
                    let end = index(at + len).min(image.len());
                    let unpacked = unpack(compression, &image[index(at)..end], cluster);
                    assert_eq!(unpacked.len(), cluster);
                    assert!(
                        unpacked.starts_with(expected),
                        "{compression:?} cluster {n}"
                    );
                    assert!(unpacked[expected.len()..].iter().all(|byte| *byte == 0));
                    seen += 1;
                }
            }
            assert!(seen > 0, "{compression:?} {cluster_bits}");
        }
    }
}

#[test]
fn the_same_disk_gives_the_same_bytes_whatever_the_workers() {
    let bytes = mixed(20 << 20, 11);
    for compression in [CompressionType::Zlib, CompressionType::Zstd] {
        for cluster_bits in [12, 16, 21] {
            let mut options = CreateOptions::new(20 << 20);
            (options.cluster_bits, options.compressed) = (cluster_bits, true);
            options.compression_type = compression;
            let one = made(&bytes, &options, 1);
            for workers in [2, 8] {
                assert!(made(&bytes, &options, workers) == one, "{workers} workers");
            }
        }
    }
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is_and_counted_once() {
    let mut rng = Rng::new(3);
    let bytes: Vec<u8> = (0..1 << 20)
        .map(|_| rng.below(256).to_le_bytes()[0])
        .collect();
    for compression in [CompressionType::Zlib, CompressionType::Zstd] {
        let mut options = CreateOptions::new(1 << 20);
        options.compression_type = compression;
        let plain = made(&bytes, &options, 2);
        options.compressed = true;
        assert!(made(&bytes, &options, 2) == plain, "{compression:?}");
    }
}

#[test]
fn with_refcounts_of_one_bit_no_cluster_is_shared() {
    let bytes = mixed(4 << 20, 5);
    let mut options = CreateOptions::new(4 << 20);
    (
        options.refcount_order,
        options.cluster_bits,
        options.compressed,
    ) = (0, 12, true);
    let image = made(&bytes, &options, 2);
    let report = check(memory(&image)).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.compressed_blocks > 100);
    options.refcount_order = 1;
    let shared = made(&bytes, &options, 2);
    assert!(
        shared.len() < image.len(),
        "three share where counts allow it"
    );
    assert_eq!(check(memory(&shared)).unwrap().findings, []);
}

#[test]
fn the_image_is_no_larger_than_two_hundredths_over_qemus() {
    let Some(qemu) = QemuImg::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (raw, theirs) = (dir.path().join("raw"), dir.path().join("theirs"));
    // A program, as disks hold them.
    let mut bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    bytes.truncate(bytes.len().min(12 << 20) / 512 * 512);
    std::fs::write(&raw, &bytes).unwrap();
    let names = HashMap::from([
        (CompressionType::Zlib, "zlib"),
        (CompressionType::Zstd, "zstd"),
    ]);
    for (compression, name) in names {
        for cluster_bits in [12, 16, 18] {
            let options = format!("compression_type={name},cluster_size={}", 1 << cluster_bits);
            let mut args = vec!["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &options];
            args.extend([raw.to_str().unwrap(), theirs.to_str().unwrap()]);
            qemu.run(&args).ok().unwrap();
            let theirs = std::fs::metadata(&theirs).unwrap().len();
            let mut options = CreateOptions::new(bytes.len() as u64);
            (options.cluster_bits, options.compressed) = (cluster_bits, true);
            options.compression_type = compression;
            let ours = made(&bytes, &options, 2).len() as u64;
            // QEMU ends its file with the last byte, not with its cluster.
            let most = theirs * 102 / 100 + (1 << cluster_bits);
            assert!(ours <= most, "{name} {cluster_bits}: {ours} {theirs}");
        }
    }
}
