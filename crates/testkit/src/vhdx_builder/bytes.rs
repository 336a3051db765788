//! Small helpers for little-endian structures and checked sizes.

/// One mebibyte, the alignment of every large structure ([MS-VHDX] §2.1).
pub(super) const MIB: u64 = 1 << 20;

/// Copies `bytes` into `buf` at `at`.
pub(super) fn put(buf: &mut [u8], at: usize, bytes: &[u8]) {
    buf[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A byte count or position as an index into memory.
pub(super) fn to_index(n: u64) -> usize {
    usize::try_from(n).expect("test images are built on 64-bit hosts")
}

/// A position or length that the format stores in 32 bits.
pub(super) fn to_u32(n: u64) -> u32 {
    u32::try_from(n).expect("the builder keeps this value below 4 GiB")
}

/// Stores the CRC-32C of `buf` in its bytes 4 to 7, taken with those bytes zero.
///
/// Headers, region tables and log entries all keep their checksum there
/// ([MS-VHDX] §2.2.2, §2.2.3.1, §2.3.1.1).
pub(super) fn seal(buf: &mut [u8]) {
    put(buf, 4, &[0; 4]);
    let crc = crc32c::crc32c(buf);
    put(buf, 4, &crc.to_le_bytes());
}

/// `units` as UTF-16LE bytes.
pub(super) fn utf16_le(units: &[u16]) -> Vec<u8> {
    units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seal_is_crc32c_with_the_field_zero() {
        let mut buf = *b"loge\xff\xff\xff\xff tail";
        seal(&mut buf);
        let expected = crc32c::crc32c(b"loge\0\0\0\0 tail");
        assert_eq!(buf[4..8], expected.to_le_bytes());
        // The check value of CRC-32C (Castagnoli), so that another CRC-32 is noticed.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }
}
