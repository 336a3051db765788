//! The engine as the proofs drive it: images made in memory, alone or over a base.

use std::sync::Arc;

use blockdev_core::{
    Below, BlockDevice, BulkOptions, CheckReport, Error, ErrorKind, FileRole, Layer, LoneLayer,
    MemoryStorage, NoProgress, OpenOptions, RawLayer, Result, Storage, bulk_copy,
};
use qcow2_format::inspect::first_cluster;
use qcow2_format::{CreateOptions, DataFile, NewSnapshot, Qcow2Image, Qcow2Writer, Repair, repair};
use testkit::crash::{Control, CrashSubject};
use testkit::stamp::stamped;
use testkit::{BytesBelow, Over};

/// A qcow2 image over the bytes of its backing file, which may be none.
pub(crate) type Disk = Over<Qcow2Image>;

/// Opens the image in `storage` over `base`.
pub(crate) fn open(storage: Arc<dyn Storage>, writable: bool, base: &Arc<Vec<u8>>) -> Result<Disk> {
    let options = if writable {
        OpenOptions::read_write()
    } else {
        OpenOptions::read_only()
    };
    let image = Qcow2Image::open(storage, &options)?;
    Ok(Over::new(image, Arc::clone(base)))
}

/// Gives the disk another size.
pub(crate) fn resize(disk: &mut Disk, size: u64) -> Result<()> {
    let base = Arc::clone(&disk.base);
    let len = base.len() as u64;
    disk.layer.resize(size, &BytesBelow(&base), len)
}

/// Writes whole clusters packed, everything else as it is.
pub(crate) fn packed(image: &Qcow2Image, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
    let cluster = image.header().cluster_size();
    let whole = [offset, buf.len() as u64].map(|n| n.is_multiple_of(cluster));
    if whole == [true; 2] {
        return image.write_compressed(buf, offset);
    }
    image.write_at(buf, offset, below)
}

/// The engine, for images over `base`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Qcow2 {
    pub(crate) base: Arc<Vec<u8>>,
    /// Images may be damaged in what can be repaired, and are repaired before they are written to.
    pub(crate) repairs: bool,
    /// Whole clusters are written packed.
    pub(crate) packs: bool,
}

impl CrashSubject for Qcow2 {
    type Device = Disk;

    fn format(&self) -> &str {
        "qcow2"
    }

    fn open(&self, files: &[Arc<dyn Storage>], writable: bool) -> Result<Disk> {
        let storage = &files[0];
        if writable && self.repairs {
            repair(Arc::clone(storage), &OpenOptions::read_write(), Repair::All)?;
        }
        let mut disk = open(Arc::clone(storage), writable, &self.base)?;
        if let Some(data) = files.get(1) {
            disk.layer.attach(FileRole::Data, Arc::clone(data))?;
        }
        if self.packs {
            disk.write = packed;
        }
        Ok(disk)
    }

    fn check(&self, files: &[Arc<dyn Storage>]) -> Result<CheckReport> {
        let storage = &files[0];
        if self.repairs {
            // What counts is what a repair makes of it.
            let mut bytes = vec![0; usize::try_from(storage.len()?).unwrap()];
            storage.read_at(&mut bytes, 0)?;
            let copy = Arc::new(MemoryStorage::from(bytes));
            return Ok(repair(copy, &OpenOptions::read_write(), Repair::All)?.after);
        }
        let header = first_cluster(&**storage)?.header;
        if header.is_data_file_raw() {
            self.compare_raw(files)?;
        }
        if header.is_dirty() {
            // It says itself that its refcounts are not to be believed; a writable open sees to it.
            return Ok(CheckReport::default());
        }
        let mut report = qcow2_format::check(Arc::clone(storage), &OpenOptions::read_only())?;
        if header.version < 3 {
            forgive_missing_flags(&mut report);
        }
        Ok(report)
    }

    fn control(&self, mut device: Disk, _: &[Arc<dyn Storage>], control: Control) -> Result<Disk> {
        if let Control::Resize(size) = control {
            resize(&mut device, size)?;
            return Ok(device);
        }
        let image = &mut device.layer;
        match control {
            Control::SnapshotCreate(id) => {
                let mut new = NewSnapshot::now(format!("name {id}"));
                (new.date_sec, new.date_nsec) = (1, 2);
                image.create_snapshot(&new)?;
            }
            Control::SnapshotApply(id) => image.apply_snapshot(&format!("name {id}"))?,
            Control::SnapshotDelete(id) => image.delete_snapshot(&format!("name {id}"))?,
            Control::Resize(_) | Control::Other(_) => unreachable!("{control:?}"),
        }
        Ok(device)
    }

    fn close(&self, device: Disk) -> Result<()> {
        Box::new(device.layer).close()
    }
}

