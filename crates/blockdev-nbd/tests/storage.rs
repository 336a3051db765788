//! The export of a server as what an image lies in: of our server, of others', and of some that lie.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blockdev_core::{BlockDevice, ErrorKind, LoneLayer, RawLayer, Storage, SyncKind};
use blockdev_nbd::{ClientOptions, Export, Listener, NbdStorage, Server, ServerOptions};
use common::{MIB, disk, serve};
use testkit::conformance;
use testkit::oracle::NbdServer;

fn connect(path: &Path, name: &str) -> blockdev_core::Result<NbdStorage> {
    NbdStorage::connect_unix(path, name, &ClientOptions::default())
}

fn device(export: NbdStorage) -> impl BlockDevice {
    LoneLayer::new(Box::new(RawLayer::open(Arc::new(export)).unwrap()))
}

#[test]
fn a_disk_by_way_of_a_server_is_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(2 * MIB);
    let running = serve(dir.path(), &disk, ServerOptions::default());
    let export = connect(&dir.path().join("nbd"), "disk").unwrap();
    let mut content = vec![7; 2 * MIB];
    conformance::writable(&device(export), &mut content);
    // What came by the network is what lies on the disk.
    conformance::readable(&*disk, &content[..]);
    running.stop().unwrap();
}

#[test]
fn several_threads_share_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path(), &disk(MIB), ServerOptions::default());
    let export = connect(&dir.path().join("nbd"), "disk").unwrap();
    thread::scope(|scope| {
        for mine in 0..4u8 {
            let export = &export;
            scope.spawn(move || {
                let at = u64::from(mine) * 4096;
                for turn in 0..50 {
                    let data = [mine * 60 + turn; 4096];
                    export.write_at(&data, at).unwrap();
                    let mut back = [0; 4096];
                    export.read_at(&mut back, at).unwrap();
                    assert_eq!(back, data);
                }
            });
        }
    });
    drop(export);
    running.stop().unwrap();
}

#[test]
fn a_read_only_export_and_the_end_of_the_disk_are_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd");
    let server = Server::new(vec![Export::new("", disk(MIB))], ServerOptions::default());
    let listener = Listener::unix(&path).unwrap();
    let running = server.unwrap().start(listener).unwrap();
    let export = connect(&path, "").unwrap();
    assert!(export.is_read_only());
    export.sync(SyncKind::Full).unwrap();
    for refused in [
        export.write_at(&[1], 0),
        export.zero_range(0, 1),
        export.punch_hole(0, 1),
        export.set_len(1),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    let past = export.read_at(&mut [0; 2], MIB as u64 - 1).unwrap_err();
    assert_eq!(past.kind(), ErrorKind::Io);
    let past = export.next_extent(MIB as u64).unwrap_err();
    assert_eq!(past.kind(), ErrorKind::OutOfRange);
    let unknown = connect(&path, "other").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Io);
    assert!(unknown.to_string().contains("refuses"), "{unknown}");
    running.stop().unwrap();
    let gone = export.read_at(&mut [0], 0).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Io);
    for later in [
        export.read_at(&mut [0], 0),
        export.sync(SyncKind::Data),
        export.next_extent(0).map(drop),
    ] {
        assert_eq!(later.unwrap_err().kind(), ErrorKind::Poisoned);
    }
}

/// A server that somebody else wrote, ended with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program of `server`, which makes the socket `path`; `None` where it is not installed.
fn other(server: NbdServer, arguments: &[&str], path: &Path) -> Option<Other> {
    let mut command = Command::new(server.find()?);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let running = Other(command.spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < end, "{server:?} makes no socket");
        thread::sleep(Duration::from_millis(10));
    }
    Some(running)
}

/// Connected to nbdkit with `arguments`, which lives as long as the first of the result.
fn nbdkit(dir: &Path, arguments: &[&str]) -> Option<(Other, NbdStorage)> {
    let path = dir.join("nbd");
    let mut all = vec!["-f", "-U", path.to_str().unwrap()];
    all.extend(arguments);
    let server = other(NbdServer::Nbdkit, &all, &path)?;
    let uri = format!("nbd+unix:///?socket={}", path.display());
    let export = NbdStorage::connect(&uri, &ClientOptions::default()).unwrap();
    Some((server, export))
}

