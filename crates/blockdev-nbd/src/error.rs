//! What can go wrong with a server as such; what goes wrong with a disk is told to the client.

use std::io;
use std::path::PathBuf;

use blockdev_core::{Error, ErrorKind};

/// A server that cannot be had, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NbdError {
    /// There is nothing to serve.
    #[error("a server needs an export")]
    NoExport,

    /// Two exports have one name.
    #[error("two exports are called {0:?}")]
    SameName(String),

    /// The protocol allows 4096 bytes without NUL.
    #[error("the name or description of an export is longer than 4096 bytes, or has a NUL in it")]
    Name,

    /// An option has a value that makes no sense.
    #[error("{0}")]
    Options(&'static str),

    /// What TLS needs is not there, or is of no use.
    #[cfg(feature = "tls")]
    #[error("{}: {why}", path.display())]
    Tls {
        /// The file that it is about.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// Somebody else listens there.
    #[error("another server listens at {0}")]
    InUse(PathBuf),

    /// There is something that is no socket.
    #[error("{0} is there already, and no socket")]
    NotASocket(PathBuf),

    /// The host refused a socket or a thread.
    #[error("{what}: {error}")]
    Host {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        #[source]
        error: io::Error,
    },

    /// A disk could not be flushed at the end.
    #[error("export {name:?}: {error}")]
    Flush {
        /// Name of the export.
        name: String,
        /// What its device said.
        #[source]
        error: Error,
    },
}

impl NbdError {
    pub(crate) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Host { what, error }
    }
}

impl From<NbdError> for Error {
    fn from(error: NbdError) -> Self {
        let kind = match &error {
            #[cfg(feature = "tls")]
            NbdError::Tls { .. } => ErrorKind::InvalidInput,
            NbdError::NoExport
            | NbdError::SameName(_)
            | NbdError::Name
            | NbdError::Options(_)
            | NbdError::NotASocket(_) => ErrorKind::InvalidInput,
            NbdError::InUse(_) | NbdError::Host { .. } => ErrorKind::Io,
            NbdError::Flush { error, .. } => error.kind(),
        };
        Self::new(kind, error.to_string()).caused_by(error)
    }
}
