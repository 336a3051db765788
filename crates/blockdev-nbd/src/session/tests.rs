//! Whole sessions without sockets: what a client sends and what it is told, byte by byte where that matters.

use std::sync::{Arc, OnceLock};

use blockdev_core::{
    BlockDevice, DeviceInfo, Error, ErrorKind, Extent, ExtentKind, LoneLayer, MemoryStorage,
    RawLayer, Result, ZeroFlags, fits,
};
use proptest::prelude::*;

use super::answer::{Message, Target, answer};
use super::context::Context;
use super::negotiation::{Agreed, Negotiation, Next, Secrecy};
use super::offer::Offer;
use super::terms::{Terms, Verdict};
use crate::wire::option::{self, kind};
use crate::wire::request::{self, RequestHead};

fn disk(len: usize) -> LoneLayer {
    let storage = Arc::new(MemoryStorage::from(vec![7; len]));
    LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
}

fn offers() -> Vec<Offer> {
    let disk = disk(1 << 20);
    let offer = |name: &str, read_only| {
        Offer::new(name.into(), "words".into(), disk.info(), read_only, true)
    };
    vec![offer("first", true), offer("second", false)]
}

fn sized(text: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text);
    bytes
}

fn asked(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(sized(data));
    bytes
}

/// The data of `INFO` and `GO`, and of the options about contexts.
fn named(name: &str, after: &[u8]) -> Vec<u8> {
    [&sized(name.as_bytes())[..], after].concat()
}

fn queries(queries: &[&str]) -> Vec<u8> {
    let mut bytes = u32::try_from(queries.len()).unwrap().to_be_bytes().to_vec();
    for query in queries {
        bytes.extend(sized(query.as_bytes()));
    }
    bytes
}

/// What a server says to `bytes`, which follow client flags `flags`: the replies, and how it ends.
fn haggle(flags: u32, options: &[Vec<u8>]) -> (Vec<(u32, Vec<u8>)>, Option<Next>) {
    haggle_as(Secrecy::Plain, flags, options)
}

/// The same by a server of which TLS is or is not to be had. It begins at once where it is agreed on.
fn haggle_as(
    secrecy: Secrecy,
    flags: u32,
    options: &[Vec<u8>],
) -> (Vec<(u32, Vec<u8>)>, Option<Next>) {
    let offers = offers();
    let bytes = [&flags.to_be_bytes()[..], &options.concat()].concat();
    let (mut negotiation, mut next) = Negotiation::new(&offers, secrecy);
    let (mut left, mut out) = (&bytes[..], Vec::new());
    let end = loop {
        if next == Next::StartTls {
            next = negotiation.secured();
        }
        let Next::Feed(wanted) = next else {
            break Some(next);
        };
        let Some((bytes, rest)) = left.split_at_checked(wanted) else {
            break None;
        };
        left = rest;
        next = negotiation.feed(bytes, false, &mut out);
    };
    (replies(&out), end)
}

fn replies(mut out: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while out.len() >= 20 {
        let number = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().unwrap());
        let len = number(16) as usize;
        replies.push((number(12), out[20..20 + len].to_vec()));
        out = &out[20 + len..];
    }
    replies
}

fn kinds(replies: &[(u32, Vec<u8>)]) -> Vec<u32> {
    replies.iter().map(|reply| reply.0).collect()
}

#[test]
fn a_client_gets_the_export_it_named_on_the_terms_it_asked_for() {
    let contexts = queries(&["base:allocation", "x-unknown:y"]);
    let (replies, end) = haggle(
        3,
        &[
            asked(option::STARTTLS, &[]),
            asked(1000, b"what is this"),
            asked(option::LIST, &[]),
            asked(option::STRUCTURED_REPLY, &[]),
            asked(option::SET_META_CONTEXT, &named("second", &contexts)),
            asked(option::GO, &named("second", &[0, 2, 0, 1, 0, 2])),
        ],
    );
    let expected = [
        kind::ERR_POLICY,
        kind::ERR_UNSUP,
        kind::SERVER,
        kind::SERVER,
        kind::ACK,
        kind::ACK,
        kind::META_CONTEXT,
        kind::ACK,
        kind::INFO,
        kind::INFO,
        kind::INFO,
        kind::INFO,
        kind::ACK,
    ];
    assert_eq!(kinds(&replies), expected);
    assert_eq!(replies[2].1, named("first", b"words"));
    assert_eq!(
        replies[6].1,
        [&[0, 0, 0, 1][..], b"base:allocation"].concat()
    );
    assert_eq!(replies[10].1, [&[0, 1][..], b"second"].concat());
    let agreed = Agreed {
        export: 1,
        structured: true,
        contexts: vec![Context::Allocation],
    };
    assert_eq!(end, Some(Next::Transmit(agreed)));
}

