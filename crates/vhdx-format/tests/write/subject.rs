//! The engine as the proofs drive it: images in memory, made by the builder, alone or over the bytes of
//! a parent.

use std::sync::Arc;

use blockdev_core::{
    CheckReport, Error, ErrorKind, Finding, Layer, MemoryStorage, NoProgress, OpenOptions, Result,
    Severity, Storage,
};
use testkit::crash::{Control, CrashSubject, Image};
use testkit::stamp::stamped;
use testkit::vhdx_builder::{SectorTruth, VhdxBuilder};
use testkit::{BytesBelow, Over};
use vhdx_format::{ParentFormat, ParentLink, ParentPaths, Uuid, VhdxImage, repair};

pub(crate) const MIB: u64 = 1 << 20;

/// The file type identifier, which nothing rewrites (§2.2.1).
const IDENTIFIER: usize = 4096;

/// A VHDX image over the bytes of its parent, which may be none.
pub(crate) type Disk = Over<VhdxImage>;

/// Opens the image in `storage` over `base`.
pub(crate) fn open(storage: Arc<dyn Storage>, writable: bool, base: &Arc<Vec<u8>>) -> Result<Disk> {
    let options = if writable {
        OpenOptions::read_write()
    } else {
        OpenOptions::read_only()
    };
    let image = VhdxImage::open(storage, &options)?;
    Ok(Over::new(image, Arc::clone(base)))
}

/// The engine, for images over `base`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vhdx {
    pub(crate) base: Arc<Vec<u8>>,
    /// Ranges of the file that must stay what they are, by offset.
    pub(crate) kept: Vec<(u64, Vec<u8>)>,
    /// Images may be damaged in what can be repaired, and are repaired before they are looked at.
    pub(crate) repairs: bool,
    /// The names that the parent may have.
    pub(crate) parents: &'static [&'static str],
}

impl Vhdx {
    /// For images that begin as `image`.
    pub(crate) fn of(image: &Image, base: Vec<u8>) -> Self {
        Self {
            base: Arc::new(base),
            kept: vec![(0, image.part(0, IDENTIFIER))],
            ..Self::default()
        }
    }

    /// The same, for images in which `range` stays what it is in `image`.
    pub(crate) fn keeping(mut self, image: &Image, offset: u64, len: usize) -> Self {
        self.kept.push((offset, image.part(offset, len)));
        self
    }
}

impl CrashSubject for Vhdx {
    type Device = Disk;

    fn format(&self) -> &str {
        "vhdx"
    }

    fn open(&self, files: &[Arc<dyn Storage>], writable: bool) -> Result<Disk> {
        let storage = Arc::clone(&files[0]);
        if !self.repairs {
            return open(storage, writable, &self.base);
        }
        let storage = if writable { storage } else { copy(&*storage)? };
        repair(Arc::clone(&storage), &OpenOptions::read_write())?;
        open(storage, writable, &self.base)
    }

    fn check(&self, files: &[Arc<dyn Storage>]) -> Result<CheckReport> {
        let storage = &files[0];
        let mut report = if self.repairs {
            // What counts is what a repair makes of it.
            repair(copy(&**storage)?, &OpenOptions::read_write())?.after
        } else {
            vhdx_format::check(Arc::clone(storage), &OpenOptions::read_only())?
        };
        if !self.parents.is_empty() {
            let image = VhdxImage::open(Arc::clone(storage), &OpenOptions::read_only())?;
            let names = &image.file_refs()[0].names;
            let known = |name: &&str| names.iter().any(|own| format!("{own:?}").contains(name));
            if self.parents.iter().filter(|name| known(name)).count() != 1 {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("a parent {names:?}"),
                ));
            }
        }
        for (offset, right) in &self.kept {
            let mut seen = vec![0; right.len()];
            storage.read_at(&mut seen, *offset)?;
            if seen != *right {
                let finding = Finding {
                    severity: Severity::Corruption,
                    section: "file",
                    code: "kept-range-changed",
                    message: "bytes that nothing may change were changed".into(),
                    reference: "[MS-VHDX] 2.2",
                    offset: Some(*offset),
                    numbers: Vec::new(),
                };
                report.push(finding, 100);
            }
        }
        Ok(report)
    }

    fn control(&self, mut device: Disk, _: &[Arc<dyn Storage>], control: Control) -> Result<Disk> {
        let base = Arc::clone(&device.base);
        let image = &mut device.layer;
        match control {
            Control::Resize(size) => image.resize(size, base.len() as u64)?,
            Control::Other("compact") => image.compact(&NoProgress).map(drop)?,
            Control::Other("relink") => image.relink(&link("moved.vhdx"))?,
            Control::Other("fixed") => image.make_fixed()?,
            Control::Other("dynamic") => image.make_dynamic()?,
            Control::Other("standalone") => image.make_standalone(&BytesBelow(&base))?,
            Control::Other("differencing") => image.make_differencing(&link("parent.vhdx"))?,
            other => unreachable!("{other:?}"),
        }
        Ok(device)
    }

    fn close(&self, device: Disk) -> Result<()> {
        Box::new(device.layer).close()
    }
}

/// The bytes of `storage`, to be changed at will.
fn copy(storage: &dyn Storage) -> Result<Arc<dyn Storage>> {
    let mut bytes = vec![0; usize::try_from(storage.len()?).unwrap()];
    storage.read_at(&mut bytes, 0)?;
    Ok(Arc::new(MemoryStorage::from(bytes)))
}

/// A parent by name.
fn link(path: &str) -> ParentLink {
    let paths = ParentPaths::relative(path).unwrap();
    ParentLink::new(ParentFormat::Vhdx, Uuid::from_u128(7), paths)
}

/// `kib` KiB in which every sector tells where it comes from.
pub(crate) fn content(kib: usize) -> Vec<u8> {
    stamped(0, kib << 10, 77_777)
}

/// What the disk that `builder` describes reads over `base`.
pub(crate) fn disk_of(builder: &VhdxBuilder, base: &[u8]) -> Image {
    let geometry = builder.geometry();
    let mut disk = Image::zeros(geometry.virtual_size);
    let there = base
        .len()
        .min(usize::try_from(geometry.virtual_size).unwrap());
    let from_base = builder.expected_sector(0) == SectorTruth::FromParent;
    if from_base && there == 0 || geometry.virtual_size > 200 * MIB {
        // Disks this large are empty at the start, and lie over their base all along.
        disk.write(0, &base[..there]);
        return disk;
    }
    let sector = geometry.sector_size;
    for lba in 0..geometry.sectors() {
        let at = lba * sector;
        match builder.expected_sector(lba) {
            SectorTruth::Own(bytes) => disk.write(at, &bytes),
            SectorTruth::Zero => {}
            SectorTruth::FromParent => {
                let from = usize::try_from(at).unwrap().min(there);
                let to = usize::try_from(at + sector).unwrap().min(there);
                disk.write(at, &base[from..to]);
            }
        }
    }
    disk
}

/// A child of `size` bytes.
pub(crate) fn child(size: u64) -> VhdxBuilder {
    VhdxBuilder::child_of(&VhdxBuilder::new(size), "parent.vhdx")
}
