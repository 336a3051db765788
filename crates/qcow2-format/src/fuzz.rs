//! Bodies of the fuzz targets: any bytes in, no panic, no hang, no memory past the budgets out.
//! The ordinary tests replay the same bodies over damaged images.

use std::sync::Arc;

use blockdev_core::{
    BlockDevice, Extents, Layer, Limits, LoneLayer, MemoryStorage, OpenOptions, Storage,
};

use crate::meta::cluster::Rules;
use crate::meta::extensions::Extensions;
use crate::meta::geometry::Geometry;
use crate::meta::header::Header;
use crate::meta::{references, snapshots};
use crate::ondisk::l1_entry::L1Entry;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};
use crate::ondisk::refcount::refcount;
use crate::{Qcow2Image, inspect};

/// Extents walked and read of one disk; the rest is more of the same.
const EXTENTS: usize = 64;
/// Bytes read of one extent.
const PIECE: usize = 64 << 10;
/// Snapshots opened of one image.
const SNAPSHOTS: usize = 4;

fn options() -> OpenOptions {
    let mut limits = Limits::default();
    limits.metadata_cache_bytes = 1 << 20;
    limits.check_findings = 100;
    OpenOptions::read_only().with_limits(limits)
}

fn memory(data: &[u8]) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::from(data.to_vec()))
}

/// Opens the disk and its snapshots, and reads what can be read.
pub fn open_and_read(data: &[u8]) {
    let Ok(mut image) = Qcow2Image::open(memory(data), &options()) else {
        return;
    };
    if image.header().has_data_file() {
        image
            .attach(blockdev_core::FileRole::Data, memory(data))
            .expect("an image with a data file takes one");
    }
    let snapshots = image.snapshots().unwrap_or_default();
    walk(image);
    for snapshot in snapshots.iter().take(SNAPSHOTS) {
        if let Ok(image) = Qcow2Image::open_snapshot(memory(data), &snapshot.id, &options()) {
            walk(image);
        }
    }
}

fn walk(image: Qcow2Image) {
    let disk = LoneLayer::new(Box::new(image));
    let size = disk.size();
    let mut buffer = vec![0; PIECE];
    for extent in Extents::new(&disk, 0, size).take(EXTENTS) {
        let Ok((start, extent)) = extent else { break };
        assert!(
            extent.len > 0 && start + extent.len <= size,
            "an extent inside the disk"
        );
        let len = buffer
            .len()
            .min(usize::try_from(extent.len).unwrap_or(usize::MAX));
        let _ = disk.read_at(&mut buffer[..len], start);
        let _ = disk.read_at(&mut buffer[..len], start + extent.len - len as u64);
    }
}

/// Checks; an image that opens but does not pass is no failure.
pub fn check(data: &[u8]) {
    if let Ok(report) = crate::check(memory(data), &options()) {
        for finding in &report.findings {
            assert!(!finding.to_string().is_empty());
        }
    }
}

/// The structures, each from the same bytes.
pub fn structures(data: &[u8]) {
    let _ = Header::decode(data);
    let _ = Extensions::decode(data, 0);
    let mut at = 0;
    while let Ok(Some((_, next))) = snapshots::decode(data, at, 0) {
        at = next;
    }
    let _ = inspect::first_cluster(&MemoryStorage::from(data.to_vec()));
    let words = data.chunks_exact(8);
    let words: Vec<u64> = words
        .map(|word| u64::from_be_bytes(word.try_into().expect("eight bytes")))
        .collect();
    for (n, pair) in words.chunks_exact(2).enumerate() {
        let bits = 9 + u32::try_from(n % 13).expect("small");
        let extended = bits >= 14 && n % 2 == 0;
        let rules = Rules {
            geometry: Geometry::new(1 << 40, bits, extended),
            version: 3,
            has_data_file: n % 5 == 0,
        };
        let (entry, subclusters) = (L2Entry(pair[0]), SubclusterBits(pair[1]));
        let cluster = 1u64 << bits;
        let _ = references::l2_table(L1Entry(pair[0]), cluster);
        let _ = references::bitmap_entry(pair[0], cluster);
        let _ = references::l2_entry(&rules, entry, subclusters);
        let _ = rules.part(entry, subclusters, pair[1] % cluster, 0);
        for order in 0..7 {
            let block = &data[n * 16..n * 16 + 16];
            let _ = refcount(block, 128 / (1 << order) - 1, order);
        }
    }
}
