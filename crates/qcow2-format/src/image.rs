//! An open qcow2 image.

use std::any::Any;
use std::sync::Arc;

use blockdev_core::{
    Below, DeviceInfo, DiscardMode, Error, ErrorKind, Extent, ExtentKind, FileRef, FileRole, Holes,
    HostFile, HostPlace, Layer, ReadOnlyStorage, Result, Storage, ZeroFlags,
};

use crate::inspect::{self, FirstCluster};
use crate::io::decompress::Unpacked;
use crate::io::engine::Engine;
use crate::io::pages::Pages;
use crate::io::tables::Tables;
use crate::meta::bitmaps::Bitmap;
use crate::meta::cluster::{Rules, Source};
use crate::meta::extensions::Extensions;
use crate::meta::geometry::Geometry;
use crate::meta::header::Header;
use crate::meta::snapshots::Snapshot;

/// An open qcow2 image, or one of its internal snapshots: one layer of a disk.
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::{BlockDevice, FileOptions, FileStorage, LoneLayer};
/// use qcow2_format::{OpenOptions, Qcow2Image};
///
/// let file = FileStorage::open("disk.qcow2", FileOptions::read_only())?;
/// let image = Qcow2Image::open(Arc::new(file), &OpenOptions::read_only())?;
/// println!("version {}, {} bytes a cluster", image.header().version, image.header().cluster_size());
/// let disk = LoneLayer::new(Box::new(image));
/// let mut boot_sector = [0; 512];
/// disk.read_at(&mut boot_sector, 0)?;
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Qcow2Image {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) data_file: Option<Arc<dyn Storage>>,
    pub(crate) first: FirstCluster,
    pub(crate) rules: Rules,
    pub(crate) pages: Arc<Pages>,
    pub(crate) tables: Tables,
    pub(crate) unpacked: Unpacked,
    pub(crate) info: DeviceInfo,
    pub(crate) refs: Vec<FileRef>,
    /// There is one when the image may be changed.
    pub(crate) engine: Option<Engine>,
}

impl Qcow2Image {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.first.header
    }

    /// The header's extensions.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.first.extensions
    }

    /// The backing file as the image names it.
    #[must_use]
    pub fn backing_file(&self) -> Option<&str> {
        self.first.backing_file.as_deref()
    }

    /// The numbers that place everything on this disk.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.rules.geometry
    }

    /// Bytes in a cluster.
    pub(crate) fn cluster_size(&self) -> u64 {
        self.rules.geometry.cluster_size()
    }

    /// Every internal snapshot, in the order of the table.
    ///
    /// # Errors
    /// As [`inspect::snapshots`](crate::inspect::snapshots).
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        inspect::snapshots(&*self.storage, &self.first.header)
    }

    /// Every bitmap kept in the image, in the order of the directory.
    ///
    /// # Errors
    /// As [`inspect::bitmaps`](crate::inspect::bitmaps).
    pub fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        inspect::bitmaps(&*self.storage, &self.first)
    }
}

impl Layer for Qcow2Image {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn file_refs(&self) -> &[FileRef] {
        &self.refs
    }

    fn next_extent(&self, offset: u64, len: u64) -> Result<Extent> {
        let _pin = self.engine.as_ref().map(|engine| engine.pins.enter());
        let run = self.next_run(offset, len)?;
        let guest_file = if self.rules.has_data_file {
            HostFile::Data
        } else {
            HostFile::Image
        };
        let place = |file, offset| Some(HostPlace { file, offset });
        let (kind, host) = match run.source {
            Source::Absent => (ExtentKind::Absent, None),
            Source::Zero(at) => (ExtentKind::Zero, at.and_then(|at| place(guest_file, at))),
            Source::Data(at) => (ExtentKind::Data, place(guest_file, at)),
            Source::Compressed { offset, .. } => {
                (ExtentKind::Compressed, place(HostFile::Image, offset))
            }
        };
        Ok(Extent {
            host,
            ..Extent::new(kind, run.len)
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64, holes: &mut Holes) -> Result<()> {
        let _pin = self.engine.as_ref().map(|engine| engine.pins.enter());
        self.read_runs(buf, offset, holes)
    }

    fn write_at(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.write_guest(buf, offset, below)
    }

    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags, below: &dyn Below) -> Result<()> {
        self.zero_guest(offset, len, flags, below)
    }

    fn discard(&self, offset: u64, len: u64, mode: DiscardMode) -> Result<()> {
        self.discard_guest(offset, len, mode)
    }

    fn flush(&self) -> Result<()> {
        self.flush_all()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.finish()
    }

    fn attach(&mut self, role: FileRole, storage: Arc<dyn Storage>) -> Result<()> {
        if role != FileRole::Data || !self.rules.has_data_file {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the image has no external data file",
            ));
        }
        self.data_file = Some(match self.engine {
            Some(_) => storage,
            None => Arc::new(ReadOnlyStorage::new(storage)),
        });
        Ok(())
    }

    fn host(&self, file: HostFile) -> Option<&dyn Storage> {
        match file {
            HostFile::Image => Some(&*self.storage),
            HostFile::Data => self.data_file.as_deref(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A writable image that goes out of use without a word is closed as far as that succeeds.
impl Drop for Qcow2Image {
    fn drop(&mut self) {
        // Nobody is left to be told; what failed shows when the image is opened again.
        let _ = self.finish();
    }
}
