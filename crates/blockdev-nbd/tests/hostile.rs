//! Clients that are broken or malicious, byte by byte over a socket: each harms itself at most.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use blockdev_nbd::{Running, ServerOptions};
use common::{Client, DISC, FLUSH, MIB, READ, WRITE, disk, request, serve};

const SHORT: Duration = Duration::from_millis(300);

fn impatient() -> ServerOptions {
    ServerOptions::default()
        .handshake_timeout(SHORT)
        .request_timeout(SHORT)
}

/// Somebody else is served as if nothing were.
fn still_serves(dir: &Path) {
    let mut other = Client::transmitting(dir);
    assert_eq!(other.read(512, 512), [7; 512]);
    other.request(DISC, 0, 0, 0, 0);
    assert!(other.ended());
}

fn with_server(options: ServerOptions, test: impl FnOnce(&Path, &Running)) {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(MIB);
    let running = serve(dir.path(), &disk, options);
    test(dir.path(), &running);
    still_serves(dir.path());
    running.stop().unwrap();
}

#[test]
fn a_client_that_speaks_something_else_is_left() {
    with_server(ServerOptions::default(), |dir, _| {
        let mut client = Client::connect(dir);
        client.bytes(18);
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(client.ended());
        let mut client = Client::connect(dir);
        client.bytes(18);
        client.send(b"\0\0\0\x03WHATEVER\0\0\0\x03\0\0\0\0");
        assert!(client.ended());
    });
}

#[test]
fn an_option_of_four_gigabytes_is_not_awaited() {
    with_server(ServerOptions::default(), |dir, _| {
        let mut client = Client::connect(dir);
        client.bytes(18);
        client.send(b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
        let reply = client.bytes(20);
        assert_eq!(reply[12..16], [0x80, 0, 0, 9], "too big");
        client.bytes(usize::from(reply[19]));
        assert!(client.ended());
    });
}

#[test]
fn a_handshake_that_is_never_finished_ends() {
    with_server(impatient(), |dir, _| {
        let began = Instant::now();
        let mut silent = Client::connect(dir);
        silent.bytes(18);
        assert!(silent.ended());
        // One byte at a time does not make it longer.
        let mut dribbling = Client::connect(dir);
        dribbling.bytes(18);
        dribbling.send(&[0, 0, 0, 3]);
        for byte in b"IHAVEOPT\0\0\0\x07\0\0".iter().cycle() {
            use std::io::Write;
            if dribbling.0.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(SHORT / 10);
            assert!(began.elapsed() < SHORT * 20, "it was never ended");
        }
    });
}

#[test]
fn half_a_request_and_then_silence_ends_the_connection() {
    with_server(impatient(), |dir, _| {
        for sent in [1, 27, 28, 28 + 100] {
            let mut client = Client::transmitting(dir);
            let mut bytes = request(WRITE, 0, 1, 0, 512);
            bytes.extend([9; 512]);
            client.send(&bytes[..sent]);
            assert!(client.ended(), "{sent} bytes");
        }
    });
}

#[test]
fn silence_between_requests_is_free() {
    with_server(impatient(), |dir, _| {
        let mut client = Client::transmitting(dir);
        std::thread::sleep(SHORT * 3);
        assert_eq!(client.read(0, 16), [7; 16]);
    });
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_next_one_is_served() {
    with_server(ServerOptions::default(), |dir, _| {
        let mut client = Client::transmitting(dir);
        let end = MIB as u64;
        for (kind, flags, offset, len, error) in [
            (READ, 0, end - 1, 2, 22),
            (READ, 0, u64::MAX, 2, 22),
            (READ, 0, 0, u32::MAX, 22),
            (READ, 1 << 2, 0, 512, 22),
            (FLUSH, 0, 1, 0, 22),
            (4, 0, end, 1, 22),
            (6, 0, end - 1, u32::MAX, 28),
            (7, 0, 0, 512, 22),
            (8, 0, 0, 512, 22),
            (u16::MAX, u16::MAX, u64::MAX, u32::MAX, 22),
        ] {
            client.request(kind, flags, 3, offset, len);
            assert_eq!(client.reply(), (error, 3), "command {kind} at {offset}");
        }
        for (flags, offset, error) in [(0, end - 1, 28), (1 << 9, 0, 22)] {
            client.request(WRITE, flags, 4, offset, 100_000);
            client.send(&[9; 100_000]);
            assert_eq!(client.reply(), (error, 4), "what was written is dropped");
        }
        assert_eq!(client.read(0, 512), [7; 512]);
        assert_eq!(client.read(end - 512, 512), [7; 512]);
    });
}

#[test]
fn a_write_of_four_gigabytes_and_wrong_magic_end_the_connection() {
    with_server(ServerOptions::default(), |dir, _| {
        let mut client = Client::transmitting(dir);
        client.request(WRITE, 0, 1, 0, u32::MAX);
        assert!(client.ended());
        let mut client = Client::transmitting(dir);
        client.send(&[0; 28]);
        assert!(client.ended());
    });
}

#[test]
fn clients_that_take_no_replies_keep_nobody_waiting() {
    let options = impatient().connections(4).workers(2);
    with_server(options, |dir, _| {
        let mut deaf: Vec<Client> = (0..3).map(|_| Client::transmitting(dir)).collect();
        for client in &mut deaf {
            for cookie in 0..64 {
                client.request(READ, 0, cookie, 0, 1 << 20);
            }
        }
        // Each of them could hold all the memory there is, were it not each one's own.
        let began = Instant::now();
        let mut other = Client::transmitting(dir);
        assert_eq!(other.read(0, 1 << 20).len(), 1 << 20);
        assert!(began.elapsed() < Duration::from_secs(10));
        drop(other);
        drop(deaf);
    });
}

#[test]
fn a_client_that_takes_no_replies_does_not_keep_the_server_from_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(32 * MIB);
    let running = serve(dir.path(), &disk, impatient());
    let mut deaf = Client::transmitting(dir.path());
    deaf.request(READ, 0, 1, 0, 32 << 20);
    deaf.bytes(16);
    // By its length alone this reply could take minutes.
    let began = Instant::now();
    running.stop().unwrap();
    let took = began.elapsed();
    assert!(took >= SHORT, "it had {SHORT:?}, and {took:?} is less");
    assert!(took < SHORT * 20, "{took:?}");
}

#[test]
fn a_client_that_hangs_up_in_the_middle_takes_nobody_along() {
    with_server(ServerOptions::default(), |dir, _| {
        for len in [0, 5, 28, 300] {
            let mut client = Client::transmitting(dir);
            client.request(READ, 0, 1, 0, 1 << 19);
            let mut bytes = request(WRITE, 0, 2, 0, 512);
            bytes.extend([7; 512]);
            client.send(&bytes[..len]);
        }
    });
}

#[test]
fn one_client_too_many_waits_and_is_turned_away() {
    with_server(impatient().connections(1), |dir, _| {
        let mut first = Client::transmitting(dir);
        let mut second = Client::connect(dir);
        assert!(second.ended(), "nothing was said to it");
        let mut third = Client::connect(dir);
        first.request(DISC, 0, 0, 0, 0);
        assert!(first.ended());
        assert_eq!(third.bytes(8), b"NBDMAGIC", "there is room again");
    });
}
