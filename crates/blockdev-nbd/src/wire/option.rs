//! Options and their replies ("Fixed newstyle negotiation").

use super::fields::Fields;
use super::handshake::OPTION_MAGIC;

/// Head of an option: magic, number, length of its data.
pub(crate) const OPTION_HEAD_BYTES: usize = 16;
const _: () = assert!(OPTION_HEAD_BYTES == 8 + 4 + 4);

/// Head of a reply: magic, the option, type, length of its data.
pub(crate) const REPLY_HEAD_BYTES: usize = 20;
const _: () = assert!(REPLY_HEAD_BYTES == 8 + 4 + 4 + 4);

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

pub(crate) const EXPORT_NAME: u32 = 1;
pub(crate) const ABORT: u32 = 2;
pub(crate) const LIST: u32 = 3;
pub(crate) const STARTTLS: u32 = 5;
pub(crate) const INFO: u32 = 6;
pub(crate) const GO: u32 = 7;
pub(crate) const STRUCTURED_REPLY: u32 = 8;
// The text had 10 and 11 once; these are what libnbd 1.14 and QEMU 10.0 send.
pub(crate) const LIST_META_CONTEXT: u32 = 9;
pub(crate) const SET_META_CONTEXT: u32 = 10;
pub(crate) const EXTENDED_HEADERS: u32 = 11;

/// Types of replies; those with the top bit are errors.
pub(crate) mod kind {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    pub(crate) const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub(crate) const ERR_POLICY: u32 = (1 << 31) + 2;
    pub(crate) const ERR_INVALID: u32 = (1 << 31) + 3;
    pub(crate) const ERR_TLS_REQD: u32 = (1 << 31) + 5;
    pub(crate) const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub(crate) const ERR_SHUTDOWN: u32 = (1 << 31) + 7;
    pub(crate) const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// The number and the length of data of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionHead {
    pub(crate) option: u32,
    pub(crate) len: u32,
}

impl OptionHead {
    /// `None` without the magic.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u64()? != OPTION_MAGIC {
            return None;
        }
        Some(Self {
            option: fields.u32()?,
            len: fields.u32()?,
        })
    }
}

/// Appends to `out` an option.
pub(crate) fn put_option(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    let len = u32::try_from(data.len()).expect("options are short");
    out.extend(OPTION_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(data);
}

/// The type and the length of data of a reply to `option`; `None` of what is no such reply.
pub(crate) fn decode_reply(bytes: &[u8; REPLY_HEAD_BYTES], option: u32) -> Option<(u32, u32)> {
    let mut fields = Fields(bytes);
    match (fields.u64()?, fields.u32()?) {
        (REPLY_MAGIC, of) if of == option => Some((fields.u32()?, fields.u32()?)),
        _ => None,
    }
}

/// Appends to `out` a reply of type `kind` to `option`.
pub(crate) fn put_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    let len = u32::try_from(data.len()).expect("replies to options are short");
    out.extend(REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(data);
}

/// The data of a reply that names an export.
pub(crate) fn server(name: &str, description: &str) -> Vec<u8> {
    let len = u32::try_from(name.len()).expect("names of exports are short");
    let mut data = len.to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend(description.as_bytes());
    data
}

/// The data of a reply that names a context.
pub(crate) fn meta_context(id: u32, name: &str) -> Vec<u8> {
    let mut data = id.to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_without_the_magic_is_none() {
        let mut bytes = *b"IHAVEOPT\0\0\0\x07\0\0\0\x09";
        let head = OptionHead { option: 7, len: 9 };
        assert_eq!(OptionHead::decode(&bytes), Some(head));
        bytes[0] ^= 1;
        assert_eq!(OptionHead::decode(&bytes), None);
        assert_eq!(OptionHead::decode(&bytes[..15]), None);
    }

    #[test]
    fn an_option_is_read_as_it_was_put() {
        let mut out = Vec::new();
        put_option(&mut out, GO, b"data");
        let head = OptionHead { option: GO, len: 4 };
        assert_eq!(OptionHead::decode(&out[..OPTION_HEAD_BYTES]), Some(head));
        assert_eq!(out[OPTION_HEAD_BYTES..], *b"data");
    }

    #[test]
    fn a_reply_is_framed_by_its_length() {
        let mut out = Vec::new();
        put_reply(&mut out, 7, kind::ERR_UNKNOWN, b"no");
        let head: [u8; REPLY_HEAD_BYTES] = out[..REPLY_HEAD_BYTES].try_into().unwrap();
        assert_eq!(decode_reply(&head, 7), Some((kind::ERR_UNKNOWN, 2)));
        assert_eq!(decode_reply(&head, 6), None, "of another option");
        assert_eq!(out[..8], [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]);
        assert_eq!(
            out[8..],
            [0, 0, 0, 7, 0x80, 0, 0, 6, 0, 0, 0, 2, b'n', b'o']
        );
    }
}
