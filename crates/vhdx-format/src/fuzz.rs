//! Bodies of the fuzz targets: any bytes in, no panic, no hang, no memory past the budgets out.
//! The ordinary tests replay the same bodies over kept finds.

use std::sync::Arc;

use blockdev_core::{
    BlockDevice, ContentId, DiscardMode, Extents, Holes, Layer, Limits, LoneLayer, MemoryStorage,
    NoProgress, OpenOptions, OverlayStorage, Recovery, Storage, ZeroFlags, ZerosBelow,
};
use uuid::Uuid;

use crate::inspect;
use crate::meta::file_identifier::FileIdentifier;
use crate::meta::headers::HeaderCopy;
use crate::meta::locator::ParentLocator;
use crate::meta::log::LogEntry;
use crate::meta::metadata::{FileParameters, MetadataTable};
use crate::meta::problem::refuse;
use crate::meta::regions::RegionTable;
use crate::ondisk::{header, metadata_table, region_table};
use crate::{ParentFormat, ParentLink, ParentPaths, ReadSemantics, VhdxImage};

/// Extents walked and read of one image; the rest is more of the same.
const EXTENTS: usize = 64;
/// Changes made to one image.
const CHANGES: usize = 40;
/// Bytes read of one extent.
const PIECE: usize = 64 << 10;

fn options() -> OpenOptions {
    let mut limits = Limits::default();
    limits.metadata_cache_bytes = 1 << 20;
    limits.log_bytes = 16 << 20;
    limits.check_findings = 100;
    OpenOptions::read_only().with_limits(limits)
}

fn memory(data: &[u8]) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::from(data.to_vec()))
}

/// Pads or cuts to a structure's size.
fn sized<const N: usize>(data: &[u8]) -> Box<[u8; N]> {
    let mut bytes = Box::new([0; N]);
    let len = data.len().min(N);
    bytes[..len].copy_from_slice(&data[..len]);
    bytes
}

/// Opens read-only in every way there is, and reads what can be read.
pub fn open_and_read(data: &[u8]) {
    for recovery in [Recovery::Auto, Recovery::Ignore] {
        let Ok(image) = VhdxImage::open(memory(data), &options().with_recovery(recovery)) else {
            continue;
        };
        walk(image);
    }
    let _ = VhdxImage::open(memory(data), &options().with_strict(true));
    salvage(data);
}

