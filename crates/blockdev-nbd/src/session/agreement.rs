//! What a client says until it has an export.

use std::fmt;
use std::io::{self, Read, Write};

use super::context::Context;
use super::facts::Facts;
use crate::wire::fields::Fields;
use crate::wire::flags::{client, handshake as server};
use crate::wire::handshake::{GREETING_BYTES, decode_greeting};
use crate::wire::info;
use crate::wire::option::{self, REPLY_HEAD_BYTES, decode_reply, kind, put_option};

/// Most data of a reply to an option, in bytes.
const MAX_REPLY: u32 = 64 << 10;
/// Most replies to an option that has few.
pub(super) const FEW: usize = 64;
/// Most that is told of what a server says, in characters.
const MOST_TEXT: usize = 200;

/// What a server may not say.
pub(crate) fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A server's words, fit to be shown: some of them, and nothing that moves a cursor.
pub(crate) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars()
        .take(MOST_TEXT)
        .fold(String::new(), |mut shown, c| {
            match c {
                // They steer nothing, and names stay readable.
                '\\' | '"' | '\'' => shown.push(c),
                c => shown.extend(c.escape_debug()),
            }
            shown
        })
}

/// How a server haggles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newstyle {
    /// Refuses options that it does not know, and goes on.
    Fixed,
    /// Knows `EXPORT_NAME` at most.
    Old,
}

/// Hears a server's greeting and returns it, as far as it is understood.
///
/// # Errors
/// When it is no server.
pub(crate) fn greet(stream: &mut (impl Read + Write)) -> io::Result<Newstyle> {
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting)?;
    let flags = decode_greeting(&greeting).ok_or_else(|| nonsense("this is no NBD server"))?;
    if flags & server::FIXED_NEWSTYLE == 0 {
        return Ok(Newstyle::Old);
    }
    stream.write_all(&client::FIXED_NEWSTYLE.to_be_bytes())?;
    Ok(Newstyle::Fixed)
}

/// Has a server consent to TLS, which begins with the next byte then. If it refuses, nothing is to be said in
/// the clear.
///
/// # Errors
/// When it makes no sense.
pub(crate) fn start_tls(stream: &mut (impl Read + Write)) -> io::Result<Option<Refusal>> {
    ask(stream, option::STARTTLS, &[], FEW, |_, _| false)
}

/// Agrees with a server on the export `name`, once it was greeted.
///
/// # Errors
/// When there is none, or the server makes no sense. The connection is of no use then.
pub(crate) fn agree(stream: &mut (impl Read + Write), name: &str) -> io::Result<Facts> {
    let mut facts = Facts::unknown();
    let refused = ask(stream, option::STRUCTURED_REPLY, &[], FEW, |_, _| false)?;
    facts.structured = refused.is_none();
    if facts.structured {
        facts.context = context(stream, name)?;
    }
    let refused = ask(
        stream,
        option::GO,
        &info::request(name),
        FEW,
        |kind, data| kind == kind::INFO && facts.learn(data),
    )?;
    match refused {
        None => Ok(facts),
        Some(refusal) => Err(io::Error::other(refusal.to_string())),
    }
}

/// The server's number for `base:allocation`, if it tells that of the export `name`.
fn context(stream: &mut (impl Read + Write), name: &str) -> io::Result<Option<u32>> {
    let wanted = Context::Allocation.name();
    let mut data = info::string(name);
    data.extend(1u32.to_be_bytes());
    data.extend(info::string(wanted));
    let mut id = None;
    let refused = ask(
        stream,
        option::SET_META_CONTEXT,
        &data,
        FEW,
        |kind, data| {
            let mut fields = Fields(data);
            let told = fields.u32();
            let asked_for = kind == kind::META_CONTEXT && fields.0 == wanted.as_bytes();
            asked_for && id.is_none() && {
                id = told;
                id.is_some()
            }
        },
    )?;
    Ok(id.filter(|_| refused.is_none()))
}

/// A server's refusal of an option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u32,
    /// Its words, fit to be shown.
    pub(crate) text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refuses ({:#x}): {}", self.code, self.text)
    }
}

