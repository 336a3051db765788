//! Connecting to where a server listens.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use blockdev_core::{Error, ErrorKind};

use crate::list::ListError;
use crate::transport::dialogue::Dialogue;
use crate::uri::Place;

/// Where a server was found.
#[derive(Debug, Hash)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// One socket by whatever spelling, as long as it is there.
    Unix(PathBuf),
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct NoConnection(io::Error);

impl From<NoConnection> for Error {
    fn from(why: NoConnection) -> Self {
        match why.0.kind() {
            io::ErrorKind::Unsupported => Self::new(ErrorKind::Unsupported, why.0.to_string()),
            _ => Self::from(why.0).context("no connection to the server"),
        }
    }
}

impl From<NoConnection> for ListError {
    fn from(why: NoConnection) -> Self {
        Self::Connect(why.0)
    }
}

impl Peer {
    /// By TCP, with the first of the addresses that answers.
    pub(crate) fn tcp(
        address: impl ToSocketAddrs,
        patience: Duration,
    ) -> Result<(Dialogue, Self), NoConnection> {
        let (dialogue, peer) = Dialogue::tcp(address, patience).map_err(NoConnection)?;
        Ok((dialogue, Self::Tcp(peer)))
    }

    /// By a unix socket.
    #[cfg(unix)]
    pub(crate) fn unix(
        path: &std::path::Path,
        patience: Duration,
    ) -> Result<(Dialogue, Self), NoConnection> {
        let dialogue = Dialogue::unix(path, patience).map_err(NoConnection)?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Ok((dialogue, Self::Unix(path)))
    }
}

impl Place {
    /// A connection on which nothing was said yet.
    pub(crate) fn connect(&self, patience: Duration) -> Result<(Dialogue, Peer), NoConnection> {
        match self {
            Self::Tcp(host, port) => Peer::tcp((&**host, *port), patience),
            #[cfg(unix)]
            Self::Unix(path) => {
                use std::os::unix::ffi::OsStrExt;
                let path = std::ffi::OsStr::from_bytes(path);
                Peer::unix(path.as_ref(), patience)
            }
            #[cfg(not(unix))]
            Self::Unix(_) => {
                let text = "this host has no unix sockets";
                Err(NoConnection(io::Error::new(
                    io::ErrorKind::Unsupported,
                    text,
                )))
            }
        }
    }
}
