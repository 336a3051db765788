//! What a server promises to clients that mean well, and to whoever runs it.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{fs, thread};

use blockdev_core::{BlockDevice, DeviceInfo, Extent, Result, ZeroFlags};
use blockdev_nbd::{Export, Listener, NbdError, Server, ServerOptions};
use common::{Client, DISC, FLUSH, MIB, READ, WRITE, disk, request, serve};
use testkit::Rng;

/// A disk whose reads of the first byte wait until they are let go, and which counts its flushes.
struct Slow {
    disk: Arc<dyn BlockDevice>,
    held: Mutex<bool>,
    let_go: Condvar,
    /// Reads that were begun.
    begun: AtomicU32,
    flushes: AtomicU32,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            disk: disk(MIB),
            held: Mutex::new(true),
            let_go: Condvar::new(),
            begun: AtomicU32::new(0),
            flushes: AtomicU32::new(0),
        })
    }

    fn wait_until_begun(&self) {
        while self.begun.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
    }

    fn let_go(&self) {
        *self.held.lock().unwrap() = false;
        self.let_go.notify_all();
    }
}

impl BlockDevice for Slow {
    fn info(&self) -> &DeviceInfo {
        self.disk.info()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if offset == 0 {
            let held = self.held.lock().unwrap();
            drop(self.let_go.wait_while(held, |held| *held).unwrap());
        }
        self.disk.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        assert!(offset != 13 * 512, "a mistake of the device's");
        self.disk.write_at(buf, offset)
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        self.disk.block_status(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.disk.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.disk.discard(offset, len)
    }

    fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.disk.flush()
    }
}

#[test]
fn a_slow_request_does_not_hold_up_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Slow::new();
    let device: Arc<dyn BlockDevice> = slow.clone();
    let running = serve(dir.path(), &device, ServerOptions::default());
    let mut client = Client::transmitting(dir.path());
    client.request(READ, 0, 1, 0, 512);
    client.request(READ, 0, 2, 512, 512);
    assert_eq!(client.reply(), (0, 2), "the second is answered first");
    client.bytes(512);
    slow.let_go();
    assert_eq!(client.reply(), (0, 1));
    client.bytes(512);
    drop(client);
    running.stop().unwrap();
}

#[test]
fn a_server_that_stops_answers_what_is_under_way_and_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Slow::new();
    let device: Arc<dyn BlockDevice> = slow.clone();
    let running = serve(dir.path(), &device, ServerOptions::default());
    let mut client = Client::transmitting(dir.path());
    client.write(1024, &[9; 512]);
    assert_eq!(slow.flushes.load(Ordering::SeqCst), 0);
    client.request(READ, 0, 1, 0, 512);
    slow.wait_until_begun();
    let stopper = running.stopper();
    stopper.stop();
    running.wait();
    let ending = thread::spawn(move || running.stop());
    thread::sleep(Duration::from_millis(100));
    assert!(!ending.is_finished(), "a request is under way");
    slow.let_go();
    assert_eq!(client.reply(), (0, 1));
    assert_eq!(client.bytes(512), [7; 512]);
    assert!(client.ended());
    ending.join().unwrap().unwrap();
    assert_eq!(slow.flushes.load(Ordering::SeqCst), 1);
    assert!(!dir.path().join("nbd").exists(), "the socket is gone");
    drop(device);
    // Whoever could stop it keeps nothing open.
    assert_eq!(Arc::strong_count(&slow), 1);
    drop(stopper);
}

#[test]
fn durable_writes_are_flushed_before_the_reply() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Slow::new();
    let device: Arc<dyn BlockDevice> = slow.clone();
    let running = serve(dir.path(), &device, ServerOptions::default());
    let mut client = Client::transmitting(dir.path());
    for (count, kind) in [(1, WRITE), (2, 4), (3, 6), (4, FLUSH)] {
        let (flags, len) = if kind == FLUSH { (0, 0) } else { (1, 512) };
        client.request(kind, flags, 5, 0, len);
        if kind == WRITE {
            client.send(&[1; 512]);
        }
        assert_eq!(client.reply(), (0, 5));
        assert_eq!(slow.flushes.load(Ordering::SeqCst), count);
    }
    running.stop().unwrap();
}

#[test]
fn zeros_that_would_be_slow_are_refused_to_whoever_wants_them_fast() {
    let dir = tempfile::tempdir().unwrap();
    let device = disk(MIB);
    let running = serve(dir.path(), &device, ServerOptions::default());
    let mut client = Client::transmitting(dir.path());
    let (no_hole, fast) = (1 << 1, 1 << 4);
    // This disk has no way to them but byte by byte, or else a hole.
    client.request(6, no_hole | fast, 1, 0, 4096);
    assert_eq!(client.reply(), (95, 1), "ENOTSUP");
    assert_eq!(client.read(0, 4096), [7; 4096]);
    client.request(6, no_hole, 1, 0, 4096);
    assert_eq!(client.reply(), (0, 1));
    assert_eq!(client.read(0, 4096), [0; 4096]);
    running.stop().unwrap();
}

