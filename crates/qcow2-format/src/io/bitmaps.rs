//! Walking the bitmap directory, a piece at a time.

use blockdev_core::{ByteRange, Result, Storage, StorageExt};

use crate::Qcow2Error;
use crate::inspect::FirstCluster;
use crate::meta::bitmaps::{Bitmap, Decoded, MAX_BITMAPS, MAX_DIRECTORY_BYTES, decode};
use crate::meta::extensions::BitmapsExtension;
use crate::ondisk::features;

/// Bytes of the directory read at a time; longer than any entry.
const PIECE: u64 = 16 << 10;

/// Every bitmap of an image, in the order of the directory; none where the image has none, or where
/// whoever wrote to it last did not know of them, which makes them worthless.
///
/// # Errors
/// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) with the field of the directory that cannot be, or
/// when it reaches past the end of the file,
/// [`LimitExceeded`](blockdev_core::ErrorKind::LimitExceeded), [`Io`](blockdev_core::ErrorKind::Io).
pub fn bitmaps(storage: &dyn Storage, first: &FirstCluster) -> Result<Vec<Bitmap>> {
    let header = &first.header;
    let known = header.autoclear_features & features::BITMAPS != 0;
    let Some(extension) = first.extensions.bitmaps.filter(|_| known) else {
        return Ok(Vec::new());
    };
    let end = directory_end(storage, extension, header.cluster_size())?;
    let mut found = Vec::new();
    let mut at = extension.directory_offset;
    let mut piece = Vec::new();
    let mut piece_at = at;
    while found.len() < extension.nb_bitmaps as usize {
        let from = usize::try_from(at - piece_at).unwrap_or(usize::MAX);
        let known = piece.get(from..).unwrap_or_default();
        match decode(known, at, header.cluster_size())? {
            Decoded::Whole(bitmap, len) => {
                found.push(bitmap);
                at += len;
            }
            Decoded::Cut(needed) => {
                if needed > end.saturating_sub(at) {
                    let found = extension.directory_size.to_string();
                    let expected = format!("room for {} bitmaps", extension.nb_bitmaps);
                    return Err(field("bitmap_directory_size", found, expected).into());
                }
                let len = PIECE.min(end - at);
                piece = vec![0; usize::try_from(len).expect("no longer than a piece")];
                storage.read_zero_padded(&mut piece, at)?;
                piece_at = at;
            }
        }
    }
    Ok(found)
}

/// Where the directory ends, once it is known to be in the file and not too long.
fn directory_end(
    storage: &dyn Storage,
    extension: BitmapsExtension,
    cluster_size: u64,
) -> Result<u64> {
    let (offset, size) = (extension.directory_offset, extension.directory_size);
    for (field, found, limit) in [
        (
            "nb_bitmaps",
            u64::from(extension.nb_bitmaps),
            u64::from(MAX_BITMAPS),
        ),
        ("bitmap_directory_size", size, MAX_DIRECTORY_BYTES),
    ] {
        if found > limit {
            return Err(Qcow2Error::Limit {
                structure: "bitmaps extension",
                offset: 0,
                field,
                found,
                limit,
            }
            .into());
        }
    }
    let inside = ByteRange::new(offset, size).map(ByteRange::end);
    let file_len = storage.len()?;
    match inside.filter(|end| *end <= file_len && offset.is_multiple_of(cluster_size)) {
        Some(end) => Ok(end),
        None => {
            let expected = format!("clusters of the file, which has {file_len} bytes");
            let found = format!("{offset:#x}, with {size} bytes");
            Err(field("bitmap_directory_offset", found, expected).into())
        }
    }
}

fn field(field: &'static str, found: String, expected: String) -> Qcow2Error {
    Qcow2Error::Field {
        structure: "bitmaps extension",
        offset: 0,
        field,
        found,
        expected: expected.into(),
    }
}