impl Qcow2 {
    /// A raw data file is the disk by itself.
    fn compare_raw(&self, files: &[Arc<dyn Storage>]) -> Result<()> {
        let disk = self.open(files, false)?;
        let size = usize::try_from(disk.size()).unwrap();
        let (mut seen, mut raw) = (vec![0xEE; size], vec![0xEE; size]);
        disk.read_at(&mut seen, 0)?;
        files[1].read_at(&mut raw, 0)?;
        let mut sectors = seen.chunks(512).zip(raw.chunks(512));
        match sectors.position(|(seen, raw)| seen != raw) {
            None => Ok(()),
            Some(sector) => Err(Error::new(
                ErrorKind::Corrupt,
                format!("sector {sector} of the raw data file is not the disk's"),
            )),
        }
    }
}

/// Version 2 cannot say that it is in the middle of something: COPIED flags may be missing there,
/// which costs a copy and nothing else.
fn forgive_missing_flags(report: &mut CheckReport) {
    let before = report.findings.len();
    report.findings.retain(|finding| {
        finding.code != "copied-flag" || !finding.message.contains("flag is clear")
    });
    report.corruptions -= (before - report.findings.len()) as u64;
}

/// An empty image, as the bulk writer makes it.
pub(crate) fn empty(options: CreateOptions) -> Vec<u8> {
    let size = usize::try_from(options.size).unwrap();
    filled(&vec![0; size], options)
}

/// An image of `content`.
pub(crate) fn filled(content: &[u8], options: CreateOptions) -> Vec<u8> {
    written(content, options, None)
}

/// An image of `content`, and its data file.
pub(crate) fn filled_beside(
    content: &[u8],
    mut options: CreateOptions,
    raw: bool,
) -> (Vec<u8>, Vec<u8>) {
    let name = "data".into();
    options.data_file = Some(DataFile { name, raw });
    let data = Arc::new(MemoryStorage::default());
    let image = written(content, options, Some(data.clone()));
    (image, data.to_vec())
}

fn written(content: &[u8], options: CreateOptions, data: Option<Arc<MemoryStorage>>) -> Vec<u8> {
    let raw = Arc::new(MemoryStorage::from(content.to_vec()));
    let source = LoneLayer::new(Box::new(RawLayer::open(raw).unwrap()));
    let storage = Arc::new(MemoryStorage::default());
    let mut writer = Qcow2Writer::create(storage.clone(), options).unwrap();
    if let Some(data) = data {
        writer = writer.with_data_file(data).unwrap();
    }
    bulk_copy(&source, &writer, &BulkOptions::default(), &NoProgress).unwrap();
    writer.finish().unwrap();
    storage.to_vec()
}

/// `image` with a backing file's name in its first cluster, behind everything else.
pub(crate) fn backed(mut image: Vec<u8>, cluster_bits: u32) -> Vec<u8> {
    let name = b"base";
    let at = (1 << cluster_bits) - name.len();
    assert!(image[at..at + name.len()].iter().all(|byte| *byte == 0));
    image[at..at + name.len()].copy_from_slice(name);
    image[8..16].copy_from_slice(&(at as u64).to_be_bytes());
    image[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
    image
}

/// Small clusters, so that little content makes much metadata.
pub(crate) fn options(size: u64, cluster_bits: u32) -> CreateOptions {
    let mut options = CreateOptions::new(size);
    options.cluster_bits = cluster_bits;
    options
}

/// `kib` KiB in which every sector tells where it comes from.
pub(crate) fn content(kib: usize) -> Vec<u8> {
    stamped(0, kib << 10, 77_777)
}

/// `kib` KiB that can be packed, no sector of it zeros.
pub(crate) fn packable(kib: usize) -> Vec<u8> {
    let byte = |sector: usize| u8::try_from(sector % 255 + 1).unwrap();
    (0..kib << 10).map(|at| byte(at / 512)).collect()
}

/// `image`, whose refcounts are 16 bits wide and in one block, with three clusters leaked at its
/// end; and `corrupt`: two clusters in use counted 0 and 2 times.
pub(crate) fn damaged(mut image: Vec<u8>, corrupt: bool) -> Vec<u8> {
    let word = |image: &[u8], at: usize| {
        let bytes = image[at..at + 8].try_into().unwrap();
        usize::try_from(u64::from_be_bytes(bytes)).unwrap()
    };
    let cluster = 1 << image[23];
    let block = word(&image, word(&image, 48));
    let end = image.len().div_ceil(cluster);
    let mut set = |counted: usize, value: u8| image[block + counted * 2 + 1] = value;
    (end..end + 3).for_each(|leaked| set(leaked, 1));
    if corrupt {
        set(end - 2, 0);
        set(end - 3, 2);
    }
    image.resize((end + 3) * cluster, 0x77);
    image
}
