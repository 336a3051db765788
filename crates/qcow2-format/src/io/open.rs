//! Opening: the first cluster judged, then nothing more than what is asked for.

use std::sync::Arc;

use blockdev_core::{
    Caps, DeviceInfo, Error, ErrorKind, FileRef, FileRole, OpenMode, OpenOptions, ReadOnlyStorage,
    Recovery, Result, Storage,
};

use super::decompress::Unpacked;
use super::engine::Engine;
use super::engine::reserve::reserved_areas;
use super::inspect::{self, FirstCluster};
use super::pages::Pages;
use super::repair::recover;
use super::tables::Tables;
use crate::Qcow2Error;
use crate::image::Qcow2Image;
use crate::meta::backing_name::file_name;
use crate::meta::cluster::Rules;
use crate::meta::geometry::Geometry;
use crate::meta::header::MAX_L1_BYTES;
use crate::meta::snapshots::Snapshot;

impl Qcow2Image {
    /// Opens the active disk of the qcow2 file in `storage`. For reading, images that are dirty or
    /// marked corrupt open too: reading needs no refcounts. For writing, the refcounts of a dirty one
    /// are counted anew first.
    ///
    /// # Errors
    /// [`NotRecognised`](ErrorKind::NotRecognised) for another format,
    /// [`Corrupt`](ErrorKind::Corrupt) with structure and offset, for writing also where the image is
    /// marked so and where structures share a place,
    /// [`NeedsRecovery`](ErrorKind::NeedsRecovery) for writing to a dirty image that is not to be
    /// recovered,
    /// [`Unsupported`](ErrorKind::Unsupported) for unknown incompatible features and for encryption,
    /// [`LimitExceeded`](ErrorKind::LimitExceeded), [`Io`](ErrorKind::Io).
    pub fn open(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self> {
        let mut first = load(&*storage, options)?;
        if options.mode == OpenMode::ReadWrite {
            check_writable(&first, options)?;
            if first.header.is_dirty() {
                recover(&storage, &first, options)?;
                first = load(&*storage, options)?;
            }
        }
        let geometry = first.header.geometry();
        let l1_offset = first.header.l1_table_offset;
        Self::assemble(storage, options, first, geometry, l1_offset)
    }

    /// Opens the disk as it was when the internal snapshot was taken whose id or name is `wanted`;
    /// the id counts first.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when there is none, and as [`open`](Self::open).
    pub fn open_snapshot(
        storage: Arc<dyn Storage>,
        wanted: &str,
        options: &OpenOptions,
    ) -> Result<Self> {
        let choose = |snapshots: &[Snapshot]| {
            let by_id = snapshots.iter().position(|snapshot| snapshot.id == wanted);
            by_id.or_else(|| {
                snapshots
                    .iter()
                    .position(|snapshot| snapshot.name == wanted)
            })
        };
        let image = Self::open_chosen_snapshot(storage, choose, options)?;
        image.ok_or_else(|| {
            let name = wanted.into();
            Qcow2Error::NoSnapshot { name }.into()
        })
    }

    /// Opens the disk as it was when the internal snapshot was taken that `choose` points out: its
    /// place among all snapshots, in the order of the table. `None` when it points out none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_chosen_snapshot(
        storage: Arc<dyn Storage>,
        choose: impl FnOnce(&[Snapshot]) -> Option<usize>,
        options: &OpenOptions,
    ) -> Result<Option<Self>> {
        let mut options = options.clone();
        options.mode = OpenMode::ReadOnly;
        let options = &options;
        let first = load(&*storage, options)?;
        let snapshots = inspect::snapshots(&*storage, &first.header)?;
        let Some(snapshot) = choose(&snapshots).and_then(|at| snapshots.get(at)) else {
            return Ok(None);
        };
        let header = &first.header;
        let size = snapshot.disk_size.unwrap_or(header.size);
        let geometry = Geometry::new(size, header.cluster_bits, header.has_extended_l2());
        check_snapshot(snapshot, &geometry)?;
        let l1_offset = snapshot.l1_table_offset;
        Self::assemble(storage, options, first, geometry, l1_offset).map(Some)
    }

