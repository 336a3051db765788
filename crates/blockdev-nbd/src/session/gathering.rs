//! What a client makes of a reply, in one piece or in chunks.

use std::io::{self, Read};

use super::agreement::{nonsense, shown};
use super::facts::Facts;
use crate::wire::fields::Fields;
use crate::wire::reply::{self, ERROR_BIT, MESSAGE_BYTES, ReplyKind, SIMPLE_BYTES, decode_head};
use crate::wire::request::{self, RequestHead};

/// Most error chunks of one reply.
const MOST_ERRORS: usize = 64;
/// Longest text of an error, in bytes: the protocol's longest string.
const MOST_TEXT: usize = 4096;
const _: () = assert!(MESSAGE_BYTES <= MOST_TEXT);
/// Most descriptors of one chunk of status.
const MOST_RUNS: u32 = 1024;
/// Most ranges apart from each other that what came of a read may lie in. Servers send in order, or a few
/// pieces side by side.
const MOST_RANGES: usize = 4096;

/// An error that a server tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Never 0.
    pub(crate) code: u32,
    pub(crate) text: String,
}

/// A reply that makes sense.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) failure: Option<Failure>,
    /// Length in bytes, at least one, and flags of the first run of a status.
    pub(crate) status: Option<(u32, u32)>,
}

/// The ranges of a read that have come, in order, none touching the next.
#[derive(Debug, Default)]
struct Come(Vec<(usize, usize)>);

impl Come {
    /// False when some of it has come already, or there are too many pieces.
    fn add(&mut self, start: usize, end: usize) -> bool {
        let at = self.0.partition_point(|range| range.1 < start);
        let next = self.0.get(at).copied();
        match next {
            // Touches the one before it, and perhaps the one after it too.
            Some((first, last)) if last == start => {
                let after = self.0.get(at + 1).copied();
                match after {
                    Some((begin, _)) if begin < end => return false,
                    Some((begin, stop)) if begin == end => {
                        self.0[at] = (first, stop);
                        self.0.remove(at + 1);
                    }
                    _ => self.0[at] = (first, end),
                }
            }
            Some((first, _)) if first < end => return false,
            Some((first, last)) if first == end => self.0[at] = (start, last),
            _ => self.0.insert(at, (start, end)),
        }
        self.0.len() <= MOST_RANGES
    }

    fn is_all_of(&self, len: usize) -> bool {
        len == 0 || self.0 == [(0, len)]
    }
}

/// The first bytes of a reply, or of a chunk of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of the request that it answers.
    pub(crate) cookie: u64,
    kind: ReplyKind,
}

impl Head {
    /// Reads the next one.
    ///
    /// # Errors
    /// When it is none. The connection is of no use then.
    pub(crate) fn next(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; SIMPLE_BYTES];
        from.read_exact(&mut head)?;
        let (kind, cookie) = decode_head(&head).ok_or_else(|| nonsense("not a reply"))?;
        Ok(Self { cookie, kind })
    }
}

/// The reply to a request, as far as it has come. Chunks of other replies may come between its own.
#[derive(Debug)]
pub(crate) struct Gathering {
    asked: RequestHead,
    reply: Reply,
    come: Come,
    errors: usize,
    begun: bool,
}

impl Gathering {
    /// Nothing yet of the reply to `asked`.
    pub(crate) fn new(asked: RequestHead) -> Self {
        Self {
            asked,
            reply: Reply::default(),
            come: Come::default(),
            errors: 0,
            begun: false,
        }
    }

