//! Sockets that a service manager opened (`LISTEN_FDS`, `LISTEN_PID`).

use blockdev_nbd::{Listener, NbdError};

/// The socket that was handed over to this process, if there is one.
#[cfg(unix)]
pub(crate) struct Activation(listenfd::ListenFd);

#[cfg(unix)]
impl Activation {
    /// `None` where the process was started in the ordinary way.
    pub(crate) fn find() -> Option<Self> {
        let sockets = listenfd::ListenFd::from_env();
        (sockets.len() > 0).then_some(Self(sockets))
    }

    /// How many sockets there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The first socket.
    pub(crate) fn listener(mut self) -> Result<Listener, NbdError> {
        let refused = |error| NbdError::Host {
            what: "the socket that was handed over",
            error,
        };
        // Asked for as what it is not, it is an error and can be asked for again.
        if let Ok(Some(unix)) = self.0.take_unix_listener(0) {
            return Listener::given_unix(unix);
        }
        match self.0.take_tcp_listener(0).map_err(refused)? {
            Some(tcp) => Listener::given_tcp(tcp),
            None => Err(refused(std::io::ErrorKind::NotFound.into())),
        }
    }
}

/// Such sockets are not known elsewhere.
#[cfg(not(unix))]
pub(crate) enum Activation {}

#[cfg(not(unix))]
impl Activation {
    pub(crate) fn find() -> Option<Self> {
        None
    }

    pub(crate) fn len(&self) -> usize {
        match *self {}
    }

    pub(crate) fn listener(self) -> Result<Listener, NbdError> {
        match self {}
    }
}
