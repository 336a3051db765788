//! Requests ("Request message").

use super::fields::Fields;

/// Length of a request's head; what is written follows it.
pub(crate) const REQUEST_BYTES: usize = 28;
const _: () = assert!(REQUEST_BYTES == 4 + 2 + 2 + 8 + 8 + 4);

const MAGIC: u32 = 0x2560_9513;

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

/// The fields of a request, not yet judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    /// The client's own number, for the reply. (The text calls it a handle, or a cookie.)
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl RequestHead {
    /// `None` without the magic.
    pub(crate) fn decode(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != MAGIC {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            kind: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: fields.u32()?,
        })
    }

    pub(crate) fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.kind.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_text_says() {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[5] = 1;
        bytes[7] = 6;
        bytes[15] = 9;
        bytes[23] = 8;
        bytes[27] = 7;
        let head = RequestHead {
            flags: 1,
            kind: WRITE_ZEROES,
            cookie: 9,
            offset: 8,
            len: 7,
        };
        assert_eq!(RequestHead::decode(&bytes), Some(head));
        assert_eq!(head.encode(), bytes);
        bytes[3] ^= 1;
        assert_eq!(RequestHead::decode(&bytes), None);
    }
}