#[test]
fn before_the_tls_that_is_required_nothing_is_told_and_nothing_counts() {
    let contexts = named("second", &queries(&["base:allocation"]));
    let go = asked(option::GO, &named("second", &[0, 0]));
    let early = [
        asked(option::LIST, &[]),
        asked(option::STRUCTURED_REPLY, &[]),
        asked(option::SET_META_CONTEXT, &contexts),
        asked(option::INFO, &named("second", &[0, 0])),
        go.clone(),
        asked(1000, b"what is this"),
    ];
    let (told, end) = haggle_as(Secrecy::Required, 3, &early);
    assert_eq!(kinds(&told), [kind::ERR_TLS_REQD; 6]);
    assert_eq!(end, None, "it still waits");
    let tls = asked(option::STARTTLS, &[]);
    let late = [
        asked(option::STARTTLS, b"x"),
        tls.clone(),
        tls,
        asked(option::SET_META_CONTEXT, &contexts),
        go,
    ];
    let (told, end) = haggle_as(Secrecy::Required, 3, &[&early[..], &late[..]].concat());
    let expected = [
        kind::ERR_INVALID,
        kind::ACK,
        kind::ERR_INVALID,
        kind::ERR_INVALID,
        kind::INFO,
        kind::INFO,
        kind::ACK,
    ];
    assert_eq!(kinds(&told)[6..], expected);
    let agreed = Agreed {
        export: 1,
        structured: false,
        contexts: vec![],
    };
    assert_eq!(end, Some(Next::Transmit(agreed)));
    let (told, end) = haggle_as(
        Secrecy::Required,
        3,
        &[asked(option::EXPORT_NAME, b"second")],
    );
    assert_eq!((told, end), (vec![], Some(Next::End)));
    let (told, end) = haggle_as(Secrecy::Required, 3, &[asked(option::ABORT, &[])]);
    assert_eq!((kinds(&told), end), (vec![kind::ACK], Some(Next::End)));
}

#[test]
fn what_was_agreed_on_in_the_clear_is_forgotten_within_tls() {
    let offers = offers();
    let (mut negotiation, _) = Negotiation::new(&offers, Secrecy::Required);
    negotiation.structured = true;
    negotiation.selected = Some((0, vec![Context::Allocation]));
    negotiation.secured();
    assert!(!negotiation.structured);
    assert_eq!(negotiation.selected, None);
}

#[test]
fn contexts_of_one_export_are_not_those_of_another() {
    let set = named("second", &queries(&["base:allocation"]));
    let (_, end) = haggle(
        3,
        &[
            asked(option::STRUCTURED_REPLY, &[]),
            asked(option::SET_META_CONTEXT, &set),
            asked(option::GO, &named("first", &[0, 0])),
        ],
    );
    let Some(Next::Transmit(agreed)) = end else {
        panic!("{end:?}");
    };
    assert_eq!((agreed.export, agreed.contexts), (0, vec![]));
}

#[test]
fn a_failed_choice_of_contexts_leaves_none() {
    let good = named("", &queries(&["base:allocation"]));
    let bad = named("", &[0, 0, 0, 9]);
    let (replies, end) = haggle(
        3,
        &[
            asked(option::SET_META_CONTEXT, &good),
            asked(option::STRUCTURED_REPLY, &[]),
            asked(option::SET_META_CONTEXT, &good),
            asked(option::SET_META_CONTEXT, &bad),
            asked(option::EXPORT_NAME, b""),
        ],
    );
    let early = [kind::ERR_INVALID, kind::ACK, kind::META_CONTEXT, kind::ACK];
    assert_eq!(kinds(&replies)[..4], early);
    assert_eq!(kinds(&replies)[4], kind::ERR_INVALID);
    let Some(Next::Transmit(agreed)) = end else {
        panic!("{end:?}");
    };
    assert_eq!(agreed.contexts, []);
}

