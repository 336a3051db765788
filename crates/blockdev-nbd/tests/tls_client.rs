//! A client that was told to talk within TLS: with this server and QEMU's, and with those who are not who
//! they should be, have no TLS, or never finish it.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blockdev_core::{ErrorKind, Storage, SyncKind};
use blockdev_nbd::{
    ClientOptions, Credentials, Export, Listener, NbdStorage, Running, Server, ServerOptions,
    list_exports,
};
use common::{MIB, disk};
use testkit::oracle::{Certtool, NbdServer};

const SHORT: Duration = Duration::from_millis(400);

/// A directory with certificates in `pki` and strangers' in `others`; in `bare` the authority alone.
fn certificates() -> Option<tempfile::TempDir> {
    let certtool = Certtool::find()?;
    let dir = tempfile::tempdir().unwrap();
    for pki in ["pki", "others"] {
        certtool.make(&dir.path().join(pki));
    }
    fs::create_dir(dir.path().join("bare")).unwrap();
    let authority = |pki| dir.path().join(pki).join("ca-cert.pem");
    fs::copy(authority("pki"), authority("bare")).unwrap();
    Some(dir)
}

/// The server at the socket `nbd`, called `server`, by the certificates in `pki`.
fn uri(dir: &Path, server: &str, pki: &str) -> String {
    let (socket, pki) = (dir.join("nbd"), dir.join(pki));
    let (socket, pki) = (socket.display(), pki.display());
    format!("nbds+unix://{server}/disk?socket={socket}&tls-certificates={pki}")
}

fn connect(uri: &str) -> blockdev_core::Result<NbdStorage> {
    NbdStorage::connect(uri, &ClientOptions::default())
}

/// `len` bytes that are all 7 at the socket `nbd`, within TLS.
fn serve(dir: &Path, len: usize, verify: bool) -> Running {
    let credentials = Credentials::x509(dir.join("pki"), verify).unwrap();
    let export = Export::new("disk", disk(len)).writable();
    let server = Server::new(vec![export], ServerOptions::default()).unwrap();
    let listener = Listener::unix(dir.join("nbd")).unwrap();
    server.tls(credentials).start(listener).unwrap()
}

/// Several threads write what is theirs, all at once, and read it again.
fn used_by_several(export: &NbdStorage) {
    const SHARE: usize = 3 * MIB;
    thread::scope(|scope| {
        for mine in 0..4u8 {
            scope.spawn(move || {
                let at = |offset: usize| (usize::from(mine) * SHARE + offset) as u64;
                let mut bytes = vec![0; SHARE];
                testkit::Rng::new(mine.into()).fill(&mut bytes);
                for (piece, data) in bytes.chunks(300_007).enumerate() {
                    export.write_at(data, at(piece * 300_007)).unwrap();
                }
                export.sync(SyncKind::Full).unwrap();
                let mut read = vec![0; SHARE];
                export.read_at(&mut read, at(0)).unwrap();
                assert!(read == bytes);
                export.zero_range(at(5), 100_000).unwrap();
                export.read_at(&mut read, at(0)).unwrap();
                bytes[5..100_005].fill(0);
                assert!(read == bytes);
            });
        }
    });
}

#[test]
fn several_threads_use_an_export_within_tls() {
    let Some(dir) = certificates() else {
        return;
    };
    let dir = dir.path();
    for (verify, pki) in [(true, "pki"), (false, "pki"), (false, "bare")] {
        let running = serve(dir, 12 * MIB, verify);
        let export = connect(&uri(dir, "localhost", pki)).unwrap();
        used_by_several(&export);
        drop(export);
        let exports = list_exports(&uri(dir, "localhost", pki), &ClientOptions::default());
        assert_eq!(exports.unwrap()[0].name, "disk");
        running.stop().unwrap();
    }
}

#[test]
fn by_tcp_the_server_is_known_by_its_address_or_another_name() {
    let Some(dir) = certificates() else {
        return;
    };
    let pki = dir.path().join("pki");
    let credentials = Credentials::x509(&pki, true).unwrap();
    let export = Export::new("disk", disk(MIB));
    let server = Server::new(vec![export], ServerOptions::default()).unwrap();
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let running = server.tls(credentials).start(listener).unwrap();
    let uri = |more: &str| {
        let (address, pki) = (running.address(), pki.display());
        format!("nbds://{address}/disk?tls-certificates={pki}{more}")
    };
    for (more, right) in [
        ("", true),
        ("&tls-hostname=localhost", true),
        ("&tls-hostname=127.0.0.2", false),
        ("&tls-hostname=elsewhere", false),
    ] {
        let told = connect(&uri(more));
        assert_eq!(told.is_ok(), right, "{more}: {told:?}");
    }
    running.stop().unwrap();
}

