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
use crate::ondisk::header::MAGIC;
use crate::ondisk::l1_entry::L1Entry;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};
use crate::ondisk::refcount::refcount;
use crate::{Qcow2Image, inspect};

/// Extents walked and read of one disk; the rest is more of the same.
const EXTENTS: usize = 64;
/// Bytes read of one extent.
const PIECE: usize = 64 << 10;
/// Changes made to one image.
const WRITES: usize = 40;
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
    let _ = image.bitmaps();
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

/// Opens the disk for writing, changes it in every way there is, and repairs what is left. Nothing
/// that is asked of a damaged image need succeed.
pub fn write(data: &[u8]) {
    let storage: Arc<dyn Storage> = Arc::new(Bounded(MemoryStorage::from(data.to_vec())));
    let options = OpenOptions::read_write().with_limits(options().limits);
    if let Ok(mut image) = Qcow2Image::open(Arc::clone(&storage), &options) {
        if image.header().has_data_file() {
            let file = Arc::new(Bounded(MemoryStorage::default()));
            image
                .attach(blockdev_core::FileRole::Data, file)
                .expect("an image with a data file takes one");
        }
        let picks = data.chunks_exact(8).rev().take(WRITES).enumerate();
        for (n, pick) in picks {
            let pick = u64::from_be_bytes(pick.try_into().expect("eight bytes"));
            let _ = change(&mut image, n, pick);
        }
        let _ = image.flush();
    }
    let _ = crate::repair(Arc::clone(&storage), &options, crate::Repair::All);
    let amendment = crate::Amendment {
        refcount_order: Some(u32::from(data.first().copied().unwrap_or(0) % 7)),
        ..crate::Amendment::default()
    };
    let _ = crate::amend(storage, &options, &amendment);
}

/// One change of an image, chosen by `pick`.
fn change(image: &mut Qcow2Image, n: usize, pick: u64) -> blockdev_core::Result<()> {
    let size = image.geometry().size();
    let offset = (pick >> 16) % size.max(1);
    let len = (pick % 100_000 + 1).min(size - offset);
    let bytes = usize::try_from(len).expect("small");
    let flags = blockdev_core::ZeroFlags {
        may_unmap: pick & 1 != 0,
        no_fallback: false,
    };
    let below = &blockdev_core::ZerosBelow;
    match n % 9 {
        0..=2 => image.write_at(&vec![7; bytes], offset, below),
        3 => image.zero(offset, len, flags, below),
        4 => image.discard(offset, len, blockdev_core::DiscardMode::Best),
        5 => image.flush(),
        6 => {
            let cluster = image.geometry().cluster_size();
            let whole = usize::try_from(cluster).expect("at most 2 MiB");
            image.write_compressed(&vec![9; whole], offset / cluster * cluster)
        }
        7 => image.resize(pick % (1 << 24) * 512, below, 0),
        _ => {
            let name = format!("{}", n / 9 % 2);
            let mut new = crate::NewSnapshot::now(&name);
            new.date_sec = 0;
            match n / 9 % 3 {
                0 => image.create_snapshot(&new).map(drop),
                1 => image.apply_snapshot(&name),
                _ => image.delete_snapshot(&name),
            }
        }
    }
}

/// A file of a host that has little room.
#[derive(Debug)]
struct Bounded(MemoryStorage);

/// Bytes of the largest file.
const ROOM: u64 = 32 << 20;

