//! The first bytes of a connection ("Newstyle negotiation").

use super::fields::Fields;
use super::flags::handshake::{FIXED_NEWSTYLE, NO_ZEROES};

/// `NBDMAGIC`
const GREETING_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
/// `IHAVEOPT`: the server can do newstyle; later the head of each option.
pub(crate) const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// Length of what the server says first.
pub(crate) const GREETING_BYTES: usize = 18;
/// Length of the client's flags.
pub(crate) const CLIENT_FLAGS_BYTES: usize = 4;
/// Zeros after the answer to `EXPORT_NAME`, for clients that want them.
const RESERVED_BYTES: usize = 124;

/// What the server says first.
pub(crate) fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[..8].copy_from_slice(&GREETING_MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    bytes[16..].copy_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    bytes
}

/// The handshake flags of a server that can do newstyle.
pub(crate) fn decode_greeting(bytes: &[u8; GREETING_BYTES]) -> Option<u16> {
    let mut fields = Fields(bytes);
    match (fields.u64()?, fields.u64()?) {
        (GREETING_MAGIC, OPTION_MAGIC) => fields.u16(),
        _ => None,
    }
}

/// The answer to `EXPORT_NAME`, which is not framed as other answers are.
pub(crate) fn export_facts(size: u64, flags: u16, no_zeroes: bool) -> Vec<u8> {
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    if !no_zeroes {
        bytes.resize(bytes.len() + RESERVED_BYTES, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_has_the_numbers_of_the_text() {
        assert_eq!(GREETING_MAGIC, 0x4e42_444d_4147_4943);
        assert_eq!(OPTION_MAGIC, 0x4948_4156_454f_5054);
        assert_eq!(greeting()[16..], [0, 3]);
        assert_eq!(decode_greeting(&greeting()), Some(3));
        assert_eq!(
            decode_greeting(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0"),
            None,
            "oldstyle"
        );
    }

    #[test]
    fn zeros_follow_only_where_they_are_wanted() {
        assert_eq!(export_facts(5, 1, true), [0, 0, 0, 0, 0, 0, 0, 5, 0, 1]);
        assert_eq!(export_facts(5, 1, false).len(), 10 + 124);
    }
}
