//! Where clients come in.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

#[cfg(unix)]
use super::socket_file::SocketFile;
use super::stream::Stream;
use crate::NbdError;

/// Where a server can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host's address and a port.
    Tcp(SocketAddr),
    /// The path of a unix socket; empty where it has none.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A socket that clients can connect to. They wait until a server is started on it.
#[derive(Debug)]
pub struct Listener(Inner);

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(SocketFile),
    /// Somebody else's, whose name is no matter of ours.
    #[cfg(unix)]
    Given(UnixListener),
}

impl Listener {
    /// Listens at a port of this host. **Whoever reaches it is served**, and nothing is encrypted.
    ///
    /// # Errors
    /// When the host refuses, as where another program listens already.
    pub fn tcp(address: impl ToSocketAddrs) -> Result<Self, NbdError> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(NbdError::host("listening"))?;
        Ok(Self(Inner::Tcp(listener)))
    }

    /// Listens at a unix socket, which is made at `path` for its owner alone, and removed in the end.
    ///
    /// It appears when clients can connect. A socket that a server left behind is replaced.
    ///
    /// # Errors
    /// [`NbdError::InUse`] where a server answers already, [`NbdError::NotASocket`] where there is
    /// something else, and when the host refuses.
    #[cfg(unix)]
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, NbdError> {
        let socket = SocketFile::listen(path.into())?;
        Ok(Self(Inner::Unix(socket)))
    }

    /// Takes a socket that listens already, as a service manager hands one over. **Whoever reaches it is
    /// served.**
    ///
    /// # Errors
    /// When the host refuses.
    pub fn given_tcp(listener: TcpListener) -> Result<Self, NbdError> {
        let nonblocking = listener.set_nonblocking(true);
        nonblocking.map_err(NbdError::host("listening"))?;
        Ok(Self(Inner::Tcp(listener)))
    }

    /// The same for a unix socket. Its name in the file system is left as it is, also in the end.
    ///
    /// # Errors
    /// When the host refuses.
    #[cfg(unix)]
    pub fn given_unix(listener: UnixListener) -> Result<Self, NbdError> {
        let nonblocking = listener.set_nonblocking(true);
        nonblocking.map_err(NbdError::host("listening"))?;
        Ok(Self(Inner::Given(listener)))
    }

    /// Where clients find it: with the port that was found free where none was said.
    ///
    /// # Panics
    /// When the host has forgotten the address of a socket that listens.
    #[must_use]
    pub fn address(&self) -> Address {
        match &self.0 {
            Inner::Tcp(listener) => {
                let address = listener.local_addr();
                Address::Tcp(address.expect("a socket that listens has an address"))
            }
            #[cfg(unix)]
            Inner::Unix(socket) => Address::Unix(socket.path().to_path_buf()),
            #[cfg(unix)]
            Inner::Given(listener) => {
                let address = listener.local_addr().ok();
                let path = address.and_then(|address| Some(address.as_pathname()?.to_path_buf()));
                Address::Unix(path.unwrap_or_default())
            }
        }
    }

    /// A client, if one is there.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Inner::Tcp(listener) => Ok(Stream::Tcp(listener.accept()?.0)),
            #[cfg(unix)]
            Inner::Unix(socket) => Ok(Stream::Unix(socket.accept()?)),
            #[cfg(unix)]
            Inner::Given(listener) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }
}

#[cfg(unix)]
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Inner::Tcp(listener) => listener.as_fd(),
            Inner::Unix(socket) => socket.as_fd(),
            Inner::Given(listener) => listener.as_fd(),
        }
    }
}
