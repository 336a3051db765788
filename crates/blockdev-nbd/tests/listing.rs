//! What a server has, asked of this one, of QEMU's, of nbdkit, and of servers that mean harm.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use blockdev_nbd::{
    ClientOptions, Export, ExportInfo, ListError, Listener, Server, ServerOptions, list_exports,
};
use common::{MIB, disk};
use testkit::oracle::nbd_uri;

fn list(dir: &Path) -> Result<Vec<ExportInfo>, ListError> {
    list_exports(&nbd_uri(&dir.join("nbd"), ""), &ClientOptions::default())
}

#[test]
fn every_export_is_told_with_what_can_be_asked_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let exports = vec![
        Export::new("", disk(512)).description("the usual"),
        Export::new("größer", disk(3 * MIB)).writable(),
    ];
    let server = Server::new(exports, ServerOptions::default()).unwrap();
    let listener = Listener::unix(dir.path().join("nbd")).unwrap();
    let running = server.start(listener).unwrap();
    let told = list(dir.path()).unwrap();
    let [usual, larger] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((&*usual.name, &*usual.description), ("", "the usual"));
    assert_eq!((usual.size, usual.is_read_only()), (Some(512), true));
    assert_eq!((&*larger.name, &*larger.description), ("größer", ""));
    assert_eq!((larger.size, larger.is_read_only()), (Some(3 << 20), false));
    let sizes = larger.block_sizes.unwrap();
    assert_eq!((sizes.minimum, sizes.maximum), (1, 32 << 20));
    assert_eq!(larger.contexts[0], "base:allocation");
    running.stop().unwrap();
    let error = list(dir.path()).unwrap_err();
    assert!(matches!(error, ListError::Connect(_)), "{error}");
}

/// A server that says `said` to whoever connects, a byte at a time if it is `slow`.
fn saying(dir: &Path, said: Vec<u8>, slow: bool) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(dir.join("nbd")).unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        for piece in said.chunks(if slow { 1 } else { 64 << 10 }) {
            if client.write_all(piece).is_err() {
                return;
            }
            if slow {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = client.read_to_end(&mut Vec::new());
    })
}

fn reply(option: u8, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut reply = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
    reply.extend([0, 0, 0, option]);
    reply.extend(kind.to_be_bytes());
    reply.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    reply.extend(data);
    reply
}

#[test]
fn a_server_without_lists_or_with_a_refusal_is_told_apart() {
    let began = [b"NBDMAGICIHAVEOPT\0\x03".to_vec(), reply(11, 1, &[])].concat();
    let refusal = [began, reply(3, (1 << 31) + 2, b"not you")].concat();
    for (said, refused) in [(b"NBDMAGICIHAVEOPT\0\0".to_vec(), false), (refusal, true)] {
        let dir = tempfile::tempdir().unwrap();
        let server = saying(dir.path(), said, false);
        match list(dir.path()).unwrap_err() {
            ListError::NoLists => assert!(!refused),
            ListError::Refused { option, code, text } => {
                let told = (option, code, &*text);
                assert!(refused);
                assert_eq!(told, (3, (1 << 31) + 2, "not you"));
            }
            other => panic!("{other}"),
        }
        server.join().unwrap();
    }
}

/// However it deals out what it says, and however much it has to say.
#[test]
fn a_server_that_never_comes_to_an_end_is_left_in_time() {
    let began = [b"NBDMAGICIHAVEOPT\0\x03".to_vec(), reply(11, 1, &[])].concat();
    let export = reply(3, 2, &[0; 4]);
    let many = [&began[..], &export.repeat(5000)].concat();
    let patience = Duration::from_millis(400);
    for (said, slow) in [(many.clone(), false), (many, true), (began, false)] {
        let dir = tempfile::tempdir().unwrap();
        let server = saying(dir.path(), said, slow);
        let options = ClientOptions::default().patience(patience);
        let began = Instant::now();
        let error = list_exports(&nbd_uri(&dir.path().join("nbd"), ""), &options).unwrap_err();
        assert!(matches!(error, ListError::Failed(_)), "{error}");
        assert!(began.elapsed() < patience * 20);
        server.join().unwrap();
    }
}
