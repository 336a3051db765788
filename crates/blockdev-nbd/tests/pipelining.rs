//! Several requests under way on one connection: replies in any order, and servers that fail some of them,
//! all of them, or one of them only.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use blockdev_core::{ErrorKind, Storage};
use blockdev_nbd::{ClientOptions, Export, Listener, NbdStorage, Server, ServerOptions};
use common::{MIB, READ, WRITE, disk};
use testkit::oracle::NbdServer;

/// Whether reads are answered in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replies {
    Simple,
    Chunks,
}

/// A request as a server sees it.
#[derive(Debug, Clone)]
struct Asked {
    kind: u16,
    cookie: [u8; 8],
    offset: u64,
    len: usize,
}

/// One connection of a server that a test plays.
struct Served(UnixStream);

impl Served {
    fn bytes(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    fn say(&mut self, bytes: &[u8]) {
        // Whoever has heard enough hangs up.
        let _ = self.0.write_all(bytes);
    }

    fn agree(&mut self, size: u64, minimum: u32, replies: Replies) {
        self.say(b"NBDMAGICIHAVEOPT\0\x03");
        self.bytes(4).unwrap();
        loop {
            let head = self.bytes(16).unwrap();
            let (option, len) = (head[11], head[15]);
            self.bytes(usize::from(len)).unwrap();
            let mut answer = |kind: u32, data: &[u8]| {
                let len = u32::try_from(data.len()).unwrap();
                let magic = [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9];
                let fields = [u32::from(option), kind, len].map(u32::to_be_bytes);
                self.say(&[&magic[..], &fields.concat(), data].concat());
            };
            match option {
                8 if replies == Replies::Chunks => answer(1, &[]),
                7 => {
                    let export = [&[0, 0][..], &size.to_be_bytes(), &[0, 5]].concat();
                    answer(3, &export);
                    let sizes = [minimum, 4096, 1 << 20].map(u32::to_be_bytes).concat();
                    answer(3, &[&[0, 3][..], &sizes].concat());
                    answer(1, &[]);
                    return;
                }
                _ => answer((1 << 31) + 1, &[]),
            }
        }
    }

    /// The next request and what it carries; `None` when the client has gone.
    fn next(&mut self) -> Option<(Asked, Vec<u8>)> {
        let head = self.bytes(28)?;
        let asked = Asked {
            kind: u16::from_be_bytes(head[6..8].try_into().unwrap()),
            cookie: head[8..16].try_into().unwrap(),
            offset: u64::from_be_bytes(head[16..24].try_into().unwrap()),
            len: u32::from_be_bytes(head[24..].try_into().unwrap()) as usize,
        };
        let carried = if asked.kind == WRITE { asked.len } else { 0 };
        let data = self.bytes(carried)?;
        Some((asked, data))
    }

    fn simple(&mut self, asked: &Asked, data: &[u8]) {
        self.say(&[&b"\x67\x44\x66\x98\0\0\0\0"[..], &asked.cookie, data].concat());
    }

    /// A part of what was read, from its byte `from` on.
    fn chunk(&mut self, asked: &Asked, last: bool, from: usize, data: &[u8]) {
        let len = u32::try_from(data.len() + 8).unwrap().to_be_bytes();
        let offset = (asked.offset + from as u64).to_be_bytes();
        let head = [0x66, 0x8e, 0x33, 0xef, 0, u8::from(last), 0, 1];
        self.say(&[&head[..], &asked.cookie, &len, &offset, data].concat());
    }
}

/// What byte `at` of the disks here is.
fn content(at: u64) -> u8 {
    u8::try_from((at / 512) % 251).unwrap()
}

fn wanted(asked: &Asked) -> Vec<u8> {
    (asked.offset..).take(asked.len).map(content).collect()
}

/// A client with so much patience, and a server that plays `script` when both agree on a disk of a MiB.
fn played<T: Send + 'static>(
    replies: Replies,
    minimum: u32,
    patience: Duration,
    script: impl FnOnce(Served) -> T + Send + 'static,
) -> (NbdStorage, JoinHandle<T>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).unwrap();
        stream.set_write_timeout(limit).unwrap();
        let mut served = Served(stream);
        served.agree(MIB as u64, minimum, replies);
        script(served)
    });
    let options = ClientOptions::default().patience(patience);
    let export = NbdStorage::connect_unix(&path, "disk", &options).unwrap();
    (export, server)
}

const LONG: Duration = Duration::from_secs(30);