    /// Reads what follows `head`, which is of this reply, and puts what was read in its place in `into`,
    /// which is as long as what was asked for. True when the reply is whole.
    ///
    /// # Errors
    /// When it is not one to what was asked, or ends early. The connection is of no use then.
    pub(crate) fn take(
        &mut self,
        head: Head,
        from: &mut impl Read,
        facts: &Facts,
        into: &mut [u8],
    ) -> io::Result<bool> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        let (last, kind) = match head.kind {
            ReplyKind::Simple(error) if is_first => {
                self.reply = simple(from, error, &self.asked, facts, into)?;
                return Ok(true);
            }
            ReplyKind::Chunk { last, kind } if facts.structured => (last, kind),
            _ => return Err(nonsense("a reply of the kind that was not agreed on")),
        };
        self.chunk(last, kind, from, facts, into)?;
        if last && !self.is_whole(into.len()) {
            return Err(nonsense("a reply without all that was asked"));
        }
        Ok(last)
    }

    /// What came, when that is all of it.
    pub(crate) fn into_reply(self) -> Reply {
        self.reply
    }

    fn chunk(
        &mut self,
        last: bool,
        kind: u16,
        from: &mut impl Read,
        facts: &Facts,
        into: &mut [u8],
    ) -> io::Result<()> {
        let asked = &self.asked;
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len);
        match kind {
            reply::NONE if last && len == 0 => {}
            reply::OFFSET_DATA if asked.kind == request::READ && len > 8 => {
                let (start, end) = place(from, asked, len - 8, &mut self.come)?;
                from.read_exact(&mut into[start..end])?;
            }
            reply::OFFSET_HOLE if asked.kind == request::READ && len == 12 => {
                hole(from, asked, &mut self.come, into)?;
            }
            reply::BLOCK_STATUS if asked.kind == request::BLOCK_STATUS => {
                if self.reply.status.is_some() {
                    return Err(nonsense("a status twice"));
                }
                self.reply.status = Some(status(from, len, facts)?);
            }
            kind if kind & ERROR_BIT != 0 && self.errors < MOST_ERRORS => {
                self.errors += 1;
                let failure = failure(from, len)?;
                self.reply.failure.get_or_insert(failure);
            }
            _ => return Err(nonsense("a chunk that nobody asked for")),
        }
        Ok(())
    }

    fn is_whole(&self, len: usize) -> bool {
        self.reply.failure.is_some()
            || match self.asked.kind {
                request::READ => self.come.is_all_of(len),
                request::BLOCK_STATUS => self.reply.status.is_some(),
                _ => true,
            }
    }
}

fn simple(
    from: &mut impl Read,
    code: u32,
    asked: &RequestHead,
    facts: &Facts,
    into: &mut [u8],
) -> io::Result<Reply> {
    if code != 0 {
        let text = String::new();
        return Ok(Reply {
            failure: Some(Failure { code, text }),
            status: None,
        });
    }
    let in_chunks = facts.structured && asked.kind == request::READ;
    if in_chunks || asked.kind == request::BLOCK_STATUS {
        return Err(nonsense("a reply of the kind that was not agreed on"));
    }
    from.read_exact(into)?;
    Ok(Reply::default())
}

/// Where in the read `len` bytes belong, of which the offset comes next.
fn place(
    from: &mut impl Read,
    asked: &RequestHead,
    len: u32,
    come: &mut Come,
) -> io::Result<(usize, usize)> {
    let mut offset = [0; 8];
    from.read_exact(&mut offset)?;
    located(u64::from_be_bytes(offset), len, asked, come)
        .ok_or_else(|| nonsense("a chunk of what was not read, or was already"))
}

fn located(offset: u64, len: u32, asked: &RequestHead, come: &mut Come) -> Option<(usize, usize)> {
    let start = offset.checked_sub(asked.offset)?;
    let end = start.checked_add(u64::from(len))?;
    if len == 0 || end > u64::from(asked.len) {
        return None;
    }
    let range = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    come.add(range.0, range.1).then_some(range)
}

fn hole(
    from: &mut impl Read,
    asked: &RequestHead,
    come: &mut Come,
    into: &mut [u8],
) -> io::Result<()> {
    let mut payload = [0; 12];
    from.read_exact(&mut payload)?;
    let mut fields = Fields(&payload);
    let range = match (fields.u64(), fields.u32()) {
        (Some(offset), Some(len)) => located(offset, len, asked, come),
        _ => None,
    };
    let (start, end) =
        range.ok_or_else(|| nonsense("a hole in what was not read, or was already"))?;
    into[start..end].fill(0);
    Ok(())
}

