//! An open VHDX image.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use blockdev_core::{
    Below, ContentId, DeviceInfo, DiscardMode, Extent, FileRef, Holes, HostFile, Layer, Pin,
    Result, Storage, ZeroFlags,
};

use crate::inspect::MetadataItems;
use crate::io::engine::Engine;
use crate::io::tables::Tables;
use crate::meta::bat::{Frame, ReadSemantics};
use crate::meta::file_identifier::FileIdentifier;
use crate::meta::geometry::{BatSlot, Geometry};
use crate::meta::headers::{HeaderCopy, Headers};
use crate::meta::locator::ParentLocator;
use crate::meta::metadata::MetadataTable;
use crate::meta::regions::RegionTables;
use crate::ondisk::bat_entry::BatEntry;

/// What was found in the log at open, and done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogState {
    /// Nothing to replay.
    Empty,
    /// Replayed in the file.
    Replayed {
        /// Entries applied.
        entries: usize,
    },
    /// Replayed in memory; the file is as it was.
    ReplayedInMemory {
        /// Entries applied.
        entries: usize,
    },
    /// Not empty, and left alone because the caller said so: content may be out of date.
    Ignored,
}

/// Which type of disk it is (§1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskType {
    /// All space set aside.
    Fixed,
    /// Space taken as it is written.
    Dynamic,
    /// The changes against a parent.
    Differencing,
}

impl DiskType {
    /// The type as a lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }
}

/// Everything but headers and BAT that was read at open.
#[derive(Debug)]
pub(crate) struct Structures {
    pub(crate) identifier: FileIdentifier,
    pub(crate) region_tables: RegionTables,
    pub(crate) metadata_table: MetadataTable,
    pub(crate) items: MetadataItems,
}

/// An open VHDX image: one layer of a disk, and a view of every structure in the file.
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::{BlockDevice, FileOptions, FileStorage, LoneLayer};
/// use vhdx_format::{OpenOptions, VhdxImage};
///
/// let file = FileStorage::open("disk.vhdx", FileOptions::read_only())?;
/// let image = VhdxImage::open(Arc::new(file), &OpenOptions::read_only())?;
/// println!("{} disk, identity {}", image.disk_type().as_str(), image.items().virtual_disk_id);
/// let disk = LoneLayer::new(Box::new(image));
/// let mut boot_sector = [0; 512];
/// disk.read_at(&mut boot_sector, 0)?;
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug)]
pub struct VhdxImage {
    /// The file as it is to be read: with the log replayed, and shielded when opened read-only.
    pub(crate) storage: Arc<dyn Storage>,
    /// What the caller gave.
    pub(crate) medium: Arc<dyn Storage>,
    pub(crate) headers: RwLock<Headers>,
    pub(crate) structures: Structures,
    pub(crate) geometry: Geometry,
    /// Length of the file: every block lies before it.
    pub(crate) file_len: AtomicU64,
    pub(crate) tables: Tables,
    pub(crate) info: DeviceInfo,
    pub(crate) refs: Vec<FileRef>,
    pub(crate) log_state: LogState,
    /// There is one when the image may be changed.
    pub(crate) engine: Option<Engine>,
}

impl VhdxImage {
    /// The file type identifier, with the creator's name.
    #[must_use]
    pub fn file_identifier(&self) -> &FileIdentifier {
        &self.structures.identifier
    }

    /// Both copies of the header, as they are at this moment.
    #[must_use]
    pub fn headers(&self) -> Headers {
        let headers = self.headers.read().unwrap_or_else(PoisonError::into_inner);
        headers.clone()
    }

    /// The current header, as it is at this moment.
    #[must_use]
    pub fn header(&self) -> HeaderCopy {
        let headers = self.headers.read().unwrap_or_else(PoisonError::into_inner);
        *headers
            .current()
            .expect("an image without one does not open")
    }

    /// Both copies of the region table.
    #[must_use]
    pub fn region_tables(&self) -> &RegionTables {
        &self.structures.region_tables
    }

    /// The metadata table.
    #[must_use]
    pub fn metadata_table(&self) -> &MetadataTable {
        &self.structures.metadata_table
    }

    /// The known metadata items, decoded.
    #[must_use]
    pub fn items(&self) -> &MetadataItems {
        &self.structures.items
    }

    /// Where the parent is, in a differencing disk.
    #[must_use]
    pub fn parent_locator(&self) -> Option<&ParentLocator> {
        self.structures.items.parent_locator.as_ref()
    }

    /// The numbers that place blocks and BAT entries.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Which type of disk it is.
    #[must_use]
    pub fn disk_type(&self) -> DiskType {
        let parameters = &self.structures.items.file_parameters;
        match (parameters.has_parent, parameters.leave_block_allocated) {
            (true, _) => DiskType::Differencing,
            (false, true) => DiskType::Fixed,
            (false, false) => DiskType::Dynamic,
        }
    }