/// So many threads read at once, each its own part: what they are told.
fn read_by(export: &NbdStorage, threads: u64) -> Vec<blockdev_core::Result<()>> {
    thread::scope(|scope| {
        let reads = (0..threads).map(|mine| {
            scope.spawn(move || {
                let mut buf = vec![0; 2048];
                let at = mine * 2048;
                export.read_at(&mut buf, at)?;
                let expected: Vec<u8> = (at..at + 2048).map(content).collect();
                assert!(buf == expected, "the bytes of another request");
                Ok(())
            })
        });
        let reads: Vec<_> = reads.collect();
        reads.into_iter().map(|read| read.join().unwrap()).collect()
    })
}

/// A server that answers nobody until all have asked, and the last first.
#[test]
fn replies_in_another_order_go_to_who_asked() {
    for replies in [Replies::Simple, Replies::Chunks] {
        let (export, server) = played(replies, 1, LONG, move |mut served| {
            let mut all: Vec<Asked> = (0..8).map(|_| served.next().unwrap().0).collect();
            all.reverse();
            let mut cookies: Vec<_> = all.iter().map(|asked| asked.cookie).collect();
            for asked in &all {
                match replies {
                    Replies::Simple => served.simple(asked, &wanted(asked)),
                    Replies::Chunks => served.chunk(asked, true, 0, &wanted(asked)),
                }
            }
            cookies.sort_unstable();
            cookies.dedup();
            cookies.len()
        });
        for told in read_by(&export, 8) {
            told.unwrap();
        }
        assert_eq!(server.join().unwrap(), 8, "a cookie of two requests");
    }
}

/// Chunks of all replies, dealt out in turn, the ends first.
#[test]
fn chunks_of_several_replies_may_come_between_each_other() {
    let (export, server) = played(Replies::Chunks, 1, LONG, |mut served| {
        let all: Vec<Asked> = (0..5).map(|_| served.next().unwrap().0).collect();
        for part in (0..4).rev() {
            for asked in &all {
                let data = wanted(asked);
                let (from, to) = (part * 512, part * 512 + 512);
                served.chunk(asked, part == 0, from, &data[from..to]);
            }
        }
    });
    for told in read_by(&export, 5) {
        told.unwrap();
    }
    server.join().unwrap();
}