/// The first run of a chunk of status.
fn status(from: &mut impl Read, len: u32, facts: &Facts) -> io::Result<(u32, u32)> {
    if len < 12 || len % 8 != 4 || len / 8 > MOST_RUNS {
        return Err(nonsense("a status of a length that none has"));
    }
    let mut payload = vec![0; len as usize];
    from.read_exact(&mut payload)?;
    let mut fields = Fields(&payload);
    let context = fields.u32();
    if context.is_none() || context != facts.context {
        return Err(nonsense("a status of another context"));
    }
    match (fields.u32(), fields.u32()) {
        (Some(len), Some(flags)) if len > 0 => Ok((len, flags)),
        _ => Err(nonsense("a status of nothing")),
    }
}

fn failure(from: &mut impl Read, len: u32) -> io::Result<Failure> {
    // Its number, the length of its text, its text, and perhaps an offset.
    if len < 6 || len as usize > 6 + MOST_TEXT + 8 {
        return Err(nonsense("an error of a length that none has"));
    }
    let mut payload = vec![0; len as usize];
    from.read_exact(&mut payload)?;
    let mut fields = Fields(&payload);
    let (code, len) = (fields.u32(), fields.u16());
    let text = len.and_then(|len| fields.0.get(..usize::from(len)));
    match (code, text) {
        (Some(code), Some(text)) if code != 0 => Ok(Failure {
            code,
            text: shown(text),
        }),
        _ => Err(nonsense("an error that is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::errno::Errno;

    const AT: u64 = 1000;

    fn asked(kind: u16) -> RequestHead {
        RequestHead {
            flags: 0,
            kind,
            cookie: 5,
            offset: AT,
            len: 8,
        }
    }

    fn facts(structured: bool) -> Facts {
        let mut facts = Facts::unknown();
        facts.structured = structured;
        facts.context = structured.then_some(3);
        facts
    }

    /// The whole of a reply, and of no other.
    fn gather(
        from: &mut impl Read,
        asked: &RequestHead,
        facts: &Facts,
        into: &mut [u8],
    ) -> io::Result<Reply> {
        let mut gathering = Gathering::new(*asked);
        loop {
            let head = Head::next(from)?;
            if head.cookie != asked.cookie {
                return Err(nonsense("the reply to something else"));
            }
            if gathering.take(head, from, facts, into)? {
                return Ok(gathering.into_reply());
            }
        }
    }

    fn read(said: &[u8], structured: bool) -> io::Result<(Reply, [u8; 8])> {
        let mut into = [0xee; 8];
        let reply = gather(
            &mut &said[..],
            &asked(request::READ),
            &facts(structured),
            &mut into,
        )?;
        Ok((reply, into))
    }

    fn data(last: bool, offset: u64, bytes: &[u8]) -> Vec<u8> {
        let mut out = reply::data(last, 5, offset, bytes.len());
        out.extend(bytes);
        out
    }

    fn status_of(said: &[u8]) -> io::Result<Reply> {
        let asked = asked(request::BLOCK_STATUS);
        gather(&mut &said[..], &asked, &facts(true), &mut [])
    }

    #[test]
    fn chunks_in_any_order_make_what_was_read() {
        let said = [
            data(false, AT + 6, &[7, 8]),
            reply::hole(false, 5, AT + 2, 4),
            data(false, AT, &[1, 2]),
            reply::none(5),
        ]
        .concat();
        let (reply, into) = read(&said, true).unwrap();
        assert_eq!((reply, into), (Reply::default(), [1, 2, 0, 0, 0, 0, 7, 8]));
        for len in 0..said.len() {
            assert!(read(&said[..len], true).is_err(), "{len} bytes");
        }
    }

    /// Bytes that no server sent stood in the buffer as if it had.
    #[test]
    fn chunks_that_miss_overlap_or_reach_beyond_are_refused() {
        for said in [
            reply::none(5),
            data(true, AT, &[1; 7]),
            data(true, AT + 1, &[1; 7]),
            data(true, AT, &[1; 9]),
            data(true, AT - 1, &[1; 8]),
            data(true, u64::MAX, &[1; 8]),
            data(true, AT, &[]),
            reply::hole(true, 5, AT, u32::MAX),
            reply::hole(true, 5, AT, 0),
            [data(false, AT, &[1; 5]), data(true, AT + 4, &[1; 4])].concat(),
            [data(false, AT + 4, &[1; 4]), data(true, AT, &[1; 5])].concat(),
            [data(false, AT, &[1; 8]), data(true, AT + 2, &[1; 2])].concat(),
            [
                data(false, AT, &[1; 2]),
                data(false, AT + 4, &[1; 4]),
                data(true, AT + 2, &[1; 3]),
            ]
            .concat(),
            reply::block_status(true, 5, 3, &[(8, 0)]),
            reply::simple(None, 5).into_iter().chain([1; 8]).collect(),
        ] {
            let error = read(&said, true).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{said:?}");
        }
    }

    #[test]
    fn an_error_is_told_after_the_last_chunk_only() {
        let said = [
            data(false, AT, &[1; 4]),
            reply::error(5, Errno::NoSpace, "full\x1b", None),
        ]
        .concat();
        let (reply, _) = read(&said, true).unwrap();
        let failure = reply.failure.unwrap();
        assert_eq!((failure.code, &failure.text[..]), (28, "full\\u{1b}"));
        let mut endless = reply::error(5, Errno::Io, "", Some(7));
        endless[5] = 0;
        assert!(read(&endless.repeat(100), true).is_err());
        let mut none = reply::error(5, Errno::Io, "", None);
        none[20..24].fill(0);
        assert!(read(&none, true).is_err(), "an error of number 0");
    }

    #[test]
    fn a_reply_to_something_else_is_refused() {
        let good: Vec<u8> = reply::simple(None, 5).into_iter().chain([9; 8]).collect();
        assert_eq!(read(&good, false).unwrap().1, [9; 8]);
        assert!(read(&good[..23], false).is_err());
        assert!(
            read(&data(true, AT, &[9; 8]), false).is_err(),
            "not agreed on"
        );
        let mut other = good;
        other[15] = 6;
        assert!(read(&other, false).is_err(), "of another request");
        let failed = read(&reply::simple(Some(Errno::Io), 5), true).unwrap();
        assert_eq!(failed.0.failure.unwrap().code, 5);
    }

    #[test]
    fn a_status_is_of_the_context_that_was_asked_for() {
        let told = status_of(&reply::block_status(true, 5, 3, &[(4, 1), (4, 0)])).unwrap();
        assert_eq!(told.status, Some((4, 1)));
        let many = vec![(1, 0); 2000];
        for said in [
            reply::block_status(true, 5, 4, &[(8, 0)]),
            reply::block_status(true, 5, 3, &[(0, 0)]),
            reply::block_status(true, 5, 3, &[]),
            reply::block_status(true, 5, 3, &many),
            reply::block_status(false, 5, 3, &[(8, 0)]).repeat(2),
            reply::none(5),
            reply::simple(None, 5),
        ] {
            let error = status_of(&said).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{said:?}");
        }
    }

    /// Each byte of a reply changed: an error, or all that was asked and nothing that was not sent.
    #[test]
    fn a_reply_with_any_byte_wrong_never_leaves_a_gap() {
        let said = [
            data(false, AT, &[1, 2]),
            reply::hole(false, 5, AT + 2, 4),
            data(true, AT + 6, &[7, 8]),
        ]
        .concat();
        let mut refused = 0;
        for at in 0..said.len() {
            for flip in 1..=255 {
                let mut wrong = said.clone();
                wrong[at] ^= flip;
                match read(&wrong, true) {
                    Ok((reply, into)) => {
                        let untouched = into.iter().filter(|byte| **byte == 0xee).count();
                        assert!(reply.failure.is_some() || untouched <= 1, "{at} {flip}");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > said.len() * 200, "{refused}");
    }

    /// Every second byte first: there was no end to the list of what had come.
    #[test]
    fn a_read_dealt_out_in_crumbs_takes_bounded_memory() {
        let mut come = Come::default();
        let taken = (0..100_000).take_while(|at| come.add(at * 2, at * 2 + 1));
        assert_eq!(taken.count(), MOST_RANGES);
    }
}
