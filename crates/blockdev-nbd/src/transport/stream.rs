//! A connection, of whichever kind.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// The same call on either kind.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            #[cfg(unix)]
            Stream::Unix($inner) => $call,
        }
    };
}

impl Stream {
    /// Readies a socket that was just accepted.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        either!(self, inner => inner.set_nonblocking(false))?;
        if let Self::Tcp(inner) = self {
            // Replies are whole messages, each written at once.
            inner.set_nodelay(true)?;
            // Between requests there is no time limit, but a host that is gone is noticed.
            #[cfg(unix)]
            rustix::net::sockopt::set_socket_keepalive(inner, true)?;
        }
        Ok(())
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(inner) => Self::Tcp(inner.try_clone()?),
            #[cfg(unix)]
            Self::Unix(inner) => Self::Unix(inner.try_clone()?),
        })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        // Whoever is gone already needs not be told.
        let _ = either!(self, inner => inner.shutdown(how));
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        either!(self, inner => inner.set_read_timeout(Some(timeout)))
    }

    pub(crate) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        either!(self, inner => inner.set_write_timeout(Some(timeout)))
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, inner => (&*inner).read(buf))
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        either!(self, inner => (&*inner).write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, inner => (&*inner).write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(self, inner => (&*inner).flush())
    }
}
