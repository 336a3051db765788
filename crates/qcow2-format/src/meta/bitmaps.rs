//! The bitmap directory (qcow2 specification, "Bitmap directory").

use crate::Qcow2Error;
use crate::ondisk::bitmap::RawBitmap;
use crate::ondisk::read;

/// Most bitmaps: what QEMU allows.
pub(crate) const MAX_BITMAPS: u32 = 65_535;
/// Longest name of a bitmap, in bytes.
const MAX_NAME_BYTES: u16 = 1023;
/// Longest extra data of an entry, in bytes: as for snapshots.
const MAX_EXTRA_BYTES: u32 = 1024;
/// Longest directory: what the most bitmaps with the longest entries need.
pub(crate) const MAX_DIRECTORY_BYTES: u64 = 65_535 * 2072;
/// The one type there is: a dirty tracking bitmap.
const DIRTY_TRACKING: u8 = 1;
/// Largest exponent of a granularity.
const MAX_GRANULARITY_BITS: u8 = 63;

const IN_USE: u32 = 1 << 0;
const AUTO: u32 = 1 << 1;
const EXTRA_DATA_COMPATIBLE: u32 = 1 << 2;

/// A bitmap that is kept in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bitmap {
    /// Where its entry lies.
    pub offset: u64,
    /// Name.
    pub name: String,
    /// Where its table lies: a multiple of the cluster size.
    pub table_offset: u64,
    /// Entries of its table.
    pub table_size: u32,
    /// Whoever had it in memory did not store it: its content is out of date.
    pub in_use: bool,
    /// It is kept up to date by whoever writes to the image.
    pub auto: bool,
    /// Whoever does not know its extra data may use it all the same.
    pub extra_data_compatible: bool,
    /// Bytes of extra data, which is not read.
    pub extra_data_size: u32,
    /// Binary logarithm of the bytes of the disk that one bit stands for, 0 to 63.
    pub granularity_bits: u8,
}

impl Bitmap {
    /// Bytes of the disk that one bit stands for.
    #[must_use]
    pub fn granularity(&self) -> u64 {
        1 << self.granularity_bits
    }
}

/// One entry decoded.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// The bitmap, and the length of its entry with padding.
    Whole(Bitmap, u64),
    /// The entry goes on past what is known of the directory: this many bytes are needed.
    Cut(u64),
}

/// Decodes the entry in the first bytes of `known`, which lie at `offset` of the file, in an image
/// with clusters of `cluster_size` bytes.
///
/// # Errors
/// [`Qcow2Error::Field`] with the first field that cannot be, [`Qcow2Error::Limit`].
pub(crate) fn decode(known: &[u8], offset: u64, cluster_size: u64) -> Result<Decoded, Qcow2Error> {
    let field = |field, found: String, expected: &'static str| Qcow2Error::Field {
        structure: "bitmap directory entry",
        offset,
        field,
        found,
        expected: expected.into(),
    };
    let fixed = size_of::<RawBitmap>() as u64;
    let Some(raw) = read::<RawBitmap>(known, 0) else {
        return Ok(Decoded::Cut(fixed));
    };
    let name_size = raw.name_size.get();
    if name_size == 0 || name_size > MAX_NAME_BYTES {
        return Err(field("name_size", name_size.to_string(), "1 to 1023"));
    }
    let table_offset = raw.table_offset.get();
    if table_offset == 0 || !table_offset.is_multiple_of(cluster_size) {
        let expected = "a multiple of the cluster size, and not 0";
        return Err(field(
            "bitmap_table_offset",
            format!("{table_offset:#x}"),
            expected,
        ));
    }
    if raw.kind != DIRTY_TRACKING {
        return Err(field("type", raw.kind.to_string(), "1"));
    }
    if raw.granularity_bits > MAX_GRANULARITY_BITS {
        let found = raw.granularity_bits.to_string();
        return Err(field("granularity_bits", found, "at most 63"));
    }
    let flags = raw.flags.get();
    if flags & !(IN_USE | AUTO | EXTRA_DATA_COMPATIBLE) != 0 {
        return Err(field("flags", format!("{flags:#x}"), "the bits 0 to 2"));
    }
    let extra_data_size = raw.extra_data_size.get();
    if extra_data_size > MAX_EXTRA_BYTES {
        return Err(Qcow2Error::Limit {
            structure: "bitmap directory entry",
            offset,
            field: "extra_data_size",
            found: extra_data_size.into(),
            limit: MAX_EXTRA_BYTES.into(),
        });
    }
    let name_at = fixed + u64::from(extra_data_size);
    let end = name_at + u64::from(name_size);
    let name = usize::try_from(name_at)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(from, to)| known.get(from..to));
    let Some(name) = name else {
        return Ok(Decoded::Cut(end));
    };
    let bitmap = Bitmap {
        offset,
        name: String::from_utf8_lossy(name).into_owned(),
        table_offset,
        table_size: raw.table_size.get(),
        in_use: flags & IN_USE != 0,
        auto: flags & AUTO != 0,
        extra_data_compatible: flags & EXTRA_DATA_COMPATIBLE != 0,
        extra_data_size,
        granularity_bits: raw.granularity_bits,
    };
    Ok(Decoded::Whole(bitmap, end.next_multiple_of(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u64 = 0x1_0000;

    fn entry() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&0x5_0000u64.to_be_bytes());
        bytes.extend_from_slice(&2u32.to_be_bytes());
        bytes.extend_from_slice(&3u32.to_be_bytes());
        bytes.extend_from_slice(&[1, 16, 0, 3]);
        bytes.extend_from_slice(&8u32.to_be_bytes());
        bytes.extend_from_slice(b"extradatbmp\0\0\0\0\0");
        bytes
    }

    #[test]
    fn every_field_is_decoded_and_extra_data_passed_over() {
        let Decoded::Whole(bitmap, len) = decode(&entry(), 0x40, CLUSTER).unwrap() else {
            panic!("it is whole");
        };
        assert_eq!(
            (len, bitmap.offset, bitmap.granularity()),
            (40, 0x40, 65_536)
        );
        assert_eq!((bitmap.name.as_str(), bitmap.extra_data_size), ("bmp", 8));
        assert_eq!((bitmap.table_offset, bitmap.table_size), (0x5_0000, 2));
        assert!(bitmap.in_use && bitmap.auto && !bitmap.extra_data_compatible);
    }

    #[test]
    fn an_entry_cut_short_says_how_much_it_needs() {
        for (len, needed) in [(0, 24), (23, 24), (24, 35), (34, 35)] {
            let cut = decode(&entry()[..len], 0, CLUSTER).unwrap();
            assert!(matches!(cut, Decoded::Cut(n) if n == needed), "{cut:?}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_is_named() {
        let damages: [(usize, u8, &str); 7] = [
            (20, 255, "extra_data_size"),
            (19, 0, "name_size"),
            (18, 4, "name_size"),
            (6, 2, "bitmap_table_offset"),
            (16, 2, "type"),
            (17, 64, "granularity_bits"),
            (15, 8, "flags"),
        ];
        for (at, value, named) in damages {
            let mut bytes = entry();
            bytes[at] = value;
            let error = decode(&bytes, 0, CLUSTER).unwrap_err();
            assert!(error.to_string().starts_with(named), "{error}");
        }
    }
}
