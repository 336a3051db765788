//! What the tests of this crate share. Each test file uses a part of it.
#![allow(dead_code)] // one copy is compiled into every test binary

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blockdev_core::{
    Error, ErrorKind, Holes, Layer, LoneLayer, MemoryStorage, OpenMode, OpenOptions, Recovery,
    Result, Storage, SyncKind,
};
use testkit::vhdx_builder::{SectorTruth, SparseImage, VhdxBuilder};
use vhdx_format::{ReadSemantics, VhdxImage};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// A number as an index.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).expect("tests run on 64-bit hosts")
}

/// The whole image in memory, readable and writable.
pub(crate) fn memory(image: &SparseImage) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::from(image.to_vec()))
}

/// An image that holds only its pages, for files too long to hold whole. Read-only.
#[derive(Debug)]
pub(crate) struct Sparse(pub(crate) SparseImage);

impl Storage for Sparse {
    fn len(&self) -> Result<u64> {
        Ok(self.0.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        blockdev_core::fits(offset, buf.len() as u64, self.0.len())
            .map_err(|_| Error::from(ErrorKind::Io))?;
        buf.copy_from_slice(&self.0.read(offset, buf.len()));
        Ok(())
    }
}

/// Opens for reading, with default options.
pub(crate) fn open(storage: Arc<dyn Storage>) -> Result<VhdxImage> {
    VhdxImage::open(storage, &OpenOptions::read_only())
}

/// Opens what `builder` makes, for reading.
pub(crate) fn built(builder: &VhdxBuilder) -> Result<VhdxImage> {
    open(Arc::new(Sparse(builder.build())))
}

/// The same as a disk.
pub(crate) fn disk(builder: &VhdxBuilder) -> LoneLayer {
    match built(builder) {
        Ok(image) => LoneLayer::new(Box::new(image)),
        Err(error) => panic!("{error}"),
    }
}

/// The kind and text of the refusal that `builder`'s image meets.
pub(crate) fn refusal(builder: &VhdxBuilder) -> (ErrorKind, String) {
    match built(builder) {
        Ok(_) => panic!("it opens"),
        Err(error) => (error.kind(), error.to_string()),
    }
}

/// Asserts that `builder`'s image is refused as `kind`, by a message that has `words` in it, and
/// that nothing holds on to the storage afterwards.
pub(crate) fn refused(builder: &VhdxBuilder, kind: ErrorKind, words: &str) {
    refused_image(builder.build(), kind, words);
}

/// The same for an image that was changed after it was built.
pub(crate) fn refused_image(image: SparseImage, kind: ErrorKind, words: &str) {
    let storage: Arc<dyn Storage> = Arc::new(Sparse(image));
    let Err(error) = open(Arc::clone(&storage)) else {
        panic!("it opens, and should be refused for {words:?}");
    };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(words), "{text:?} does not mention {words:?}");
    drop(error);
    assert_eq!(Arc::strong_count(&storage), 1, "a failed open leaks");
}

/// Options for opening in the file.
pub(crate) fn read_write() -> OpenOptions {
    OpenOptions::read_write()
}

pub(crate) fn with(recovery: Recovery) -> OpenOptions {
    OpenOptions::read_only().with_recovery(recovery)
}

/// A read of this image alone: bytes, and which of them it does not hold.
pub(crate) fn read_own(image: &VhdxImage, offset: u64, len: usize) -> (Vec<u8>, Holes) {
    let mut buf = vec![0xA7; len];
    let mut holes = Holes::new();
    image
        .read_own(&mut buf, offset, &mut holes, ReadSemantics::Effective)
        .unwrap_or_else(|error| panic!("read of {len} bytes at {offset:#x}: {error}"));
    (buf, holes)
}