#[test]
fn what_makes_no_sense_ends_the_haggling_or_is_refused() {
    assert_eq!(
        haggle(1 << 7, &[]).1,
        Some(Next::End),
        "unknown client flag"
    );
    let (_, end) = haggle(3, &[b"IHAVENOT\0\0\0\x03\0\0\0\0".to_vec()]);
    assert_eq!(end, Some(Next::End), "wrong magic");
    let huge = b"IHAVEOPT\0\0\0\x03\xff\xff\xff\xff".to_vec();
    let (replies, end) = haggle(3, &[huge]);
    assert_eq!(kinds(&replies), [kind::ERR_TOO_BIG]);
    assert_eq!(end, Some(Next::End), "an option of 2^32 - 1 bytes");
    let (_, end) = haggle(3, &[asked(option::EXPORT_NAME, b"third")]);
    assert_eq!(end, Some(Next::End), "no such export, and no way to say so");
    let (replies, end) = haggle(
        3,
        &[
            asked(option::GO, &named("third", &[0, 0])),
            asked(option::GO, b"\xff\xff\xff\xff"),
            asked(option::LIST, b"x"),
            asked(option::ABORT, &[]),
        ],
    );
    let expected = [
        kind::ERR_UNKNOWN,
        kind::ERR_INVALID,
        kind::ERR_INVALID,
        kind::ACK,
    ];
    assert_eq!(kinds(&replies), expected);
    assert_eq!(end, Some(Next::End));
}

/// A disk of 1 MiB: 64 KiB of data, 64 KiB of stored zeros, and the rest is nobody's.
struct Sparse {
    info: DeviceInfo,
    detached: bool,
}

impl Sparse {
    fn new(detached: bool) -> Self {
        let mut info = disk(1 << 20).info().clone();
        info.read_only = true;
        Self { info, detached }
    }
}

impl BlockDevice for Sparse {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        fits(offset, buf.len() as u64, self.info.size)?;
        if self.detached && end > 128 << 10 {
            return Err(ErrorKind::NeedsParent.into());
        }
        for (byte, at) in buf.iter_mut().zip(offset..) {
            *byte = u8::from(at < 64 << 10);
        }
        Ok(())
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        let (kind, end) = match offset >> 16 {
            0 => (ExtentKind::Data, 64 << 10),
            1 => (ExtentKind::Zero, 128 << 10),
            _ => (ExtentKind::Absent, self.info.size),
        };
        Ok(Extent::new(kind, end - offset).cut(len))
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: ZeroFlags) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn flush(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Io, "the disk is gone"))
    }
}

fn ask(
    device: &dyn BlockDevice,
    structured: bool,
    kind: u16,
    flags: u16,
    len: u32,
) -> Vec<Message> {
    let info = device.info();
    let offer = Offer::new(String::new(), String::new(), info, info.read_only, true);
    let agreed = Agreed {
        export: 0,
        structured,
        contexts: Context::ALL.to_vec(),
    };
    let terms = Terms::new(agreed, &offer);
    let head = RequestHead {
        flags,
        kind,
        cookie: 9,
        offset: 0,
        len,
    };
    let Verdict::Run(request) = terms.judge(Some(head)) else {
        panic!("refused");
    };
    let absent = &OnceLock::new();
    answer(&Target { device, absent }, &terms, &request, &[])
}

#[test]
fn a_long_read_tells_holes_from_data() {
    let reply = ask(&Sparse::new(false), true, request::READ, 0, 1 << 20);
    let [data, hole] = &reply[..] else {
        panic!("{} chunks", reply.len());
    };
    assert_eq!(data.data, [1; 64 << 10]);
    assert_eq!(data.head[4..8], [0, 0, 0, 1]);
    assert_eq!(hole.head[4..8], [0, 1, 0, 2]);
    assert_eq!(hole.head[28..32], (960u32 << 10).to_be_bytes());
}

#[test]
fn a_read_in_one_piece_is_one() {
    let reply = ask(&Sparse::new(false), true, request::READ, 1 << 2, 1 << 20);
    assert_eq!(reply.len(), 1);
    assert_eq!(reply[0].data.len(), 1 << 20);
}

