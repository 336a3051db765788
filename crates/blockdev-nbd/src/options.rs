//! How a server behaves towards its clients, and a client towards its server.

use std::time::Duration;

use blockdev_core::{Error, ErrorKind};

use crate::NbdError;

/// Limits of a server. The defaults suit clients that nobody trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerOptions {
    pub(crate) connections: usize,
    pub(crate) workers: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 16,
            workers: 8,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl ServerOptions {
    /// How many clients are served at once, at least 1 (default 16). Each may hold 32 MiB of requests and
    /// replies: that times this number is the most memory that payload takes. One more client waits for
    /// as long as a handshake may take, and is turned away then.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// How many requests of one connection are carried out at once, at least 1 (default 8): so many
    /// threads, begun when they are needed.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How long a client may take until it has chosen an export (default 10 seconds).
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a request may take to arrive once its first byte is here, and a reply to be taken
    /// (default 30 seconds), besides a second for each 64 KiB of data.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    pub(crate) fn check(&self) -> Result<(), NbdError> {
        let no = |text| Err(NbdError::Options(text));
        match self {
            Self { connections: 0, .. } => no("a server needs room for a connection"),
            Self { workers: 0, .. } => no("a connection needs a worker"),
            _ if self.handshake_timeout.is_zero() || self.request_timeout.is_zero() => {
                no("a time limit of zero leaves time for nothing")
            }
            _ => Ok(()),
        }
    }
}

/// Longest patience: an instant so far away still exists.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Limits of a client. The defaults suit servers that nobody trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOptions {
    pub(crate) patience: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(30),
        }
    }
}

impl ClientOptions {
    /// How long each may take: to connect to an address, to agree on an export, to take a request and to
    /// reply to it (default 30 seconds, at most a year). The last two may take a second longer for each
    /// 64 KiB of data, and a reply as much longer as those to requests before it take.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(LONGEST);
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.patience.is_zero() {
            true => {
                let text = "a time limit of zero leaves time for nothing";
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
            false => Ok(()),
        }
    }
}