/// Asserts that `len` bytes at `offset` of `image` are what `builder` was asked for: the bytes, the
/// zeros and the holes. Any alignment.
pub(crate) fn same_as_model(image: &VhdxImage, builder: &VhdxBuilder, offset: u64, len: u64) {
    let (seen, holes) = read_own(image, offset, index(len));
    let sector_size = builder.geometry().sector_size;
    let has_parent = image.items().file_parameters.has_parent;
    let mut at = offset;
    while at < offset + len {
        let lba = at / sector_size;
        let end = ((lba + 1) * sector_size).min(offset + len);
        let part = &seen[index(at - offset)..index(end - offset)];
        let within = index(at % sector_size)..index(at % sector_size) + part.len();
        let hole = holes
            .iter()
            .any(|hole| hole.start() <= at && end <= hole.end());
        match builder.expected_sector(lba) {
            SectorTruth::Own(bytes) => {
                assert!(!hole, "sector {lba} is held, and reported as a hole");
                assert!(part == &bytes[within], "content of sector {lba}");
            }
            // What a disk without parent does not hold reads as zeros by way of a hole.
            SectorTruth::Zero => assert!(
                if hole {
                    !has_parent
                } else {
                    part.iter().all(|byte| *byte == 0)
                },
                "sector {lba} is zeros"
            ),
            SectorTruth::FromParent => assert!(hole, "sector {lba} is the parent's"),
        }
        at = end;
    }
}

/// The 64-bit number at `offset`.
pub(crate) fn le64(bytes: &[u8], offset: u64) -> u64 {
    u64::from_le_bytes(
        bytes[index(offset)..index(offset) + 8]
            .try_into()
            .expect("eight"),
    )
}

/// The findings' codes, each once, in order.
pub(crate) fn codes(report: &blockdev_core::CheckReport) -> Vec<&'static str> {
    let mut codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Checks `image`, with default options.
pub(crate) fn check(image: SparseImage) -> blockdev_core::CheckReport {
    vhdx_format::check(Arc::new(Sparse(image)), &OpenOptions::read_only()).expect("it can be read")
}

/// A change to a file.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write(u64, Vec<u8>),
    Punch(u64, u64),
    SetLen(u64),
    Sync,
}

impl Change {
    /// Makes the change in `bytes`.
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, new) => {
                let end = index(*offset) + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[index(*offset)..end].copy_from_slice(new);
            }
            Self::Punch(offset, len) => {
                let end = bytes.len().min(index(offset + len));
                let start = end.min(index(*offset));
                bytes[start..end].fill(0);
            }
            Self::SetLen(len) => bytes.resize(index(*len), 0),
            Self::Sync => {}
        }
    }

    /// What is left of the change when the power goes in the middle of it: its first half, in whole
    /// 512-byte sectors.
    pub(crate) fn torn(&self) -> Option<Self> {
        match self {
            Self::Write(offset, new) if new.len() > 512 => {
                let half = new.len() / 2 / 512 * 512;
                Some(Self::Write(*offset, new[..half].to_vec()))
            }
            _ => None,
        }
    }
}

/// A file in memory that remembers every change made to it, with its bytes.
#[derive(Debug)]
pub(crate) struct Recorder {
    inner: MemoryStorage,
    pub(crate) changes: Mutex<Vec<Change>>,
}

impl Recorder {
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStorage::from(bytes),
            changes: Mutex::default(),
        })
    }

    fn note(&self, change: Change) {
        self.changes
            .lock()
            .expect("no test panics under it")
            .push(change);
    }
}

impl Storage for Recorder {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.note(Change::Write(offset, buf.to_vec()));
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.note(Change::SetLen(len));
        self.inner.set_len(len)
    }

    fn sync(&self, _: SyncKind) -> Result<()> {
        self.note(Change::Sync);
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.note(Change::Punch(offset, len));
        self.inner.punch_hole(offset, len)
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

/// Opens `storage` for writing, which replays its log in it.
pub(crate) fn replay(storage: Arc<dyn Storage>) -> Result<VhdxImage> {
    let options = read_write();
    assert_eq!(options.mode, OpenMode::ReadWrite);
    VhdxImage::open(storage, &options)
}

/// Runs `f`, which must take less than `limit`; on a busy machine in one of three times.
pub(crate) fn quickly<T>(what: &str, limit: Duration, f: impl Fn() -> T) -> T {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let result = f();
        best = best.min(start.elapsed());
        if best < limit {
            return result;
        }
    }
    panic!("{what} takes {best:?}");
}

/// The layer's own size.
pub(crate) fn size(image: &VhdxImage) -> u64 {
    image.info().size
}