    fn assemble(
        storage: Arc<dyn Storage>,
        options: &OpenOptions,
        first: FirstCluster,
        geometry: Geometry,
        l1_offset: u64,
    ) -> Result<Self> {
        let writable = options.mode == OpenMode::ReadWrite;
        let storage: Arc<dyn Storage> = if writable {
            storage
        } else {
            Arc::new(ReadOnlyStorage::new(storage))
        };
        let header = &first.header;
        let file_len = storage.len()?;
        let pages = Arc::new(Pages::new(Arc::clone(&storage), &options.page_cache()));
        let engine = if writable {
            let reserved = reserved_areas(&*storage, &first, file_len)?;
            Some(Engine::new(header, file_len, reserved))
        } else {
            None
        };
        Ok(Self {
            tables: Tables::new(Arc::clone(&pages), l1_offset, &geometry, file_len)?,
            pages,
            engine,
            unpacked: Unpacked::new(header.compression_type, header.cluster_size()),
            rules: Rules {
                geometry,
                version: header.version,
                has_data_file: header.has_data_file(),
            },
            info: DeviceInfo {
                size: geometry.size(),
                logical_sector_size: 512,
                physical_sector_size: 512,
                block_size: Some(1 << header.cluster_bits),
                read_only: !writable,
                format: crate::FORMAT_NAME,
                caps: Caps {
                    write: writable,
                    write_zeroes: writable,
                    discard: writable,
                },
            },
            refs: file_refs(&first),
            data_file: None,
            storage,
            first,
        })
    }
}

/// The first cluster of an image that can be read.
pub(crate) fn load(storage: &dyn Storage, options: &OpenOptions) -> Result<FirstCluster> {
    let first = inspect::first_cluster(storage)?;
    first.header.check_features(&first.extensions)?;
    let data_file = first.header.has_data_file();
    if first.extensions.data_file.is_some() && !data_file {
        // Harmless by the letter; a reader that trusted the name would read another disk.
        return Err(Qcow2Error::Field {
            structure: "header",
            offset: 0,
            field: "data file name",
            found: "present".into(),
            expected: "the external data file bit along with it".into(),
        }
        .into());
    }
    if options.strict && !first.extensions.unknown.is_empty() {
        let kind = first.extensions.unknown[0].kind;
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("header extension {kind:#x} is not known, and strict reading was asked for"),
        )
        .at("header extension", first.header.header_length.into()));
    }
    Ok(first)
}

/// Refuses to write to what is known to be damaged, and to what was not closed cleanly where the
/// caller does not want it recovered.
fn check_writable(first: &FirstCluster, options: &OpenOptions) -> Result<()> {
    if first.header.is_corrupt() {
        let text = "the image is marked corrupt; it is not written to before it is repaired";
        return Err(Error::corrupt("header", 72, text));
    }
    if first.header.is_dirty() && options.recovery != Recovery::Auto {
        let text = "the image was not closed cleanly; its refcounts must be rebuilt first";
        return Err(Error::new(ErrorKind::NeedsRecovery, text));
    }
    Ok(())
}

/// A snapshot's own L1 table is judged when it is opened, as the active one is.
pub(crate) fn check_snapshot(snapshot: &Snapshot, geometry: &Geometry) -> Result<(), Qcow2Error> {
    let field = |field, found: String, expected: String| Qcow2Error::Field {
        structure: "snapshot table entry",
        offset: snapshot.offset,
        field,
        found,
        expected: expected.into(),
    };
    let offset = snapshot.l1_table_offset;
    if !offset.is_multiple_of(geometry.cluster_size()) || i64::try_from(offset).is_err() {
        let expected = "a multiple of the cluster size".into();
        return Err(field("l1_table_offset", format!("{offset:#x}"), expected));
    }
    let bytes = u64::from(snapshot.l1_size) * 8;
    if bytes > MAX_L1_BYTES {
        return Err(Qcow2Error::Limit {
            structure: "snapshot table entry",
            offset: snapshot.offset,
            field: "l1_size",
            found: bytes,
            limit: MAX_L1_BYTES,
        });
    }
    let needed = geometry.l1_entries();
    if u64::from(snapshot.l1_size) < needed {
        let expected = format!("at least {needed} for a disk of {} bytes", geometry.size());
        return Err(field("l1_size", snapshot.l1_size.to_string(), expected));
    }
    Ok(())
}

fn file_refs(first: &FirstCluster) -> Vec<FileRef> {
    let reference = |role, name: &str, format: Option<&str>| FileRef {
        role,
        names: vec![file_name(name)],
        format: format.map(Into::into),
        expected: Vec::new(),
        logical_sector_size: None,
    };
    let parent = first.backing_file.iter().map(|name| {
        reference(
            FileRole::Parent,
            name,
            first.extensions.backing_format.as_deref(),
        )
    });
    // An image may have a data file without naming it: its user knows.
    let data = first.header.has_data_file().then(|| {
        let name = first.extensions.data_file.as_deref();
        let mut data = reference(FileRole::Data, name.unwrap_or_default(), Some("raw"));
        if name.is_none() {
            data.names.clear();
        }
        data
    });
    parent.chain(data).collect()
}