fn walk(image: VhdxImage) {
    let _: Option<ContentId> = image.content_id();
    image.bat_entries().take(1000).for_each(drop);
    let mut buffer = vec![0; PIECE];
    let raw_len = buffer
        .len()
        .min(usize::try_from(image.info().size).unwrap_or(usize::MAX));
    let _ = image.read_own(
        &mut buffer[..raw_len],
        0,
        &mut Holes::new(),
        ReadSemantics::Raw,
    );
    let disk = LoneLayer::new(Box::new(image));
    let size = disk.size();
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

/// Opens for writing, so that the log is replayed in the file, then reopens: a file that was
/// recovered once opens without recovery. Then changes it in every way there is, and repairs what is
/// left. Nothing that is asked of a damaged image need succeed.
pub fn open_writable(data: &[u8]) {
    // Sparse, so that a log that makes the file huge costs nothing.
    let Ok(overlay) = OverlayStorage::new(memory(data), 64 << 20) else {
        return;
    };
    let storage: Arc<dyn Storage> = Arc::new(overlay);
    let mut options = options();
    options.mode = crate::OpenMode::ReadWrite;
    if VhdxImage::open(Arc::clone(&storage), &options).is_ok() {
        let again = self::options().with_recovery(Recovery::Refuse);
        VhdxImage::open(Arc::clone(&storage), &again).expect("a recovered file opens");
    }
    if let Ok(mut image) = VhdxImage::open(Arc::clone(&storage), &options) {
        let picks = data.as_chunks::<8>().0.iter().rev().take(CHANGES);
        for (n, pick) in picks.enumerate() {
            let _ = change(&mut image, n, u64::from_be_bytes(*pick));
        }
        let _ = image.flush();
    }
    let _ = crate::repair(storage, &options);
}

/// One change of an image, chosen by `pick`.
fn change(image: &mut VhdxImage, n: usize, pick: u64) -> blockdev_core::Result<()> {
    let size = image.info().size;
    let offset = (pick >> 16) % size.max(1);
    let len = (pick % 3_000_000 + 1).min(size - offset);
    let bytes = vec![7; usize::try_from(len).expect("small")];
    let flags = ZeroFlags {
        may_unmap: pick & 1 != 0,
        no_fallback: false,
    };
    let paths = ParentPaths::relative("parent").expect("a name");
    let link = ParentLink::new(ParentFormat::Vhdx, Uuid::from_u128(pick.into()), paths);
    match n % 13 {
        0..=2 => image.write_at(&bytes, offset, &ZerosBelow),
        3 => image.zero(offset, len, flags, &ZerosBelow),
        4 => image.discard(offset, len, DiscardMode::Best),
        5 => image.discard(offset, len, DiscardMode::ToParent),
        6 => image.flush(),
        7 => image.resize(pick % (1 << 28) * 512, pick >> 30),
        8 => image.compact(&NoProgress).map(drop),
        9 => image.relink(&link),
        // What goes through every block takes its time on a disk of many.
        _ if image.geometry().payload_blocks() > 1000 => Ok(()),
        10 => image.make_fixed(),
        11 => image.make_dynamic(),
        _ if pick & 2 != 0 => image.make_standalone(&ZerosBelow),
        _ => image.make_differencing(&link),
    }
}

/// Opens what is damaged, and reads what can be read of it.
fn salvage(data: &[u8]) {
    if let Ok(image) = VhdxImage::open(memory(data), &options().with_salvage(true)) {
        walk(image);
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

/// A log by itself: `data` is the ring, whose LogGuid is that of the first entry.
pub fn log(data: &[u8]) {
    const MIB: usize = 1 << 20;
    let mut ring = data.to_vec();
    ring.resize(ring.len().next_multiple_of(MIB).clamp(MIB, 4 * MIB), 0);
    let mut bytes = sized::<{ header::BYTES }>(&[]);
    bytes[48..64].copy_from_slice(&ring[32..48]);
    let length = u32::try_from(ring.len()).expect("at most 4 MiB");
    bytes[68..72].copy_from_slice(&length.to_le_bytes());
    let header = HeaderCopy::decode(&bytes, 0);
    let storage = MemoryStorage::from(ring);
    if let Ok(log) = inspect::log_contents(&storage, &header, &Limits::default()) {
        assert!(
            log.active
                .iter()
                .all(|index| log.found[*index].entry.is_ok())
        );
    }
    let _ = LogEntry::decode(data, 0);
}

/// The fixed structures, each from the same bytes.
pub fn structures(data: &[u8]) {
    let _ = FileIdentifier::decode(data);
    let _ = HeaderCopy::decode(&sized(data), 0).problems(u64::MAX);
    let table = RegionTable::decode(&*sized::<{ region_table::BYTES }>(data), 0);
    let log = blockdev_core::ByteRange::new(1 << 20, 1 << 20).expect("2 MiB");
    let _ = refuse(table.problems(log, u64::MAX), true);
    let table = MetadataTable::decode(&*sized::<{ metadata_table::BYTES }>(data), 0);
    let _ = refuse(table.problems(1 << 20), true);
    let storage = MemoryStorage::from(data.to_vec());
    let _ = inspect::metadata_items(&storage, &table);
    let _ = FileParameters::decode(&sized(data));
    if let Ok(locator) = ParentLocator::decode(data, 0) {
        let _: Vec<Uuid> = locator.linkages();
        let _ = refuse(locator.problems(), true);
        assert!(locator.file_ref(512).names.len() <= 3);
    }
}
