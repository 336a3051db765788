//! A server that talks within TLS only: to libnbd and QEMU, who do, and to those who do it badly or not.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blockdev_core::BlockDevice;
use blockdev_nbd::{
    Address, Credentials, Export, Listener, NbdError, Running, Server, ServerOptions,
};
use common::{Client, MIB, disk};
use testkit::oracle::{Certtool, NbdTools, QemuImg};

const SHORT: Duration = Duration::from_millis(400);
const STARTTLS: &[u8] = b"IHAVEOPT\0\0\0\x05\0\0\0\0";

/// A disk within TLS at the socket `nbd`, with certificates in `pki` and strangers' in `others`.
struct Secured {
    dir: tempfile::TempDir,
    running: Running,
}

impl Secured {
    /// `None` where no certificates can be made.
    fn new(device: &Arc<dyn BlockDevice>, verify: bool, options: ServerOptions) -> Option<Self> {
        let certtool = Certtool::find()?;
        let dir = tempfile::tempdir().unwrap();
        for pki in ["pki", "others"] {
            certtool.make(&dir.path().join(pki));
        }
        let export = Export::new("disk", Arc::clone(device)).writable();
        let credentials = Credentials::x509(dir.path().join("pki"), verify).unwrap();
        let server = Server::new(vec![export], options).unwrap().tls(credentials);
        let listener = Listener::unix(dir.path().join("nbd")).unwrap();
        let running = server.start(listener).unwrap();
        Some(Self { dir, running })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What names the disk to a client with the certificates in `pki`.
    fn uri(&self, pki: &str) -> String {
        let (socket, pki) = (self.path("nbd"), self.path(pki));
        let (socket, pki) = (socket.display(), pki.display());
        format!("nbds+unix://localhost/disk?socket={socket}&tls-certificates={pki}")
    }

    fn still_serves(&self) {
        let told = NbdTools::find().unwrap().info(&self.uri("pki")).unwrap();
        assert_eq!(told["TLS"], true);
    }
}

fn impatient() -> ServerOptions {
    ServerOptions::default()
        .handshake_timeout(SHORT)
        .request_timeout(SHORT)
}

/// Past the greeting, and with consent to begin TLS.
fn consented(dir: &Path) -> Client {
    let mut client = Client::connect(dir);
    client.bytes(18);
    client.send(&[0, 0, 0, 3]);
    client.send(STARTTLS);
    assert_eq!(client.bytes(20)[12..16], [0, 0, 0, 1]);
    client
}

fn content(disk: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn libnbd_reads_and_writes_by_several_connections() {
    let device = disk(24 * MIB + 511);
    let options = ServerOptions::default();
    let (Some(tools), Some(secured)) = (NbdTools::find(), Secured::new(&device, true, options))
    else {
        return;
    };
    let told = tools.info(&secured.uri("pki")).unwrap();
    assert_eq!(told["TLS"], true);
    assert_eq!(told["structured"], true);
    let mut bytes = content(&*device);
    testkit::Rng::new(5).fill(&mut bytes[..20 * MIB]);
    let file = |name: &str| secured.path(name).to_str().unwrap().to_owned();
    fs::write(file("in"), &bytes).unwrap();
    tools.copy(&file("in"), &secured.uri("pki")).unwrap();
    assert!(content(&*device) == bytes);
    tools.copy(&secured.uri("pki"), &file("out")).unwrap();
    assert!(fs::read(file("out")).unwrap() == bytes);
    secured.running.stop().unwrap();
}

#[test]
fn qemu_reads_by_tcp_and_sees_that_it_is_who_it_says() {
    let (Some(certtool), Some(_)) = (Certtool::find(), QemuImg::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for pki in ["pki", "others"] {
        certtool.make(&dir.path().join(pki));
    }
    let device = disk(3 * MIB);
    let credentials = Credentials::x509(dir.path().join("pki"), true).unwrap();
    let export = Export::new("disk", Arc::clone(&device));
    let server = Server::new(vec![export], ServerOptions::default()).unwrap();
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let running = server.tls(credentials).start(listener).unwrap();
    let Address::Tcp(address) = *running.address() else {
        panic!("{:?}", running.address());
    };
    let convert = |pki: &str| {
        let object = format!("tls-creds-x509,id=tls0,dir={pki},endpoint=client");
        let (host, port) = (address.ip(), address.port());
        let image = format!(
            "driver=nbd,server.type=inet,server.host={host},server.port={port},export=disk,\
             tls-creds=tls0"
        );
        Command::new("qemu-img")
            .current_dir(dir.path())
            .args(["convert", "--object", &object, "--image-opts", &image])
            .args(["-O", "raw", "out"])
            .output()
            .unwrap()
    };
    let refused = convert("others");
    assert_eq!(refused.status.code(), Some(1));
    assert!(!dir.path().join("out").exists());
    let read = convert("pki");
    assert!(read.status.success(), "{read:?}");
    assert!(fs::read(dir.path().join("out")).unwrap() == content(&*device));
    running.stop().unwrap();
}

#[test]
fn who_has_no_certificate_or_a_strangers_is_served_nothing() {
    let device = disk(MIB);
    let Some(tools) = NbdTools::find() else {
        return;
    };
    for verify in [true, false] {
        let Some(secured) = Secured::new(&device, verify, ServerOptions::default()) else {
            return;
        };
        // Knows the server, and has nothing to show or what somebody else has signed.
        for (pki, own) in [("bare", None), ("forged", Some("others"))] {
            fs::create_dir(secured.path(pki)).unwrap();
            let copy = |from: &str, file: &str| {
                let from = secured.path(from).join(file);
                fs::copy(from, secured.path(pki).join(file)).unwrap();
            };
            copy("pki", "ca-cert.pem");
            if let Some(own) = own {
                copy(own, "client-cert.pem");
                copy(own, "client-key.pem");
            }
            let told = tools.info(&secured.uri(pki));
            assert_eq!(told.is_ok(), !verify, "{pki}: {told:?}");
        }
        let told = tools.info(&secured.uri("others"));
        assert_eq!(told.is_ok(), !verify, "{told:?}");
        secured.still_serves();
        secured.running.stop().unwrap();
    }
}

#[test]
fn who_speaks_in_the_clear_is_told_that_tls_is_required() {
    let device = disk(MIB);
    let options = ServerOptions::default();
    let (Some(tools), Some(secured)) = (NbdTools::find(), Secured::new(&device, false, options))
    else {
        return;
    };
    let plain = testkit::oracle::nbd_uri(&secured.path("nbd"), "disk");
    let complaint = tools.info(&plain).unwrap_err();
    assert!(complaint.contains("not supported"), "{complaint}");
    let mut oldest = Client::connect(secured.dir.path());
    oldest.bytes(18);
    oldest.send(&[0, 0, 0, 3]);
    oldest.send(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
    assert!(oldest.ended(), "it cannot be told otherwise");
    secured.still_serves();
    secured.running.stop().unwrap();
}

#[test]
fn what_came_in_the_clear_is_not_taken_for_what_comes_within() {
    let device = disk(MIB);
    let Some(secured) = Secured::new(&device, false, ServerOptions::default()) else {
        return;
    };
    // Whoever sits between the two could send it after the client's wish for TLS.
    let mut client = Client::connect(secured.dir.path());
    client.bytes(18);
    client.send(&[0, 0, 0, 3]);
    client.send(&[STARTTLS, b"IHAVEOPT\0\0\0\x01\0\0\0\0"].concat());
    client.bytes(20);
    assert!(client.ended());
    secured.still_serves();
    secured.running.stop().unwrap();
}

#[test]
fn garbage_instead_of_tls_ends_the_connection() {
    let device = disk(MIB);
    let Some(secured) = Secured::new(&device, true, ServerOptions::default()) else {
        return;
    };
    let mut rng = testkit::Rng::new(3);
    for round in 0..40 {
        let mut client = consented(secured.dir.path());
        let mut bytes = vec![0; 1 + usize::try_from(rng.below(3000)).unwrap()];
        rng.fill(&mut bytes);
        if round % 2 == 0 {
            // The head of a record of a handshake, as long as it can be.
            bytes.splice(0..0, [22, 3, 1, 0x40, 0]);
        }
        // It may have ended before all of it is there.
        let _ = client.0.write_all(&bytes);
        let _ = client.0.shutdown(std::net::Shutdown::Write);
        let mut told = Vec::new();
        let _ = client.0.read_to_end(&mut told);
        assert!(told.len() < 64, "an alert at most: {told:?}");
    }
    secured.still_serves();
    secured.running.stop().unwrap();
}

#[test]
fn a_client_that_stalls_or_dribbles_in_the_handshake_is_left() {
    let device = disk(MIB);
    let Some(secured) = Secured::new(&device, true, impatient()) else {
        return;
    };
    let mut silent = consented(secured.dir.path());
    assert!(silent.ended());
    let mut half = consented(secured.dir.path());
    half.send(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    assert!(half.ended());
    // Records with little in them keep nobody's clock from going on.
    let began = Instant::now();
    let mut dribbling = consented(secured.dir.path());
    let mut hello = vec![1, 0, 0xff, 0];
    hello.extend([3; 0xff00]);
    for byte in hello {
        if dribbling.0.write_all(&[22, 3, 1, 0, 1, byte]).is_err() {
            break;
        }
        thread::sleep(SHORT / 40);
        assert!(began.elapsed() < SHORT * 20, "it was never ended");
    }
    // And those who stall all at once keep others out for no longer than they have.
    let _crowd: Vec<_> = (0..16).map(|_| consented(secured.dir.path())).collect();
    thread::sleep(SHORT * 2);
    secured.still_serves();
    secured.running.stop().unwrap();
}

#[test]
fn credentials_that_are_not_there_or_of_no_use_are_named() {
    let Some(certtool) = Certtool::find() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    certtool.make(&pki);
    let named = |verify| match Credentials::x509(&pki, verify) {
        Err(NbdError::Tls { path, .. }) => path.file_name().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    let keep = fs::read(pki.join("server-cert.pem")).unwrap();
    for damaged in [
        &b""[..],
        b"-----BEGIN CERTIFICATE-----\n!!\n",
        &[b'x'; 2 << 20],
    ] {
        fs::write(pki.join("server-cert.pem"), damaged).unwrap();
        assert_eq!(named(false), "server-cert.pem");
    }
    fs::write(pki.join("server-cert.pem"), keep).unwrap();
    fs::copy(pki.join("client-key.pem"), pki.join("server-key.pem")).unwrap();
    assert_eq!(named(false), "server-cert.pem", "its key is another");
    certtool.make(&dir.path().join("whole"));
    fs::copy(
        dir.path().join("whole/server-key.pem"),
        pki.join("server-key.pem"),
    )
    .unwrap();
    fs::copy(
        dir.path().join("whole/server-cert.pem"),
        pki.join("server-cert.pem"),
    )
    .unwrap();
    fs::remove_file(pki.join("ca-cert.pem")).unwrap();
    assert!(Credentials::x509(&pki, false).is_ok());
    assert_eq!(named(true), "ca-cert.pem");
    fs::remove_file(pki.join("server-key.pem")).unwrap();
    assert_eq!(named(false), "server-key.pem");
}
