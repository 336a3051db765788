//! By what a child knows its parent again when the parent's format keeps no identity of the content.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{ContentId, FileRole, HostFile, Layer, Result};

/// A fingerprint of the file that `layer` is in: it changes when the image is written to, though not
/// one byte of it is read. `None` where there is none to be had: what is in no regular file of the
/// host keeps no time of its changes, and of an image whose content is in a second file (an external
/// data file) the first tells nothing.
///
/// It is the 128-bit FNV-1a hash of these bytes, one after the other, stored big-endian and marked as
/// a UUID of version 8:
///
/// | bytes | of |
/// | --- | --- |
/// | the format's name, then a zero byte | [`DeviceInfo::format`](crate::DeviceInfo::format) |
/// | 8, little-endian | virtual size in bytes |
/// | 8, little-endian | length of the file in bytes |
/// | 16, little-endian, signed | time of the last modification, in nanoseconds since 1970 |
///
/// So it sees whoever writes to the file, also one that wrote what was there already; a copy of the
/// file is another file, unless the copy keeps the time. It does not see changes within one tick of
/// the host's clock, changes of files *below* the image, nor those of someone who sets the time back:
/// it guards against mistakes, not against malice.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when the host cannot tell about the file.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use blockdev_core::{MemoryStorage, RawLayer, file_fingerprint};
///
/// let in_memory = RawLayer::open(Arc::new(MemoryStorage::from(vec![0; 512])))?;
/// assert_eq!(file_fingerprint(&in_memory)?, None);
/// # Ok::<(), blockdev_core::Error>(())
/// ```
pub fn file_fingerprint(layer: &dyn Layer) -> Result<Option<ContentId>> {
    let elsewhere = layer
        .file_refs()
        .iter()
        .any(|reference| reference.role == FileRole::Data);
    let host = layer.host(HostFile::Image);
    let Some(file) = host.and_then(|storage| storage.as_file()) else {
        return Ok(None);
    };
    let metadata = file.metadata()?;
    if elsewhere || !metadata.is_file() {
        return Ok(None);
    }
    let info = layer.info();
    Ok(Some(fingerprint(
        info.format,
        info.size,
        metadata.len(),
        nanoseconds(metadata.modified()?),
    )))
}

/// Nanoseconds since 1970, less than none before it.
fn nanoseconds(time: SystemTime) -> i128 {
    let signed = |nanos: u128| i128::try_from(nanos).expect("2^64 seconds in nanoseconds");
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => signed(since.as_nanos()),
        Err(before) => -signed(before.duration().as_nanos()),
    }
}

fn fingerprint(format: &str, virtual_size: u64, file_len: u64, modified: i128) -> ContentId {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = (1 << 88) + 0x13b;
    // A hash has no version: 8 is for what fits none of the others (RFC 9562).
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bytes = format
        .bytes()
        .chain([0])
        .chain(virtual_size.to_le_bytes())
        .chain(file_len.to_le_bytes())
        .chain(modified.to_le_bytes());
    let hash = bytes.fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    let marked = hash & !VERSION & !VARIANT | 8 << 76 | 0b10 << 62;
    ContentId(marked.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::{FileOptions, FileStorage, RawLayer, ReadOnlyStorage};

    #[test]
    fn it_is_the_documented_hash_of_the_documented_bytes() {
        // Worked out by another program, from the text above.
        let known = fingerprint("raw", 1 << 20, 1 << 20, 1_700_000_000_123_456_789);
        assert_eq!(known.to_string(), "269ae06f-8027-80e6-91b3-eef66e92d8f3");
        let before_1970 = fingerprint("qcow2", 64 << 30, 196_616, -1);
        assert_eq!(
            before_1970.to_string(),
            "fbb4a442-1297-8537-bc4e-995984b2bed2"
        );
    }

    #[test]
    fn whatever_of_the_file_changes_changes_it() {
        let same = ("raw", 512, 1024, 5);
        let print = |(format, size, len, time)| fingerprint(format, size, len, time);
        for other in [
            ("ra", 512, 1024, 5),
            ("raw", 513, 1024, 5),
            ("raw", 512, 1025, 5),
            ("raw", 512, 1024, 6),
            ("raw", 1024, 512, 5),
        ] {
            assert_ne!(print(same), print(other));
        }
    }

    #[test]
    fn a_file_has_one_through_any_handle_and_another_once_it_is_touched() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, [1; 4096]).unwrap();
        let file = || FileStorage::open(&path, FileOptions::read_only()).unwrap();
        let plain = || file_fingerprint(&RawLayer::open(Arc::new(file())).unwrap()).unwrap();
        let first = plain().unwrap();
        let shielded = ReadOnlyStorage::new(Arc::new(file()));
        let shielded = RawLayer::open(Arc::new(shielded)).unwrap();
        assert_eq!(file_fingerprint(&shielded).unwrap(), Some(first));
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let touched = FileTimes::new().set_modified(modified + Duration::from_nanos(1000));
        let handle = File::options().write(true).open(&path).unwrap();
        handle.set_times(touched).unwrap();
        assert_ne!(plain().unwrap(), first);
        handle
            .set_times(FileTimes::new().set_modified(modified))
            .unwrap();
        assert_eq!(
            plain().unwrap(),
            first,
            "a copy that keeps the time is the same"
        );
    }
}
