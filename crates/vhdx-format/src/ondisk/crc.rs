//! CRC-32C with the checksum field itself taken as zero.

/// The checksum of `bytes`, whose own four checksum bytes at `field` count as zeros.
pub(crate) fn checksum(bytes: &[u8], field: usize) -> u32 {
    let head = crc32c::crc32c(&bytes[..field]);
    let zeros = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(zeros, &bytes[field + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_does_not_count() {
        let mut bytes = *b"123456789abc";
        let sum = checksum(&bytes, 4);
        bytes[4..8].copy_from_slice(&[9; 4]);
        assert_eq!(checksum(&bytes, 4), sum);
        bytes[8] ^= 1;
        assert_ne!(checksum(&bytes, 4), sum);
        assert_eq!(
            crc32c::crc32c(b"123456789"),
            0xE306_9283,
            "the published check value"
        );
    }
}
