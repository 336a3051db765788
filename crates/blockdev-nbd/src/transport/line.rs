//! The bytes between a client and its server: the one place of the client's that knows what carries them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "tls")]
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Stream;
use super::timed::{send, too_slow, waited};
#[cfg(feature = "tls")]
use super::tls::{Opening, Sealing};
use crate::client_credentials::ClientCredentials;

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

/// A connected socket, as a client has it: in the clear, or within TLS.
#[derive(Debug)]
pub(super) struct Line {
    stream: Arc<Stream>,
    #[cfg(feature = "tls")]
    secret: Option<Secret>,
}

/// The two ends of TLS. Nobody waits for these locks: one reads at a time, and one sends.
#[cfg(feature = "tls")]
#[derive(Debug)]
struct Secret {
    opening: Mutex<Opening<Arc<Stream>>>,
    sealing: Mutex<Sealing<Arc<Stream>>>,
}

#[cfg(feature = "tls")]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with a message under way has ended the connection.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        Ok(Self {
            stream: Arc::new(stream),
            #[cfg(feature = "tls")]
            secret: None,
        })
    }

    /// Goes on within TLS, which is agreed on until `end`.
    #[cfg(feature = "tls")]
    pub(super) fn secure(&mut self, with: &ClientCredentials, end: Instant) -> io::Result<()> {
        let stream = Arc::clone(&self.stream);
        let (opening, sealing) = super::tls::connect(with.config(), with.name(), stream, end)?;
        self.secret = Some(Secret {
            opening: Mutex::new(opening),
            sealing: Mutex::new(sealing),
        });
        Ok(())
    }

    /// Goes on within TLS.
    #[cfg(not(feature = "tls"))]
    pub(super) fn secure(&mut self, with: &ClientCredentials, _end: Instant) -> io::Result<()> {
        match *with {}
    }

    /// Both ways until `end`, for one who uses the line alone.
    pub(super) fn until(&self, end: Instant) -> Until<'_> {
        Until { line: self, end }
    }

    /// What comes until `end`, by way of the `inbox`.
    pub(super) fn incoming<'a>(&'a self, inbox: &'a mut Inbox, end: Instant) -> Incoming<'a> {
        let until = self.until(end);
        Incoming { inbox, until }
    }

    /// From here on no write waits longer than `patience`.
    pub(super) fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(patience)
    }

    /// Sends one message, while nobody else does.
    pub(super) fn send(&self, head: &[u8], data: &[u8], patience: Duration) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(secret) = &self.secret {
            return send(&mut *lock(&secret.sealing), head, data, patience);
        }
        send(&*self.stream, head, data, patience)
    }

    /// Some of what comes, after one wait at most.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(secret) = &self.secret {
            return lock(&secret.opening).read(buf);
        }
        (&*self.stream).read(buf)
    }

    /// Says that nothing more will come, where there are words for it.
    pub(super) fn leave(&self) {
        #[cfg(feature = "tls")]
        if let Some(secret) = &self.secret {
            lock(&secret.sealing).leave();
        }
    }

    /// Has whoever reads or sends fail.
    pub(super) fn hang_up(&self) {
        self.stream.shutdown(Shutdown::Both);
    }
}

/// What is read and written until an instant, however the server deals out its bytes.
pub(super) struct Until<'a> {
    line: &'a Line,
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

impl Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.line.stream.set_read_timeout(self.left()?)?;
            match self.line.read(buf) {
                // Within TLS also where something came that is no whole record.
                Err(error) if waited(&error) => {}
                other => return other,
            }
        }
    }
}

impl Write for Until<'_> {
    /// Sends all of `buf`.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        self.line.stream.set_write_timeout(left)?;
        self.line.send(buf, &[], left)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

#[cfg(target_os = "linux")]
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => too_slow(),
        _ => error,
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