    /// What was found in the log, and done about it.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        self.log_state
    }

    /// Entries of the BAT that mean anything, those of sector bitmaps included.
    #[must_use]
    pub fn bat_len(&self) -> u64 {
        self.tables.entries()
    }

    /// BAT entry number `index`, with what it is for; `None` past the last.
    ///
    /// # Errors
    /// [`Io`](blockdev_core::ErrorKind::Io).
    pub fn bat_entry(&self, index: u64) -> Result<Option<(BatSlot, BatEntry)>> {
        if index >= self.tables.entries() {
            return Ok(None);
        }
        let entry = self
            .tables
            .bat_page(index)?
            .entry(index)
            .expect("the page was asked for");
        Ok(Some((self.geometry.entry_at(index), entry)))
    }

    /// The BAT entries that are not 0, in order, with their numbers. Costs what the host stores of
    /// the BAT, not what its length says.
    pub fn bat_entries(&self) -> impl Iterator<Item = Result<(u64, BatSlot, BatEntry)>> + '_ {
        let mut index = 0;
        std::iter::from_fn(move || {
            while index < self.tables.entries() {
                match self.next_bat_entry(&mut index) {
                    Ok(Some((at, entry))) => {
                        return Some(Ok((at, self.geometry.entry_at(at), entry)));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        index = self.tables.entries();
                        return Some(Err(error));
                    }
                }
            }
            None
        })
    }

    /// The first entry from `index` on, as far as its page goes, that is not 0, with its number.
    /// Moves `index` behind it, or to the next page, or over a hole of zeros.
    fn next_bat_entry(&self, index: &mut u64) -> Result<Option<(u64, BatEntry)>> {
        let page = self.tables.bat_page(*index)?;
        let end = page.end().min(self.tables.entries());
        let entry = |at| page.entry(at).expect("the page was asked for");
        if let Some(at) = (*index..end).find(|at| entry(*at) != BatEntry::default()) {
            *index = at + 1;
            return Ok(Some((at, entry(at))));
        }
        *index = if page.is_zero() {
            self.tables.skip_hole(page.end())?
        } else {
            page.end()
        };
        Ok(None)
    }

    /// Reads this file's own bytes under `semantics`, noting in `holes` what it does not hold.
    ///
    /// # Errors
    /// [`OutOfRange`](blockdev_core::ErrorKind::OutOfRange),
    /// [`Corrupt`](blockdev_core::ErrorKind::Corrupt), [`Io`](blockdev_core::ErrorKind::Io).
    pub fn read_own(
        &self,
        buf: &mut [u8],
        offset: u64,
        holes: &mut Holes,
        semantics: ReadSemantics,
    ) -> Result<()> {
        blockdev_core::fits(offset, buf.len() as u64, self.geometry.virtual_size())?;
        self.read_runs(buf, offset, holes, semantics)
    }

    /// Closes the image and gives back the medium it was opened from.
    #[must_use]
    pub fn into_medium(self) -> Arc<dyn Storage> {
        Arc::clone(&self.medium)
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn frame(&self) -> Frame {
        Frame {
            file_len: self.file_len(),
            has_parent: self.has_parent(),
        }
    }

    /// True when what this file does not hold is the parent's.
    pub(crate) fn has_parent(&self) -> bool {
        self.structures.items.file_parameters.has_parent
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.file_len.load(Ordering::Acquire)
    }

    /// Notes that the file is at least `len` bytes long.
    pub(crate) fn raise_file_len(&self, len: u64) {
        self.file_len.fetch_max(len, Ordering::AcqRel);
    }

    /// Counts a request in: no space that it may come to look at is used again before it is done.
    pub(crate) fn pin(&self) -> Option<Pin<'_>> {
        self.engine.as_ref().map(|engine| engine.pins.enter())
    }
}

impl Layer for VhdxImage {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn file_refs(&self) -> &[FileRef] {
        &self.refs
    }

    fn content_id(&self) -> Option<ContentId> {
        Some(ContentId(*self.header().data_write_guid.as_bytes()))
    }

    fn next_extent(&self, offset: u64, len: u64) -> Result<Extent> {
        let _pin = self.pin();
        self.next_run(offset, len, ReadSemantics::Effective)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64, holes: &mut Holes) -> Result<()> {
        self.read_runs(buf, offset, holes, ReadSemantics::Effective)
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

    fn host(&self, file: HostFile) -> Option<&dyn Storage> {
        match file {
            HostFile::Image => Some(&*self.storage),
            HostFile::Data => None,
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
impl Drop for VhdxImage {
    fn drop(&mut self) {
        // Nobody is left to be told; what failed shows when the image is opened again.
        let _ = self.finish();
    }
}