/// Of plain servers, of those without structured replies, without zeros, without status, and of those
/// that take whole blocks and short requests only.
#[test]
fn whatever_nbdkit_offers_its_disk_is_a_disk() {
    for arguments in [
        &["memory", "2M"][..],
        &["--no-sr", "memory", "2M"],
        &["--filter=nozero", "memory", "2M"],
        &["--filter=noextents", "memory", "2M"],
        &[
            "--filter=blocksize-policy",
            "memory",
            "2M",
            "blocksize-minimum=4096",
            "blocksize-preferred=4096",
            "blocksize-maximum=64K",
            "blocksize-error-policy=error",
        ],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some((_server, export)) = nbdkit(dir.path(), arguments) else {
            return;
        };
        let mut content = vec![0; 2 * MIB];
        conformance::writable(&device(export), &mut content);
    }
}

#[test]
fn nbdkit_tells_what_it_does_not_store() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_server, export)) = nbdkit(dir.path(), &["memory", "2M"]) else {
        return;
    };
    export.write_at(&[1; 65536], MIB as u64).unwrap();
    let first = export.next_extent(0).unwrap();
    assert_eq!((first.len, first.allocated), (MIB as u64, false));
    assert!(export.next_extent(MIB as u64).unwrap().allocated);
    export.punch_hole(MIB as u64, 65536).unwrap();
    assert!(!export.next_extent(MIB as u64).unwrap().allocated);
    let mut back = [1; 16];
    export.read_at(&mut back, MIB as u64).unwrap();
    assert_eq!(back, [0; 16]);
}

#[test]
fn a_read_only_nbdkit_and_a_disk_of_no_whole_blocks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_server, export)) = nbdkit(dir.path(), &["-r", "memory", "1M"]) else {
        return;
    };
    assert!(export.is_read_only());
    let refused = export.write_at(&[1], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd");
    let filter = ["--filter=blocksize-policy", "memory", "1000"];
    let block = ["blocksize-minimum=512", "blocksize-preferred=512"];
    let start = ["-f", "-U", path.to_str().unwrap()];
    let arguments = [&start[..], &filter, &block].concat();
    let Some(_server) = other(NbdServer::Nbdkit, &arguments, &path) else {
        return;
    };
    let refused = connect(&path, "").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
}

/// A failing request fails alone: the next one is answered.
#[test]
fn an_error_of_the_server_is_told_and_the_connection_goes_on() {
    for arguments in [
        &[
            "eval",
            "get_size=echo 1048576",
            "pread=echo ENOSPC no room >&2; exit 1",
        ][..],
        &[
            "--no-sr",
            "eval",
            "get_size=echo 1048576",
            "pread=echo ENOSPC no room >&2; exit 1",
        ],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some((_server, export)) = nbdkit(dir.path(), arguments) else {
            return;
        };
        for _ in 0..2 {
            let failed = export.read_at(&mut [0; 16], 0).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::NoSpace, "{failed}");
        }
    }
}

/// Zeros could not be told to last, and were.
#[test]
fn a_server_that_does_not_flush_is_not_said_to() {
    let dir = tempfile::tempdir().unwrap();
    let script = ["eval", "get_size=echo 4096", "pread=head -c $3 /dev/zero"];
    let write = ["can_write=exit 0", "pwrite=cat >/dev/null"];
    let Some((_server, export)) = nbdkit(dir.path(), &[&script[..], &write].concat()) else {
        return;
    };
    export.sync(SyncKind::Data).unwrap();
    export.write_at(&[1], 0).unwrap();
    let refused = export.sync(SyncKind::Data).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}

#[test]
fn an_image_by_way_of_qemu_is_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (path, image) = (dir.path().join("nbd"), dir.path().join("image"));
    std::fs::write(&image, vec![7; 2 * MIB]).unwrap();
    let start = [
        "-f",
        "raw",
        "-t",
        "-x",
        "disk",
        "-k",
        path.to_str().unwrap(),
    ];
    let arguments = [&start[..], &[image.to_str().unwrap()]].concat();
    let Some(_server) = other(NbdServer::QemuNbd, &arguments, &path) else {
        return;
    };
    let mut content = vec![7; 2 * MIB];
    conformance::writable(&device(connect(&path, "disk").unwrap()), &mut content);
    assert!(std::fs::read(&image).unwrap() == content);
}