/// Asks for one option. Each reply before the last goes to `part`, which says whether it makes sense, of
/// which there are `most` at most. The result is the server's refusal, if it is one.
pub(super) fn ask(
    stream: &mut (impl Read + Write),
    option: u32,
    data: &[u8],
    most: usize,
    mut part: impl FnMut(u32, &[u8]) -> bool,
) -> io::Result<Option<Refusal>> {
    let mut said = Vec::new();
    put_option(&mut said, option, data);
    stream.write_all(&said)?;
    for _ in 0..=most {
        let mut head = [0; REPLY_HEAD_BYTES];
        stream.read_exact(&mut head)?;
        let reply = decode_reply(&head, option);
        let (kind, len) = reply.ok_or_else(|| nonsense("not a reply to what was asked"))?;
        if len > MAX_REPLY {
            return Err(nonsense("a reply that is far too long"));
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        match kind {
            kind::ACK => return Ok(None),
            error if error >> 31 == 1 => {
                return Ok(Some(Refusal {
                    code: error,
                    text: shown(&data),
                }));
            }
            other if part(other, &data) => {}
            _ => return Err(nonsense("malformed information")),
        }
    }
    Err(nonsense("no end of replies"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::greeting;
    use crate::wire::option::put_reply;

    /// A server that says `said`, whatever it hears.
    struct Deaf<'a> {
        said: &'a [u8],
        heard: usize,
    }

    impl Read for Deaf<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.said.read(buf)
        }
    }

    impl Write for Deaf<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.heard += buf.len();
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn agreed(said: &[u8]) -> io::Result<Facts> {
        let mut server = Deaf { said, heard: 0 };
        match greet(&mut server)? {
            Newstyle::Fixed => agree(&mut server, "disk"),
            Newstyle::Old => Err(nonsense("no options")),
        }
    }

    fn replies() -> Vec<u8> {
        let mut out = greeting().to_vec();
        put_reply(&mut out, option::STRUCTURED_REPLY, kind::ACK, &[]);
        let data = option::meta_context(77, "base:allocation");
        put_reply(
            &mut out,
            option::SET_META_CONTEXT,
            kind::META_CONTEXT,
            &data,
        );
        put_reply(&mut out, option::SET_META_CONTEXT, kind::ACK, &[]);
        put_reply(&mut out, option::GO, kind::INFO, &info::export(4096, 1));
        put_reply(
            &mut out,
            option::GO,
            kind::INFO,
            &info::block_size(1, 512, 1024),
        );
        put_reply(&mut out, option::GO, kind::ACK, &[]);
        out
    }

    #[test]
    fn a_server_is_understood_and_one_cut_short_is_an_error() {
        let said = replies();
        let facts = agreed(&said).unwrap();
        assert_eq!((facts.size(), facts.context), (Some(4096), Some(77)));
        assert!(facts.structured && facts.maximum == 1024);
        for len in 0..said.len() {
            assert!(agreed(&said[..len]).is_err(), "{len} bytes");
        }
    }

    /// Each byte changed in several ways: no panic, no end that is not reached, and never an export whose
    /// requests could not be cut.
    #[test]
    fn a_server_with_any_byte_wrong_is_refused_or_bounded() {
        let said = replies();
        let mut refused = 0;
        for at in 0..said.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut wrong = said.clone();
                wrong[at] ^= flip;
                match agreed(&wrong) {
                    Ok(facts) => assert!(facts.maximum >= facts.minimum && facts.minimum > 0),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > said.len(), "{refused}");
    }

    #[test]
    fn a_context_nobody_asked_for_is_nonsense() {
        for (times, name) in [(1, "qemu:dirty-bitmap:x"), (2, "base:allocation")] {
            let mut said = greeting().to_vec();
            put_reply(&mut said, option::STRUCTURED_REPLY, kind::ACK, &[]);
            for _ in 0..times {
                let data = option::meta_context(1, name);
                put_reply(
                    &mut said,
                    option::SET_META_CONTEXT,
                    kind::META_CONTEXT,
                    &data,
                );
            }
            let error = agreed(&said).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}");
        }
    }

    #[test]
    fn what_a_server_says_moves_no_cursor() {
        let text = shown(&[b"\x1b[2Jgone\n", &[b'a'; 1000][..]].concat());
        assert!(text.starts_with("\\u{1b}[2Jgone\\n"), "{text}");
        assert!(text.len() < 300 && !text.contains('\x1b'));
    }
}
