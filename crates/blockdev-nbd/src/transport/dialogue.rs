//! A connection as its client has it: one request, one reply.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::path::Path;
use std::time::{Duration, Instant};

use blockdev_core::{Error, ErrorKind, Result};

use super::stream::Stream;
use super::timed::{due, send, too_slow};
use crate::session::agreement::agree;
use crate::session::facts::Facts;
use crate::session::gathering::{Reply, gather};
use crate::wire::request::RequestHead;

/// How long taking one's leave may take: nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Dialogue {
    stream: Stream,
    patience: Duration,
    cookie: u64,
    /// What is sent and received makes no sense any more.
    broken: bool,
}

/// What is read and written until an instant, however the server deals out its bytes.
struct Until<'a> {
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

impl Dialogue {
    /// By TCP, at the first of the addresses that answers.
    pub(crate) fn tcp(address: impl ToSocketAddrs, patience: Duration) -> io::Result<Self> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => return Self::new(Stream::Tcp(stream), patience),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// By a unix socket.
    #[cfg(unix)]
    pub(crate) fn unix(path: &Path, patience: Duration) -> io::Result<Self> {
        Self::new(Stream::Unix(connected(path, patience)?), patience)
    }

    fn new(stream: Stream, patience: Duration) -> io::Result<Self> {
        stream.prepare()?;
        Ok(Self {
            stream,
            patience,
            cookie: 0,
            broken: false,
        })
    }

    /// Asks for the export `name`.
    pub(crate) fn go(&mut self, name: &str) -> io::Result<Facts> {
        let mut until = Until {
            stream: &self.stream,
            end: Instant::now() + self.patience,
        };
        let facts = agree(&mut until, name)?;
        self.stream.set_write_timeout(self.patience)?;
        Ok(facts)
    }

    /// # Errors
    /// [`ErrorKind::Poisoned`] after a failure.
    pub(crate) fn check(&self) -> Result<()> {
        let text = "the connection to the server failed before";
        match self.broken {
            true => Err(Error::new(ErrorKind::Poisoned, text)),
            false => Ok(()),
        }
    }

    /// Sends a request with what is to be `written`, and fills `read` with what comes back.
    ///
    /// # Errors
    /// When the connection fails, of which it does not recover.
    pub(crate) fn ask(
        &mut self,
        mut head: RequestHead,
        facts: &Facts,
        written: &[u8],
        read: &mut [u8],
    ) -> Result<Reply> {
        self.check()?;
        self.cookie = self.cookie.wrapping_add(1);
        head.cookie = self.cookie;
        // Also when this panics: half a message is sent or read then.
        self.broken = true;
        let outcome = self.exchange(&head, facts, written, read);
        match outcome {
            Ok(_) => self.broken = false,
            Err(_) => self.stream.shutdown(Shutdown::Both),
        }
        Ok(outcome?)
    }

    fn exchange(
        &self,
        head: &RequestHead,
        facts: &Facts,
        written: &[u8],
        read: &mut [u8],
    ) -> io::Result<Reply> {
        send(&self.stream, &head.encode(), written, self.patience)?;
        let mut until = Until {
            stream: &self.stream,
            end: due(self.patience, read.len()),
        };
        gather(&mut until, head, facts, read)
    }

    /// Says that nothing more will be asked, which is no request with a reply.
    pub(crate) fn leave(&self, head: &RequestHead) {
        if self.broken {
            return;
        }
        let mut until = Until {
            stream: &self.stream,
            end: Instant::now() + FAREWELL,
        };
        // Whoever does not hear it sees the connection end.
        let _ = until.write_all(&head.encode());
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