/// What whoever sits between could have: everything but a signature that counts.
#[test]
fn a_server_that_is_not_who_it_should_be_is_told_nothing() {
    let Some(dir) = certificates() else {
        return;
    };
    let dir = dir.path();
    let running = serve(dir, MIB, false);
    for (server, pki) in [("elsewhere", "pki"), ("localhost", "others")] {
        let error = connect(&uri(dir, server, pki)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    running.stop().unwrap();

    // And the server asks who the client is, too.
    let running = serve(dir, MIB, true);
    let forged = dir.join("forged");
    fs::create_dir(&forged).unwrap();
    fs::copy(dir.join("pki/ca-cert.pem"), forged.join("ca-cert.pem")).unwrap();
    for file in ["client-cert.pem", "client-key.pem"] {
        fs::copy(dir.join("others").join(file), forged.join(file)).unwrap();
    }
    for pki in ["bare", "forged"] {
        let error = connect(&uri(dir, "localhost", pki)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{pki}: {error}");
    }
    connect(&uri(dir, "localhost", "pki")).unwrap();
    running.stop().unwrap();
}

#[test]
fn a_server_without_tls_gets_no_question_in_the_clear() {
    let Some(dir) = certificates() else {
        return;
    };
    let dir = dir.path();
    let export = Export::new("disk", disk(MIB));
    let server = Server::new(vec![export], ServerOptions::default()).unwrap();
    let listener = Listener::unix(dir.join("nbd")).unwrap();
    let running = server.start(listener).unwrap();
    let error = connect(&uri(dir, "localhost", "pki")).unwrap_err();
    assert!(error.to_string().contains("no TLS"), "{error}");
    running.stop().unwrap();

    // To the byte: after the wish for TLS it hears nothing, whatever it says.
    let began = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let mut refusal = b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x05\x80\0\0\x01".to_vec();
    refusal.extend([0; 4]);
    let old = b"NBDMAGICIHAVEOPT\0\0".to_vec();
    for (greeting, answer, heard) in [(began, refusal, 4 + 16), (old, Vec::new(), 0)] {
        let listener = UnixListener::bind(dir.join("nbd")).unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(&greeting).unwrap();
            let mut asked = vec![0; heard];
            client.read_exact(&mut asked).unwrap();
            // It may be gone already.
            let _ = client.write_all(&answer);
            let mut more = Vec::new();
            let _ = client.read_to_end(&mut more);
            more
        });
        assert!(connect(&uri(dir, "localhost", "pki")).is_err());
        assert_eq!(server.join().unwrap(), b"", "in the clear");
        fs::remove_file(dir.join("nbd")).unwrap();
    }
}

/// One that consents to TLS and then says `more` slowly, or nothing.
fn stalling(dir: &Path, more: Vec<u8>) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(dir.join("nbd")).unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.write_all(b"NBDMAGICIHAVEOPT\0\x03").unwrap();
        client.read_exact(&mut [0; 20]).unwrap();
        let mut consent = b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x05\0\0\0\x01".to_vec();
        consent.extend([0; 4]);
        client.write_all(&consent).unwrap();
        for byte in more {
            if client.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(SHORT / 40);
        }
        let _ = client.read_to_end(&mut Vec::new());
    })
}

#[test]
fn a_server_that_stalls_dribbles_or_talks_nonsense_in_the_handshake_is_left() {
    let Some(dir) = certificates() else {
        return;
    };
    let dir = dir.path();
    let impatient = ClientOptions::default().patience(SHORT);
    // The head of a record that is never whole; records of one byte; no record at all.
    let half = vec![22, 3, 3, 0x40, 0, 2, 0, 0xff];
    let dribble = [22, 3, 3, 0, 1, 2].repeat(1000);
    for more in [Vec::new(), half, dribble, b"GET / HTTP/1.1\r\n".to_vec()] {
        let server = stalling(dir, more);
        let began = Instant::now();
        let error = NbdStorage::connect(&uri(dir, "localhost", "pki"), &impatient).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(began.elapsed() < SHORT * 10, "{:?}", began.elapsed());
        server.join().unwrap();
        fs::remove_file(dir.join("nbd")).unwrap();
    }
}

#[test]
fn certificates_of_no_use_are_named_before_anybody_is_asked() {
    let Some(dir) = certificates() else {
        return;
    };
    let dir = dir.path();
    let named = |server: &str, pki: &str| {
        let error = connect(&uri(dir, server, pki)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    assert!(named("localhost", "nowhere").contains("nowhere/ca-cert.pem"));
    assert!(named("not a name", "pki").contains("not a name"));
    fs::remove_file(dir.join("pki/client-key.pem")).unwrap();
    assert!(named("localhost", "pki").contains("client-key.pem"));
    fs::copy(
        dir.join("others/client-key.pem"),
        dir.join("pki/client-key.pem"),
    )
    .unwrap();
    assert!(named("localhost", "pki").contains("client-cert.pem"));
    fs::write(dir.join("bare/ca-cert.pem"), "no certificate").unwrap();
    assert!(named("localhost", "bare").contains("bare/ca-cert.pem"));
}

/// QEMU's server at the socket `nbd`, killed in the end.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn qemu_serves_who_shows_a_certificate() {
    let (Some(qemu_nbd), Some(dir)) = (NbdServer::QemuNbd.find(), certificates()) else {
        return;
    };
    let dir = dir.path();
    let path = |name: &str| -> PathBuf { dir.join(name) };
    fs::File::create(path("raw"))
        .unwrap()
        .set_len(12 << 20)
        .unwrap();
    let pki = path("pki");
    let object = format!("tls-creds-x509,id=t,endpoint=server,dir={}", pki.display());
    let server = Command::new(qemu_nbd)
        .args(["-t", "-e", "8", "-f", "raw", "-x", "disk", "--object"])
        .arg(object)
        .args(["--tls-creds", "t", "-k"])
        .args([path("nbd"), path("raw")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Qemu(server);
    let began = Instant::now();
    let export = loop {
        match connect(&uri(dir, "localhost", "pki")) {
            Ok(export) => break export,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    let export = Arc::new(export);
    used_by_several(&export);
    assert!(connect(&uri(dir, "localhost", "bare")).is_err());
    assert!(connect(&uri(dir, "elsewhere", "pki")).is_err());
    let plain = format!("nbd+unix:///disk?socket={}", path("nbd").display());
    let error = connect(&plain).unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}