impl Storage for Bounded {
    fn len(&self) -> blockdev_core::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> blockdev_core::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> blockdev_core::Result<()> {
        if offset.saturating_add(buf.len() as u64) > ROOM {
            return Err(blockdev_core::ErrorKind::NoSpace.into());
        }
        self.0.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> blockdev_core::Result<()> {
        if len > ROOM {
            return Err(blockdev_core::ErrorKind::NoSpace.into());
        }
        self.0.set_len(len)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> blockdev_core::Result<()> {
        self.0.punch_hole(offset, len)
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

/// The four bodies for single structures, each from the same bytes.
pub fn structures(data: &[u8]) {
    header(data);
    entries(data);
    refcounts(data);
    snapshot_table(data);
}

/// The header and what follows it in the first cluster.
pub fn header(data: &[u8]) {
    let _ = Header::decode(data);
    let _ = Extensions::decode(data, 0);
    let _ = inspect::first_cluster(&*memory(data));
    if let Ok(image) = Qcow2Image::open(memory(data), &options()) {
        assert!(u64::from(image.header().l1_size) >= image.geometry().l1_entries());
    }
}

/// An L1 table, and L2 tables behind it: the tables of an image that is sound otherwise.
pub fn entries(data: &[u8]) {
    let frame = Frame::of(data);
    let image = frame.around(data, L1_CLUSTER);
    open_and_read(&image);
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
    }
}

/// A refcount table and blocks behind it, in a check of an image that is sound otherwise.
pub fn refcounts(data: &[u8]) {
    check(&Frame::of(data).around(data, REFCOUNT_CLUSTER));
    for block in data.chunks_exact(16) {
        for order in 0..7 {
            let _ = refcount(block, 128 / (1 << order) - 1, order);
        }
    }
}

/// A snapshot table, and L1 tables behind it, of an image that is sound otherwise.
pub fn snapshot_table(data: &[u8]) {
    let mut at = 0;
    while let Ok(Some((_, next))) = snapshots::decode(data, at, 0) {
        at = next;
    }
    let image = Frame::of(data).around(data, SNAPSHOT_CLUSTER);
    open_and_read(&image);
    check(&image);
}

/// Where a [`Frame`] has its structures, in clusters.
const REFCOUNT_CLUSTER: usize = 1;
const L1_CLUSTER: usize = 2;
const SNAPSHOT_CLUSTER: usize = 3;

/// A sound header around structures of the fuzzer's, chosen by their last bytes.
struct Frame {
    cluster_bits: u8,
    refcount_order: u8,
    features: u8,
    snapshots: u8,
}

impl Frame {
    fn of(data: &[u8]) -> Self {
        let byte = |n| data.iter().rev().nth(n).copied().unwrap_or_default();
        let extended = byte(0) & 1 != 0;
        Self {
            // Small clusters have more of everything, extended entries need large ones.
            cluster_bits: if extended { 14 } else { 9 + byte(0) / 2 % 4 },
            refcount_order: byte(1) % 7,
            features: if extended { 1 << 4 } else { 0 },
            snapshots: byte(2) % 8,
        }
    }

    /// An image that has `data` from cluster `at` on.
    fn around(&self, data: &[u8], at: usize) -> Vec<u8> {
        let cluster = 1usize << self.cluster_bits;
        let mut image = vec![0; 4 * cluster];
        let mut set = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        let place = |n: usize| (n as u64 * cluster as u64).to_be_bytes();
        set(0, &MAGIC);
        set(4, &3u32.to_be_bytes());
        set(20, &u32::from(self.cluster_bits).to_be_bytes());
        set(24, &(1u64 << 20).to_be_bytes());
        let entries = u32::try_from(cluster / 8).expect("small");
        set(36, &entries.to_be_bytes());
        set(40, &place(L1_CLUSTER));
        set(48, &place(REFCOUNT_CLUSTER));
        set(56, &1u32.to_be_bytes());
        set(60, &u32::from(self.snapshots).to_be_bytes());
        set(64, &place(SNAPSHOT_CLUSTER));
        set(79, &[self.features]);
        set(96, &u32::from(self.refcount_order).to_be_bytes());
        set(100, &104u32.to_be_bytes());
        let from = at * cluster;
        if image.len() < from + data.len() {
            image.resize((from + data.len()).next_multiple_of(cluster), 0);
        }
        image[from..from + data.len()].copy_from_slice(data);
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_sound_so_that_what_fails_is_the_fuzzers() {
        for last in [0, 1, 2, 4, 6] {
            for order in 0..7 {
                let frame = Frame::of(&[0, order, last]);
                let image = frame.around(&[], L1_CLUSTER);
                let disk = Qcow2Image::open(memory(&image), &options()).unwrap();
                assert_eq!(disk.geometry().size(), 1 << 20);
                assert_eq!(disk.header().refcount_order, u32::from(order));
                assert_eq!(disk.geometry().has_extended_l2(), last == 1);
            }
        }
    }
}
