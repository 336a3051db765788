//! Replies: simple ones, and chunks of structured ones.

use super::errno::Errno;
use super::fields::Fields;
use super::flags::DONE;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Length of a simple reply; what was read follows it.
pub(crate) const SIMPLE_BYTES: usize = 16;
/// Length of a chunk's head; its payload follows it.
pub(crate) const CHUNK_HEAD_BYTES: usize = 20;
const _: () = assert!(SIMPLE_BYTES == 4 + 4 + 8);
const _: () = assert!(CHUNK_HEAD_BYTES == 4 + 2 + 2 + 8 + 4);

pub(crate) const NONE: u16 = 0;
pub(crate) const OFFSET_DATA: u16 = 1;
pub(crate) const OFFSET_HOLE: u16 = 2;
pub(crate) const BLOCK_STATUS: u16 = 5;
/// Set in the types of errors, also of those that nobody knows yet.
pub(crate) const ERROR_BIT: u16 = 1 << 15;
const ERROR: u16 = ERROR_BIT + 1;
const ERROR_OFFSET: u16 = ERROR_BIT + 2;

/// Longest message of an error chunk, in bytes.
pub(crate) const MESSAGE_BYTES: usize = 1024;

/// A simple reply without data.
pub(crate) fn simple(error: Option<Errno>, cookie: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIMPLE_BYTES);
    bytes.extend(SIMPLE_MAGIC.to_be_bytes());
    bytes.extend(error.map_or(0, Errno::code).to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes
}

/// What a reply, or a part of one, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    /// All of a reply; its error, 0 for none.
    Simple(u32),
    /// A chunk, whose length follows its head's first bytes.
    Chunk { last: bool, kind: u16 },
}

/// The first bytes of a reply, and the cookie that is theirs. `None` without either magic.
pub(crate) fn decode_head(bytes: &[u8; SIMPLE_BYTES]) -> Option<(ReplyKind, u64)> {
    let mut fields = Fields(bytes);
    let kind = match fields.u32()? {
        SIMPLE_MAGIC => ReplyKind::Simple(fields.u32()?),
        CHUNK_MAGIC => ReplyKind::Chunk {
            last: fields.u16()? & DONE != 0,
            kind: fields.u16()?,
        },
        _ => return None,
    };
    Some((kind, fields.u64()?))
}

fn chunk(last: bool, kind: u16, cookie: u64, payload: usize) -> Vec<u8> {
    let payload = u32::try_from(payload).expect("a chunk is no longer than the longest request");
    let mut bytes = Vec::with_capacity(CHUNK_HEAD_BYTES + 16);
    bytes.extend(CHUNK_MAGIC.to_be_bytes());
    bytes.extend((if last { DONE } else { 0 }).to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(payload.to_be_bytes());
    bytes
}

/// The whole of a reply that has nothing to say.
pub(crate) fn none(cookie: u64) -> Vec<u8> {
    chunk(true, NONE, cookie, 0)
}

/// The head of a chunk that `len` bytes of data follow, which stand at byte `offset` of the disk.
pub(crate) fn data(last: bool, cookie: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = chunk(last, OFFSET_DATA, cookie, 8 + len);
    bytes.extend(offset.to_be_bytes());
    bytes
}

/// A chunk that says that `len` bytes from `offset` are zeros.
pub(crate) fn hole(last: bool, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = chunk(last, OFFSET_HOLE, cookie, 12);
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// A chunk with the descriptors of one context: lengths in bytes, each with its flags.
pub(crate) fn block_status(last: bool, cookie: u64, context: u32, runs: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = chunk(last, BLOCK_STATUS, cookie, 4 + 8 * runs.len());
    bytes.extend(context.to_be_bytes());
    for (len, flags) in runs {
        bytes.extend(len.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
    }
    bytes
}

/// The whole of a reply that says what went wrong, and at which byte if that is known.
pub(crate) fn error(cookie: u64, error: Errno, message: &str, offset: Option<u64>) -> Vec<u8> {
    let message = cut(message, MESSAGE_BYTES);
    let len = u16::try_from(message.len()).expect("it was cut");
    let (kind, more) = match offset {
        Some(_) => (ERROR_OFFSET, 8),
        None => (ERROR, 0),
    };
    let mut bytes = chunk(true, kind, cookie, 6 + message.len() + more);
    bytes.extend(error.code().to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(message.as_bytes());
    if let Some(offset) = offset {
        bytes.extend(offset.to_be_bytes());
    }
    bytes
}

/// As much of `text` as fits into `len` bytes, in whole characters.
fn cut(text: &str, len: usize) -> &str {
    if text.len() <= len {
        return text;
    }
    let end = (0..=len).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length that a chunk says its payload has, and the one it has.
    fn lengths(chunk: &[u8], data: usize) -> (usize, usize) {
        let said = u32::from_be_bytes(chunk[16..20].try_into().unwrap());
        (said as usize, chunk.len() - CHUNK_HEAD_BYTES + data)
    }

    #[test]
    fn every_chunk_is_as_long_as_it_says() {
        let long = "ä".repeat(1000);
        for (chunk, data) in [
            (none(1), 0),
            (data(true, 1, 2, 3), 3),
            (hole(false, 1, 2, 3), 0),
            (block_status(true, 1, 2, &[(3, 4), (5, 6)]), 0),
            (error(1, Errno::Io, &long, None), 0),
            (error(1, Errno::Io, "x", Some(7)), 0),
        ] {
            let (said, is) = lengths(&chunk, data);
            assert_eq!(said, is);
            assert_eq!(chunk[8..16], 1u64.to_be_bytes());
        }
    }

    #[test]
    fn a_head_is_read_as_it_was_made() {
        let mut bytes: [u8; SIMPLE_BYTES] = simple(Some(Errno::NoSpace), 9).try_into().unwrap();
        assert_eq!(decode_head(&bytes), Some((ReplyKind::Simple(28), 9)));
        bytes[0] ^= 1;
        assert_eq!(decode_head(&bytes), None);
        let chunk = hole(true, 8, 1, 2);
        let head = decode_head(chunk[..SIMPLE_BYTES].try_into().unwrap());
        let kind = ReplyKind::Chunk {
            last: true,
            kind: OFFSET_HOLE,
        };
        assert_eq!(head, Some((kind, 8)));
    }

    #[test]
    fn only_the_last_chunk_is_said_to_be_it() {
        assert_eq!(data(false, 1, 2, 3)[4..8], [0, 0, 0, 1]);
        assert_eq!(data(true, 1, 2, 3)[4..8], [0, 1, 0, 1]);
        assert_eq!(error(1, Errno::Io, "", Some(1))[4..8], [0, 1, 0x80, 2]);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(cut("aää", 4), "aä");
        assert_eq!(cut("aä", 3), "aä");
    }
}
