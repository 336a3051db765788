//! Changing what an image is, without touching what the guest sees.

use std::sync::Arc;

use blockdev_core::{
    Error, ErrorKind, OpenMode, OpenOptions, Result, Storage, StorageExt, SyncKind, ZerosBelow,
};

use super::inspect::{self, FirstCluster};
use super::open::load;
use super::repair::count_anew;
use crate::image::Qcow2Image;
use crate::meta::cluster::Source;
use crate::meta::first_cluster::{Trailer, replace};
use crate::meta::header::{MAX_BACKING_NAME_BYTES, V2_REFCOUNT_ORDER};
use crate::ondisk::extension::{BACKING_FORMAT, EXTERNAL_DATA_FILE};
use crate::ondisk::features;
use crate::ondisk::header::{FEATURES, HEADER_LENGTH, V2_BYTES, VERSION};
use crate::{Backing, Qcow2Error};

/// Version 3 headers are made so long: with room for the compression type.
const V3_LENGTH: usize = 112;

/// What is to be changed of an image; what is `None` stays.
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::{FileOptions, FileStorage};
/// use qcow2_format::{Amendment, OpenOptions, amend};
///
/// let file = FileStorage::open("disk.qcow2", FileOptions::read_write())?;
/// let mut change = Amendment::default();
/// change.refcount_order = Some(6);
/// amend(Arc::new(file), &OpenOptions::read_write(), &change)?;
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Amendment {
    /// The version: 2 or 3. Version 2 has no features, no marks for zeros (they become clusters of
    /// zeros) and refcounts of 16 bits.
    pub version: Option<u32>,
    /// Let refcounts be brought up to date late; version 3 only.
    pub lazy_refcounts: Option<bool>,
    /// Binary logarithm of the width of a refcount in bits: 0 to 6; version 3 only.
    pub refcount_order: Option<u32>,
    /// The backing file's name and format, or none. Nothing is read or copied: it is for the caller
    /// to know that the disk stays the same.
    pub backing: Option<Option<Backing>>,
    /// The external data file's name, of an image that has one.
    pub data_file: Option<String>,
}

/// Changes the qcow2 file in `storage`, which nobody else has open. A crash leaves the image as it was
/// or with some of the changes made, each of them whole.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for what the version does not have,
/// [`Unsupported`](ErrorKind::Unsupported) for a return to version 2 of an image with features or
/// snapshots, [`LimitExceeded`](ErrorKind::LimitExceeded) when refcounts would be too narrow or the
/// first cluster has no room, as [`Qcow2Image::open`], and those of writing.
pub fn amend(storage: Arc<dyn Storage>, options: &OpenOptions, change: &Amendment) -> Result<()> {
    let mut options = options.clone();
    options.mode = OpenMode::ReadWrite;
    // Whatever an unclean end left is put right first.
    Qcow2Image::open(Arc::clone(&storage), &options)?.finish()?;
    let version = change
        .version
        .unwrap_or(load(&*storage, &options)?.header.version);
    check(change, version, &load(&*storage, &options)?)?;
    if let Some(order) = change.refcount_order {
        let first = load(&*storage, &options)?;
        if order != first.header.refcount_order {
            count_anew(&storage, &first, order, &options)?;
        }
    }
    let first = load(&*storage, &options)?;
    if version == 2 && first.header.version == 3 {
        spell_out_zeros(&storage, &options)?;
        count_anew(
            &storage,
            &load(&*storage, &options)?,
            V2_REFCOUNT_ORDER,
            &options,
        )?;
    }
    rewrite(&*storage, change, version)?;
    if let Some(lazy) = change.lazy_refcounts
        && version >= 3
    {
        let header = inspect::first_cluster(&*storage)?.header;
        let others = header.compatible_features & !features::LAZY_REFCOUNTS;
        let bit = if lazy { features::LAZY_REFCOUNTS } else { 0 };
        storage.write_at(&(others | bit).to_be_bytes(), FEATURES + 8)?;
    }
    storage.sync(SyncKind::Data)
}