/// A server that says `script`, one piece after each message it gets, whatever that is, and hangs up or
/// falls silent then.
fn lies(script: Vec<Vec<u8>>, silent: bool) -> blockdev_core::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        for said in script {
            // Whoever has heard enough hangs up.
            let _ = stream.write_all(&said);
            let _ = stream.read(&mut [0; 4096]);
        }
        while silent && stream.read(&mut [0; 4096]).is_ok_and(|some| some > 0) {}
    });
    let options = ClientOptions::default().patience(Duration::from_secs(1));
    let begin = Instant::now();
    let outcome = NbdStorage::connect_unix(&path, "disk", &options).and_then(|export| {
        let outcome = export.read_at(&mut [0; 16], 0);
        if outcome.is_err() {
            let later = export.read_at(&mut [0; 16], 0).unwrap_err();
            assert_eq!(later.kind(), ErrorKind::Poisoned);
        }
        outcome
    });
    assert!(begin.elapsed() < Duration::from_secs(15), "too long");
    server.join().unwrap();
    outcome
}

fn option(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9];
    for field in [option, kind, u32::try_from(data.len()).unwrap()] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

#[test]
fn a_server_that_lies_is_left() {
    let greeting = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let simple = option(8, (1 << 31) + 1, b"never heard of it");
    let go = [
        option(7, 3, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]),
        option(7, 1, &[]),
    ]
    .concat();
    let mut huge = option(7, 3, &[]);
    huge[16..].fill(0xff);
    let begun = |more: &[&[u8]]| {
        let mut script = vec![greeting.clone(), simple.clone()];
        script.extend(more.iter().map(|said| said.to_vec()));
        script
    };
    let read = |cookie: u8| {
        [
            b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0".as_slice(),
            &[cookie],
        ]
        .concat()
    };
    for script in [
        vec![],
        vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
        vec![greeting[..17].to_vec()],
        vec![greeting.clone(), vec![0; 20]],
        begun(&[&huge]),
        begun(&[&option(7, 3, &[0, 0, 1])]),
        begun(&[&option(7, 1, &[])]),
        begun(&[&option(7, 3, &[0, 9]).repeat(100)]),
        begun(&[&go[..30]]),
        begun(&[&go, &read(7)]),
        begun(&[&go, &[0; 16]]),
        begun(&[&go, b"\x67\x44\x66\x98"]),
        begun(&[&go, &[&read(1)[..], &[5; 15]].concat()]),
        begun(&[&go]),
    ] {
        for silent in [false, true] {
            let error = lies(script.clone(), silent).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{script:?}: {error}");
        }
    }
    let answer = [&read(1)[..], &[5; 16]].concat();
    lies(begun(&[&go, &answer]), false).expect("of one that does not");
}

/// A byte now and then is not nothing, and so a server could keep a client for ever.
#[test]
fn a_server_that_deals_out_crumbs_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut crumbs = 0;
        while crumbs < 300
            && stream
                .write_all(&[b"NBDMAGICIHAVEOPT\0\x03"[crumbs.min(17)]])
                .is_ok()
        {
            crumbs += 1;
            thread::sleep(Duration::from_millis(100));
        }
        crumbs
    });
    let options = ClientOptions::default().patience(Duration::from_secs(1));
    let error = NbdStorage::connect_unix(&path, "disk", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(server.join().unwrap() < 150, "heard for too long");
}

/// The queue of a server that takes nobody in was full, and a client waited for ever.
#[test]
fn a_server_that_takes_nobody_in_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let options = ClientOptions::default().patience(Duration::from_millis(50));
    let begin = Instant::now();
    let connect = || NbdStorage::connect_unix(&path, "disk", &options);
    let _first = UnixStream::connect(&path).unwrap();
    for _ in 0..3 {
        assert_eq!(connect().unwrap_err().kind(), ErrorKind::Io);
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "too long");
}