/// Those that waited while another read would have waited for ever.
#[test]
fn a_server_that_dies_in_the_midst_of_a_reply_fails_everybody_at_once() {
    for said in [0, 7, 16, 500] {
        let (export, server) = played(Replies::Simple, 1, LONG, move |mut served| {
            let all: Vec<Asked> = (0..6).map(|_| served.next().unwrap().0).collect();
            let mut reply = [&b"\x67\x44\x66\x98\0\0\0\0"[..], &all[3].cookie].concat();
            reply.extend(wanted(&all[3]));
            served.say(&reply[..said]);
        });
        let begin = Instant::now();
        for told in read_by(&export, 6) {
            assert_eq!(told.unwrap_err().kind(), ErrorKind::Io);
        }
        assert!(begin.elapsed() < LONG / 2, "they waited for a dead server");
        let later = export.read_at(&mut [0], 0).unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Poisoned);
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_falls_silent_fails_everybody_in_time() {
    let patience = Duration::from_secs(1);
    let (export, server) = played(Replies::Simple, 1, patience, |mut served| {
        let all: Vec<Asked> = (0..6).map(|_| served.next().unwrap().0).collect();
        served.simple(&all[2], &wanted(&all[2]));
        while served.next().is_some() {}
    });
    let begin = Instant::now();
    let told = read_by(&export, 6);
    assert_eq!(told.iter().filter(|told| told.is_ok()).count(), 1);
    assert!(begin.elapsed() < Duration::from_secs(15), "too long");
    drop(export);
    server.join().unwrap();
}

/// One request was never answered while others were, again and again: it waited as long as they came.
#[test]
fn a_server_that_passes_over_one_request_is_left() {
    let patience = Duration::from_secs(1);
    let (export, server) = played(Replies::Simple, 1, patience, |mut served| {
        let _forgotten = served.next().unwrap();
        while let Some((asked, _)) = served.next() {
            served.simple(&asked, &wanted(&asked));
        }
    });
    let begin = Instant::now();
    thread::scope(|scope| {
        let forgotten = scope.spawn(|| export.read_at(&mut [0; 16], 0).unwrap_err());
        thread::sleep(Duration::from_millis(100));
        let mut answered = 0;
        let last = loop {
            match export.read_at(&mut [0; 16], 512) {
                Ok(()) => answered += 1,
                Err(error) => break error,
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "never noticed");
        };
        assert!(answered > 0, "{last}");
        assert_eq!(forgotten.join().unwrap().kind(), ErrorKind::Io);
    });
    drop(export);
    server.join().unwrap();
}

#[test]
fn replies_to_what_nobody_asked_and_second_ones_are_the_end() {
    for twice in [false, true] {
        let (export, server) = played(Replies::Simple, 1, LONG, move |mut served| {
            let (first, _) = served.next().unwrap();
            let (second, _) = served.next().unwrap();
            let mut wrong = first.clone();
            if twice {
                served.simple(&first, &wanted(&first));
            } else {
                wrong.cookie = [9; 8];
            }
            served.simple(&wrong, &wanted(&wrong));
            served.simple(&second, &wanted(&second));
            while served.next().is_some() {}
        });
        let told = read_by(&export, 2);
        let failed = told.iter().filter(|told| told.is_err()).count();
        assert_eq!(failed, if twice { 1 } else { 2 });
        assert!(export.read_at(&mut [0], 0).is_err());
        drop(export);
        server.join().unwrap();
    }
}

/// Both ends sent and neither read, each waiting for the other: while one thread sends much, another must
/// take what has come for a third.
#[test]
fn a_long_write_does_not_keep_replies_from_being_read() {
    let (export, server) = played(Replies::Simple, 1, LONG, |mut served| {
        let mut reads = Vec::new();
        while reads.len() < 2 {
            reads.push(served.next().unwrap().0);
        }
        // The head of the write has come; what it carries is not read before both replies are taken.
        let head = served.bytes(28).unwrap();
        for asked in &reads {
            served.simple(asked, &wanted(asked));
        }
        served.bytes(MIB).unwrap();
        let write = Asked {
            cookie: head[8..16].try_into().unwrap(),
            ..reads[0].clone()
        };
        served.simple(&write, &[]);
    });
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut buf = vec![0; MIB];
                export.read_at(&mut buf, 0).unwrap();
                assert!(buf.iter().zip(0..).all(|(byte, at)| *byte == content(at)));
            });
        }
        thread::sleep(Duration::from_millis(300));
        scope.spawn(|| export.write_at(&vec![1; MIB], 0).unwrap());
    });
    server.join().unwrap();
}

/// Two threads changed different parts of one block, and one of the changes was undone.
#[test]
fn parts_of_one_block_changed_by_several_threads_are_all_kept() {
    let (export, server) = played(Replies::Simple, 512, LONG, |mut served| {
        let mut blocks: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        while let Some((asked, data)) = served.next() {
            match asked.kind {
                READ => {
                    let block = blocks.entry(asked.offset).or_insert(vec![0; 512]).clone();
                    // Whoever reads and writes back has time to come between others.
                    thread::sleep(Duration::from_millis(2));
                    served.simple(&asked, &block);
                }
                WRITE => {
                    blocks.insert(asked.offset, data);
                    served.simple(&asked, &[]);
                }
                _ => break,
            }
        }
    });
    thread::scope(|scope| {
        for mine in 0..8u8 {
            let export = &export;
            scope.spawn(move || {
                for turn in 0..8u8 {
                    let at = u64::from(mine) * 64 + u64::from(turn) * 8;
                    export.write_at(&[mine + 1; 8], at).unwrap();
                }
            });
        }
    });
    let mut block = [0; 512];
    export.read_at(&mut block, 0).unwrap();
    for (at, byte) in block.iter().enumerate() {
        assert_eq!(usize::from(*byte), at / 64 + 1, "byte {at} was undone");
    }
    drop(export);
    server.join().unwrap();
}

/// Many threads at once against a model that each keeps of its own part, by TCP.
#[test]
fn many_threads_share_one_connection_and_each_reads_what_it_wrote() {
    let server = Server::new(
        vec![Export::new("disk", disk(4 * MIB)).writable()],
        ServerOptions::default(),
    );
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let running = server.unwrap().start(listener).unwrap();
    let uri = format!("nbd://{}/disk", running.address());
    let export = NbdStorage::connect(&uri, &ClientOptions::default()).unwrap();
    lives(&export, 4 * MIB as u64);
    drop(export);
    running.stop().unwrap();
}

