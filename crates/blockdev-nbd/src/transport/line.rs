//! The bytes between a client and its server: the one place of the client's that knows what carries them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::path::Path;
use std::time::{Duration, Instant};

use super::stream::Stream;
use super::timed::{send, too_slow};

/// How much is taken from the socket at once, in bytes, where less is wanted: many heads of replies.
const TAKEN_AT_ONCE: usize = 8 << 10;

/// What has come from the server and was not wanted yet. Whoever reads has it to himself.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; TAKEN_AT_ONCE].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }
}

/// A connected socket, as a client has it.
#[derive(Debug)]
pub(super) struct Line(Stream);

impl Line {
    /// By TCP, to the first of the addresses that answers, which is told.
    pub(super) fn tcp(
        address: impl ToSocketAddrs,
        patience: Duration,
    ) -> io::Result<(Self, SocketAddr)> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => return Ok((Self::new(Stream::Tcp(stream))?, address)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// By a unix socket.
    #[cfg(unix)]
    pub(super) fn unix(path: &Path, patience: Duration) -> io::Result<Self> {
        Self::new(Stream::Unix(connected(path, patience)?))
    }

    fn new(stream: Stream) -> io::Result<Self> {
        stream.prepare()?;
        Ok(Self(stream))
    }

    /// Both ways until `end`, for one who uses the line alone.
    pub(super) fn until(&self, end: Instant) -> Until<'_> {
        Until {
            stream: &self.0,
            end,
        }
    }

    /// What comes until `end`, by way of the `inbox`.
    pub(super) fn incoming<'a>(&'a self, inbox: &'a mut Inbox, end: Instant) -> Incoming<'a> {
        let until = self.until(end);
        Incoming { inbox, until }
    }

    /// From here on no write waits longer than `patience`.
    pub(super) fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.0.set_write_timeout(patience)
    }

    /// Sends one message, while nobody else does.
    pub(super) fn send(&self, head: &[u8], data: &[u8], patience: Duration) -> io::Result<()> {
        send(&self.0, head, data, patience)
    }

    /// Has whoever reads or sends fail.
    pub(super) fn hang_up(&self) {
        self.0.shutdown(Shutdown::Both);
    }
}

/// What is read and written until an instant, however the server deals out its bytes.
pub(super) struct Until<'a> {
    stream: &'a Stream,
    end: Instant,
}

impl Until<'_> {
    fn left(&self) -> io::Result<Duration> {
        match self.end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(too_slow()),
            left => Ok(left),
        }
    }
}

fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => too_slow(),
        _ => error,
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buf).map_err(late)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buf).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What comes: long pieces straight from the socket, short ones by way of the inbox.
pub(super) struct Incoming<'a> {
    inbox: &'a mut Inbox,
    until: Until<'a>,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Inbox { buffer, start, end } = &mut *self.inbox;
        if start == end {
            if buf.len() >= buffer.len() {
                return self.until.read(buf);
            }
            *end = self.until.read(buffer)?;
            *start = 0;
        }
        let some = buf.len().min(*end - *start);
        buf[..some].copy_from_slice(&buffer[*start..][..some]);
        *start += some;
        Ok(some)
    }
}

/// Connected to the socket at `path`. A server whose queue is full is waited for, but not for ever.
#[cfg(target_os = "linux")]
fn connected(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };

    let kind = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    connect(&socket, &SocketAddrUnix::new(path)?).map_err(|error| late(error.into()))?;
    Ok(UnixStream::from(socket))
}

/// Connected to the socket at `path`. These hosts refuse at once where the queue is full.
#[cfg(all(unix, not(target_os = "linux")))]
fn connected(path: &Path, _patience: Duration) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}