#[test]
fn a_device_that_panics_takes_one_connection_along() {
    let dir = tempfile::tempdir().unwrap();
    let device: Arc<dyn BlockDevice> = Slow::new();
    let running = serve(dir.path(), &device, ServerOptions::default());
    let mut client = Client::transmitting(dir.path());
    let mut bytes = request(WRITE, 0, 1, 13 * 512, 512);
    bytes.extend([1; 512]);
    client.send(&bytes);
    assert!(client.ended());
    let mut other = Client::transmitting(dir.path());
    other.write(512, &[2; 512]);
    running.stop().unwrap();
}

#[test]
fn connections_share_one_disk() {
    const CLIENTS: usize = 4;
    const SPAN: usize = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let device = disk(CLIENTS * SPAN);
    let running = serve(dir.path(), &device, ServerOptions::default());
    let life = |number: usize| {
        let mut rng = Rng::new(number as u64 + 1);
        let mut client = Client::transmitting(dir.path());
        let mut model = vec![7; SPAN];
        for _ in 0..300 {
            let at = rng.index(SPAN);
            let len = 1 + rng.index((SPAN - at).min(9000));
            let on_disk = (number * SPAN + at) as u64;
            if rng.one_in(2) {
                rng.fill(&mut model[at..at + len]);
                client.write(on_disk, &model[at..at + len]);
            } else {
                let read = client.read(on_disk, u32::try_from(len).unwrap());
                assert!(read == model[at..at + len], "{len} bytes at {at}");
            }
        }
        model
    };
    let models: Vec<Vec<u8>> = thread::scope(|scope| {
        let life = &life;
        let lives: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || life(number)))
            .collect();
        lives.into_iter().map(|life| life.join().unwrap()).collect()
    });
    let mut other = Client::transmitting(dir.path());
    let size = u32::try_from(CLIENTS * SPAN).unwrap();
    assert!(
        other.read(0, size) == models.concat(),
        "what one wrote all read"
    );
    running.stop().unwrap();
}

#[test]
fn the_last_client_ends_the_wait_and_a_passer_by_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let device = disk(MIB);
    let running = serve(dir.path(), &device, ServerOptions::default());
    let (done, is_done) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            running.wait_for_last();
            done.send(()).unwrap();
        });
        let wait = Duration::from_millis(150);
        Client::connect(dir.path()).bytes(18);
        assert!(is_done.recv_timeout(wait).is_err(), "it had no export");
        let first = Client::transmitting(dir.path());
        let mut second = Client::transmitting(dir.path());
        drop(first);
        assert!(is_done.recv_timeout(wait).is_err(), "one is left");
        second.request(DISC, 0, 0, 0, 0);
        is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    });
    running.stop().unwrap();
}

#[test]
fn a_socket_is_its_owners_and_replaces_only_what_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd");
    fs::write(&path, "precious").unwrap();
    let refused = Listener::unix(&path).unwrap_err();
    assert!(matches!(refused, NbdError::NotASocket(_)), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    drop(UnixListener::bind(&path).unwrap());
    let listener = Listener::unix(&path).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let refused = Listener::unix(&path).unwrap_err();
    assert!(matches!(refused, NbdError::InUse(_)), "{refused}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else");

    fs::remove_file(&path).unwrap();
    // What a process of the same number left when it was killed is in nobody's way.
    let left = dir.path().join(format!(".nbd{}-0", std::process::id()));
    drop(UnixListener::bind(left).unwrap());
    let second = Listener::unix(&path).unwrap();
    drop(listener);
    assert!(path.exists(), "it is the other's now");
    drop(second);
    assert!(!path.exists());
}

/// The name that a socket has until it listens is longer than many: where its own had just room, there was
/// no server.
#[test]
fn a_path_just_short_enough_is_listened_at_and_a_longer_one_leaves_nothing() {
    const ROOM: usize = 107;
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().as_os_str().len() + "/".len();
    let deep = dir.path().join("d".repeat(ROOM - taken - "/n".len()));
    fs::create_dir(&deep).unwrap();
    let path = deep.join("n");
    assert_eq!(path.as_os_str().len(), ROOM);
    let listener = Listener::unix(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(listener);
    let refused = Listener::unix(deep.join("no")).unwrap_err();
    assert!(matches!(refused, NbdError::Host { .. }), "{refused}");
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
}

#[test]
fn servers_that_make_no_sense_are_refused() {
    let export = |name: &str| Export::new(name, disk(512));
    let new = |exports, options| Server::new(exports, options).unwrap_err();
    let usual = ServerOptions::default();
    assert!(matches!(new(vec![], usual), NbdError::NoExport));
    let twice = vec![export("a"), export("a")];
    assert!(matches!(new(twice, usual), NbdError::SameName(_)));
    let long = vec![export(&"x".repeat(4097))];
    assert!(matches!(new(long, usual), NbdError::Name));
    for options in [usual.connections(0), usual.workers(0)] {
        assert!(matches!(
            new(vec![export("")], options),
            NbdError::Options(_)
        ));
    }
}