#[test]
fn bytes_of_a_parent_that_is_not_open_are_an_error_and_no_hole() {
    for len in [1 << 20, (128 << 10) + 1] {
        let reply = ask(&Sparse::new(true), true, request::READ, 0, len);
        let [error] = &reply[..] else {
            panic!("{} chunks", reply.len());
        };
        assert_eq!(error.head[6..8], [0x80, 2], "an error with its offset");
        assert!(error.data.is_empty());
    }
    let reply = ask(&Sparse::new(true), true, request::BLOCK_STATUS, 0, 1 << 20);
    assert_eq!(
        reply[0].head[40..],
        [0, 0xe, 0, 0, 0, 0, 0, 1],
        "a hole, not zeros"
    );
}

#[test]
fn block_status_is_told_of_each_context() {
    let reply = ask(&Sparse::new(false), true, request::BLOCK_STATUS, 0, 1 << 20);
    let payloads: Vec<&[u8]> = reply.iter().map(|message| &message.head[20..]).collect();
    let allocation = [0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xf, 0, 0, 0, 0, 0, 3];
    let depth = [0, 0, 0, 2, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0xe, 0, 0, 0, 0, 0, 0];
    assert_eq!(payloads, [&allocation[..], &depth[..]]);
    let one = ask(
        &Sparse::new(false),
        true,
        request::BLOCK_STATUS,
        1 << 3,
        1 << 20,
    );
    assert_eq!(one[1].head[20..], depth[..12]);
}

#[test]
fn a_failure_is_told_with_its_number() {
    let reply = ask(&Sparse::new(false), false, request::FLUSH, 0, 0);
    assert_eq!(reply[0].head[4..8], [0, 0, 0, 5], "EIO");
    let reply = ask(&Sparse::new(false), true, request::FLUSH, 0, 0);
    assert_eq!(reply[0].head[26..], *b"the disk is gone");
}

/// Options and requests as clients send them, with numbers that are near to sense.
fn near_sense() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(0u32),
        Just(1),
        Just(512),
        Just(65536),
        Just(u32::MAX),
        any::<u32>()
    ];
    let name = prop::sample::select(vec!["disk", "read-only", "", "other"]);
    let data = (name, word.clone()).prop_map(|(name, tail)| {
        let tail: &[u8] = if tail < 2 {
            &[0, 0]
        } else {
            &tail.to_be_bytes()
        };
        named(name, tail)
    });
    let option = (0u32..13, prop_oneof![data, Just(Vec::new())]);
    let option = option.prop_map(|(number, data)| asked(number, &data));
    let request =
        (0u16..10, 0u16..40, 0u64..300_000, word).prop_map(|(kind, flags, offset, len)| {
            let len = if kind == request::WRITE {
                len % 5000
            } else {
                len
            };
            let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
            bytes.extend(flags.to_be_bytes());
            bytes.extend(kind.to_be_bytes());
            bytes.extend(offset.to_be_bytes());
            bytes.extend(offset.to_be_bytes());
            bytes.extend(len.to_be_bytes());
            if kind == request::WRITE {
                bytes.resize(bytes.len() + len as usize, 3);
            }
            bytes
        });
    let options = prop::collection::vec(option, 0..6);
    let go = prop_oneof![
        Just(asked(option::GO, &named("disk", &[0, 0]))),
        Just(asked(option::EXPORT_NAME, b"read-only")),
    ];
    let requests = prop::collection::vec(request, 0..20);
    let structured = prop_oneof![Just(Vec::new()), Just(asked(option::STRUCTURED_REPLY, &[]))];
    let contexts = named(
        "disk",
        &queries(&["base:allocation", "qemu:allocation-depth"]),
    );
    let contexts = Just(asked(option::SET_META_CONTEXT, &contexts));
    (options, structured, contexts, go, requests).prop_map(
        |(options, structured, contexts, go, requests)| {
            let flags = 3u32.to_be_bytes().to_vec();
            let (options, requests) = (options.concat(), requests.concat());
            [flags, structured, options, contexts, go, requests].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_session_is_answered_in_whole_messages(
        mut bytes in near_sense(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        crate::fuzz::session(&bytes);
    }
}
