//! A client that says exactly what a test wants, and disks to serve.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blockdev_core::{BlockDevice, LoneLayer, MemoryStorage, RawLayer};
use blockdev_nbd::{Export, Listener, Running, Server, ServerOptions};

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const MIB: usize = 1 << 20;

/// A disk of `len` bytes in memory, all 7.
pub(crate) fn disk(len: usize) -> Arc<dyn BlockDevice> {
    let storage = Arc::new(MemoryStorage::from(vec![7; len]));
    Arc::new(LoneLayer::new(Box::new(RawLayer::open(storage).unwrap())))
}

/// `device` for anybody to write to, at the socket `nbd` in `dir`.
pub(crate) fn serve(dir: &Path, device: &Arc<dyn BlockDevice>, options: ServerOptions) -> Running {
    let export = Export::new("disk", Arc::clone(device)).writable();
    let server = Server::new(vec![export], options).unwrap();
    server
        .start(Listener::unix(dir.join("nbd")).unwrap())
        .unwrap()
}

/// One connection. Reading from it gives up after a while, so that a server which says nothing is a failure.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    /// Connected, and nothing said.
    pub(crate) fn connect(dir: &Path) -> Self {
        let stream = UnixStream::connect(dir.join("nbd")).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        Self(stream)
    }

    /// With the default export, simple replies.
    pub(crate) fn transmitting(dir: &Path) -> Self {
        let mut client = Self::connect(dir);
        client.bytes(18);
        client.send(&[0, 0, 0, 3]);
        client.send(b"IHAVEOPT\0\0\0\x01\0\0\0\0");
        client.bytes(10);
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next `len` bytes of the server's.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// True when the server has ended the connection; nothing else may come first.
    pub(crate) fn ended(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
            other => panic!("instead of the end: {other:?}"),
        }
    }

    /// Asks, and does not wait.
    pub(crate) fn request(&mut self, kind: u16, flags: u16, cookie: u64, offset: u64, len: u32) {
        self.send(&request(kind, flags, cookie, offset, len));
    }

    /// The error and the cookie of the next simple reply.
    pub(crate) fn reply(&mut self) -> (u32, u64) {
        let reply = self.bytes(16);
        assert_eq!(reply[..4], [0x67, 0x44, 0x66, 0x98]);
        (
            u32::from_be_bytes(reply[4..8].try_into().unwrap()),
            u64::from_be_bytes(reply[8..].try_into().unwrap()),
        )
    }

    pub(crate) fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        self.request(READ, 0, 1, offset, len);
        assert_eq!(self.reply(), (0, 1));
        self.bytes(len as usize)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        self.request(WRITE, 0, 2, offset, len);
        self.send(data);
        assert_eq!(self.reply(), (0, 2));
    }
}

pub(crate) fn request(kind: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}
