//! Where a VHDX keeps its metadata and checksums. Written for damaged files: what does not make
//! sense is left alone.

use std::ops::Range;

const KIB: usize = 1 << 10;
const HEADERS: [usize; 2] = [64 * KIB, 128 * KIB];
const HEADER_LEN: usize = 4 * KIB;
const REGION_TABLES: [usize; 2] = [192 * KIB, 256 * KIB];
const REGION_TABLE_LEN: usize = 64 * KIB;
/// No region is of interest further in than this: items of the metadata region start at 64 KiB.
const REGION_LOOK: usize = 65 * KIB + 256;
const LOG_PAGE: usize = 4 * KIB;
/// What the log's ring is searched at most, so that a length out of thin air costs nothing.
const LOG_LOOK: usize = 4 << 20;

/// The byte ranges of a VHDX that hold metadata: identifier, headers, region tables, log, and the
/// beginning of each region.
#[must_use]
pub fn vhdx_metadata_ranges(image: &[u8]) -> Vec<Range<usize>> {
    // Each range is as likely to be picked as the other, whatever its length.
    let mut ranges = Vec::new();
    ranges.push(0..16);
    for at in HEADERS {
        ranges.push(at..at + 80);
    }
    for at in REGION_TABLES {
        ranges.push(at..at + 16 + 3 * 32);
    }
    for n in 0..3 {
        let entry = REGION_TABLES[0] + 16 + 32 * n;
        if let Some(start) = u64_at(image, entry + 16)
            && start > 0
            && start < image.len()
        {
            ranges.push(start..start + 256);
            ranges.push(start..start + REGION_LOOK);
        }
    }
    if let Some(log) = vhdx_log_range(image) {
        ranges.push(log.start..log.start + 64);
        ranges.push(log);
    }
    for range in &mut ranges {
        range.start = range.start.min(image.len());
        range.end = range.end.min(image.len());
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Makes the CRC-32C of both headers, both region tables and every log entry right. Structures
/// whose signature is gone are left as they are.
pub fn fix_vhdx_checksums(image: &mut [u8]) {
    for at in HEADERS {
        fix(image, at, HEADER_LEN, b"head");
    }
    for at in REGION_TABLES {
        fix(image, at, REGION_TABLE_LEN, b"regi");
    }
    if let Some(log) = vhdx_log_range(image) {
        fix_vhdx_log_checksums(&mut image[log]);
    }
}

/// Makes the CRC-32C of every entry of a log's ring right.
pub fn fix_vhdx_log_checksums(ring: &mut [u8]) {
    for at in (0..ring.len()).step_by(LOG_PAGE) {
        fix_log_entry(ring, at);
    }
}

fn u32_at(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at.checked_add(4)?)?;
    let number = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    usize::try_from(number).ok()
}

fn u64_at(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at.checked_add(8)?)?;
    let number = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    usize::try_from(number).ok()
}

/// The log's ring, as the first header that has a signature gives it.
#[must_use]
pub fn vhdx_log_range(image: &[u8]) -> Option<Range<usize>> {
    let header = HEADERS
        .into_iter()
        .find(|&at| image.get(at..at + 4) == Some(b"head"))?;
    let len = u32_at(image, header + 68)?.min(LOG_LOOK);
    let start = u64_at(image, header + 72)?;
    let end = start.checked_add(len)?.min(image.len());
    (start < end).then_some(start..end)
}

/// The checksum covers the structure with its own four bytes taken as zeros.
fn fix(image: &mut [u8], at: usize, len: usize, signature: &[u8; 4]) {
    let Some(structure) = image.get_mut(at..at + len) else {
        return;
    };
    if structure[..4] == *signature {
        structure[4..8].fill(0);
        let sum = crc32c::crc32c(structure);
        structure[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// An entry may wrap around at the end of the ring.
fn fix_log_entry(ring: &mut [u8], at: usize) {
    if ring.get(at..at + 4) != Some(b"loge") {
        return;
    }
    let Some(len) = u32_at(ring, at + 8) else {
        return;
    };
    if len < LOG_PAGE || len > ring.len() || !len.is_multiple_of(LOG_PAGE) {
        return;
    }
    ring[at + 4..at + 8].fill(0);
    let first = len.min(ring.len() - at);
    let sum = crc32c::crc32c(&ring[at..at + first]);
    let sum = crc32c::crc32c_append(sum, &ring[..len - first]);
    ring[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The structures with checksums, and a log of two pages whose one entry wraps around.
    fn skeleton() -> Vec<u8> {
        let mut image = vec![0; 2 << 20];
        for (n, at) in HEADERS.into_iter().enumerate() {
            image[at..at + 4].copy_from_slice(b"head");
            image[at + 8] = u8::try_from(n).unwrap();
            image[at + 68..at + 72].copy_from_slice(&8192u32.to_le_bytes());
            image[at + 72..at + 80].copy_from_slice(&(1u64 << 20).to_le_bytes());
        }
        for at in REGION_TABLES {
            image[at..at + 4].copy_from_slice(b"regi");
        }
        let entry = (1 << 20) + LOG_PAGE;
        image[entry..entry + 4].copy_from_slice(b"loge");
        image[entry + 8..entry + 12].copy_from_slice(&8192u32.to_le_bytes());
        image[1 << 20] = 0xAB;
        image
    }

    #[test]
    fn checksums_cover_their_structures_and_entries_wrap() {
        let mut image = skeleton();
        fix_vhdx_checksums(&mut image);
        for (at, len) in [
            (HEADERS[0], HEADER_LEN),
            (HEADERS[1], HEADER_LEN),
            (REGION_TABLES[0], REGION_TABLE_LEN),
            (REGION_TABLES[1], REGION_TABLE_LEN),
        ] {
            let mut structure = image[at..at + len].to_vec();
            let stored = u32::from_le_bytes(structure[4..8].try_into().unwrap());
            structure[4..8].fill(0);
            assert_eq!(stored, crc32c::crc32c(&structure), "at {at:#x}");
        }
        let log = 1 << 20;
        let mut entry = image[log + LOG_PAGE..log + 2 * LOG_PAGE].to_vec();
        entry.extend_from_slice(&image[log..log + LOG_PAGE]);
        let stored = u32::from_le_bytes(entry[4..8].try_into().unwrap());
        entry[4..8].fill(0);
        assert_eq!(stored, crc32c::crc32c(&entry));
    }

    #[test]
    fn ranges_lie_inside_the_image_whatever_it_says() {
        let mut image = skeleton();
        let entry = REGION_TABLES[0] + 16;
        image[entry + 16..entry + 24].copy_from_slice(&((2u64 << 20) - 10).to_le_bytes());
        for len in [0, 10, 70_000, 200_000, image.len()] {
            let cut = &image[..len];
            for range in vhdx_metadata_ranges(cut) {
                assert!(
                    range.start < range.end && range.end <= len,
                    "{range:?} of {len}"
                );
            }
        }
        assert!(vhdx_metadata_ranges(&image).contains(&(1 << 20..(1 << 20) + 8192)));
    }
}