/// Sixteen threads write, zero and read at random, each in stripes of its own.
fn lives(export: &NbdStorage, size: u64) {
    const THREADS: u64 = 16;
    thread::scope(|scope| {
        for mine in 0..THREADS {
            scope.spawn(move || {
                let part = size / THREADS;
                let mut model = vec![0; usize::try_from(part).unwrap()];
                export.read_at(&mut model, mine * part).unwrap();
                let mut seed = mine + 1;
                let mut random = move |below: u64| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 33) % below
                };
                for turn in 0..200 {
                    let from = random(part);
                    let len = 1 + random((part - from).min(20_000));
                    let at = mine * part + from;
                    let range =
                        usize::try_from(from).unwrap()..usize::try_from(from + len).unwrap();
                    match random(5) {
                        0 => {
                            export.zero_range(at, len).unwrap();
                            model[range].fill(0);
                        }
                        1 | 2 => {
                            let byte = u8::try_from(turn).unwrap();
                            model[range.clone()].fill(byte);
                            export.write_at(&model[range], at).unwrap();
                        }
                        _ => {
                            let mut buf = vec![0; range.len()];
                            export.read_at(&mut buf, at).unwrap();
                            assert!(buf == model[range], "thread {mine}, turn {turn}");
                        }
                    }
                }
            });
        }
    });
}

/// nbdkit answers by sixteen threads, each when its delay is over, as one that fails now and then, and as one
/// that takes whole blocks only.
#[test]
fn nbdkit_is_asked_by_many_threads_at_once() {
    let Some(nbdkit) = NbdServer::Nbdkit.find() else {
        return;
    };
    let delayed = ["--filter=delay", "memory", "4M", "rdelay=5ms", "wdelay=3ms"];
    let blocks = [
        "--filter=blocksize-policy",
        "--filter=delay",
        "memory",
        "4M",
        "blocksize-minimum=512",
        "blocksize-preferred=4096",
        "blocksize-maximum=64K",
        "blocksize-error-policy=error",
        "rdelay=1ms",
    ];
    for arguments in [&delayed[..], &["--no-sr", "memory", "4M"], &blocks] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nbd");
        let mut command = std::process::Command::new(&nbdkit);
        command.args(["-f", "-t", "16", "-U", path.to_str().unwrap()]);
        let mut server = command.args(arguments).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while !path.exists() {
            assert!(Instant::now() < end, "nbdkit makes no socket");
            thread::sleep(Duration::from_millis(10));
        }
        let export = NbdStorage::connect_unix(&path, "", &ClientOptions::default());
        lives(&export.unwrap(), 4 * MIB as u64);
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

/// An error is told to whose request it is, and to nobody else.
#[test]
fn an_error_among_many_requests_is_one_threads_own() {
    let (export, server) = played(Replies::Simple, 1, LONG, |mut served| {
        while let Some((asked, _)) = served.next() {
            if asked.offset == 2048 {
                served.say(&[&b"\x67\x44\x66\x98\0\0\0\x1c"[..], &asked.cookie].concat());
            } else {
                served.simple(&asked, &wanted(&asked));
            }
        }
    });
    let told = read_by(&export, 4);
    let kinds: Vec<_> = told
        .iter()
        .map(|told| told.as_ref().err().map(|e| e.kind()))
        .collect();
    assert_eq!(kinds, [None, Some(ErrorKind::NoSpace), None, None]);
    drop(export);
    server.join().unwrap();
}

/// Requests were asked one after the other: a server that takes its time for each took all of it.
#[test]
fn requests_of_several_threads_are_under_way_at_once() {
    let most = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&most);
    let (export, server) = played(Replies::Simple, 1, LONG, move |mut served| {
        for _ in 0..3 {
            // Nobody is answered before four have asked.
            let all: Vec<Asked> = (0..4).map(|_| served.next().unwrap().0).collect();
            seen.fetch_max(all.len(), Ordering::Relaxed);
            for asked in all {
                served.simple(&asked, &wanted(&asked));
            }
        }
    });
    for _ in 0..3 {
        for told in read_by(&export, 4) {
            told.unwrap();
        }
    }
    assert_eq!(most.load(Ordering::Relaxed), 4);
    server.join().unwrap();
}

/// A port that nobody listens at is an error that says so, and no panic.
#[test]
fn a_server_that_is_not_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let options = ClientOptions::default().patience(Duration::MAX);
    let error = NbdStorage::connect(&format!("nbd://{address}/"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}