/// Refuses what cannot be, before anything is changed.
fn check(change: &Amendment, version: u32, first: &FirstCluster) -> Result<()> {
    let header = &first.header;
    let invalid = |text: &'static str| Err(Error::new(ErrorKind::InvalidInput, text));
    match version {
        2 if change.lazy_refcounts == Some(true) => return invalid("version 2 has no features"),
        2 if change
            .refcount_order
            .is_some_and(|order| order != V2_REFCOUNT_ORDER) =>
        {
            return invalid("version 2 has refcounts of 16 bits");
        }
        2 if header.version == 3 => {
            if header.incompatible_features != 0 || header.nb_snapshots > 0 {
                let text = "an image with incompatible features or snapshots stays in version 3";
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        }
        2 | 3 => {}
        found => return Err(Qcow2Error::Version { found }.into()),
    }
    if change.refcount_order.is_some_and(|order| order > 6) {
        return invalid("refcounts have at most 64 bits");
    }
    if change.data_file.is_some() && !header.has_data_file() {
        return invalid("the image has no external data file");
    }
    if let Some(Some(backing)) = &change.backing {
        let length = u32::try_from(backing.name.len()).unwrap_or(u32::MAX);
        if length == 0 || length > MAX_BACKING_NAME_BYTES {
            return invalid("the name of a backing file has 1 to 1023 bytes");
        }
    }
    Ok(())
}

/// Writes the header and what follows it anew, with the names and the version that are wanted.
fn rewrite(storage: &dyn Storage, change: &Amendment, version: u32) -> Result<()> {
    let first = inspect::first_cluster(storage)?;
    let header = &first.header;
    let mut cluster = vec![0; usize::try_from(header.cluster_size()).expect("at most 2 MiB")];
    storage.read_zero_padded(&mut cluster, 0)?;
    let old_length = usize::try_from(header.header_length).expect("inside the first cluster");
    let mut trailer = Trailer::decode(&cluster, old_length);
    let before = trailer.clone();
    if let Some(backing) = &change.backing {
        let format = backing.as_ref().map(|backing| backing.format.as_bytes());
        trailer.set(BACKING_FORMAT, format.filter(|format| !format.is_empty()));
        trailer.name = backing
            .as_ref()
            .map_or_else(Vec::new, |b| b.name.clone().into_bytes());
    }
    if let Some(name) = &change.data_file {
        trailer.set(EXTERNAL_DATA_FILE, Some(name.as_bytes()));
    }
    if trailer == before && version == header.version {
        return Ok(());
    }
    let mut fields = cluster[..old_length.min(cluster.len())].to_vec();
    if version != header.version {
        fields.resize(V2_BYTES, 0);
        fields[VERSION..VERSION + 4].copy_from_slice(&version.to_be_bytes());
    }
    if version == 3 && header.version == 2 {
        fields.resize(V3_LENGTH, 0);
        let order = V2_REFCOUNT_ORDER.to_be_bytes();
        fields[HEADER_LENGTH - 4..HEADER_LENGTH].copy_from_slice(&order);
    }
    for step in replace(&cluster, old_length, &fields, &trailer)? {
        for (at, bytes) in step {
            storage.write_at(&bytes, at as u64)?;
        }
        storage.sync(SyncKind::Data)?;
    }
    Ok(())
}

/// Writes zeros where the image has marks for them, which version 2 does not know.
fn spell_out_zeros(storage: &Arc<dyn Storage>, options: &OpenOptions) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let image = Qcow2Image::open(Arc::clone(storage), options)?;
    let size = image.info.size.next_multiple_of(image.cluster_size());
    let mut at = 0;
    while at < size {
        let run = image.next_run(at, size - at)?;
        let end = at + run.len;
        if matches!(run.source, Source::Zero(_)) {
            if image.has_backing_file() {
                while at < end {
                    let piece = (end - at).min(ZEROS.len() as u64);
                    let len = usize::try_from(piece).expect("no more than there are");
                    image.write_guest(&ZEROS[..len], at, &ZerosBelow)?;
                    at += piece;
                }
            } else {
                image.change_entries(at..end, true, |slot, _| image.rules.unmapped(slot))?;
            }
        }
        at = end;
    }
    image.finish()
}
