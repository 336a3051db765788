//! A server, before and while it runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::session::negotiation::Secrecy;
use crate::session::offer::Offer;
use crate::transport::acceptor;
use crate::transport::gate::Gate;
use crate::transport::listener::{Address, Listener};
use crate::transport::wake::{self, Waker};
use crate::{Export, NbdError, ServerOptions};

/// What all threads of a server have.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) exports: Vec<Export>,
    pub(crate) offers: Vec<Offer>,
    pub(crate) options: ServerOptions,
    pub(crate) gate: Arc<Gate>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::Credentials>,
}

impl Shared {
    /// What a client has to do first.
    pub(crate) fn secrecy(&self) -> Secrecy {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return Secrecy::Required;
        }
        Secrecy::Plain
    }
}

/// Exports and limits, not yet reachable.
#[derive(Debug)]
pub struct Server(Shared);

impl Server {
    /// A server of `exports`. The first is also what clients get that say no name, unless another has the
    /// empty name.
    ///
    /// # Errors
    /// [`NbdError::NoExport`], [`NbdError::SameName`], [`NbdError::Name`], and [`NbdError::Options`] where
    /// a limit leaves room or time for nothing.
    pub fn new(exports: Vec<Export>, options: ServerOptions) -> Result<Self, NbdError> {
        options.check()?;
        if exports.is_empty() {
            return Err(NbdError::NoExport);
        }
        let mut names = HashSet::new();
        for export in &exports {
            export.check()?;
            if !names.insert(&*export.name) {
                return Err(NbdError::SameName(export.name.clone()));
            }
        }
        let shared = options.connections > 1;
        let offers = exports.iter().map(|export| export.offer(shared)).collect();
        Ok(Self(Shared {
            gate: Arc::new(Gate::new(options.connections)),
            exports,
            offers,
            options,
            #[cfg(feature = "tls")]
            tls: None,
        }))
    }

    /// Tells clients nothing, and serves them nothing, before they have begun TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, credentials: crate::Credentials) -> Self {
        self.0.tls = Some(credentials);
        self
    }

    /// Lets clients in by `listener`, in threads of its own.
    ///
    /// # Errors
    /// When the host refuses a thread.
    pub fn start(self, listener: Listener) -> Result<Running, NbdError> {
        let shared = Arc::new(self.0);
        let address = listener.address();
        let (waker, waiter) = wake::pair().map_err(NbdError::host("a pair of sockets"))?;
        let its_own = Arc::clone(&shared);
        let accept = move || acceptor::run(&its_own, listener, &waiter);
        let acceptor = thread::Builder::new()
            .spawn(accept)
            .map_err(NbdError::host("a thread"))?;
        let gate = Arc::clone(&shared.gate);
        let stopper = Stopper(Arc::new(Stop { gate, waker }));
        Ok(Running {
            shared,
            stopper,
            address,
            acceptor: Some(acceptor),
        })
    }
}

/// A server that lets clients in, until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    stopper: Stopper,
    address: Address,
    acceptor: Option<JoinHandle<()>>,
}

/// Stops a server from anywhere: from another thread, or when a signal came. Clones are of one server.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<Stop>);

#[derive(Debug)]
struct Stop {
    /// And not the exports: who can stop a server does not keep its disks open.
    gate: Arc<Gate>,
    waker: Waker,
}

impl Stopper {
    /// Lets the server stop, and does not wait for it.
    pub fn stop(&self) {
        self.0.gate.close();
        self.0.waker.wake();
    }
}

impl Running {
    /// Where clients find it.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What stops it from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Returns when somebody has asked the server to stop.
    pub fn wait(&self) {
        self.shared.gate.wait(false);
    }

    /// Returns when the last client that had an export has gone and no other has one, or when somebody has
    /// asked the server to stop.
    pub fn wait_for_last(&self) {
        self.shared.gate.wait(true);
    }

    /// Stops: lets nobody in, has requests that are under way answered and further ones refused, and flushes
    /// what could be written to. A client that has not taken its replies after the
    /// [time for a request](ServerOptions::request_timeout) is cut off. When it returns no thread of the server is left, and the devices are the
    /// caller's alone.
    ///
    /// # Errors
    /// [`NbdError::Flush`] with the first device that could not be flushed.
    pub fn stop(mut self) -> Result<(), NbdError> {
        self.end();
        let mut outcome = Ok(());
        for export in self
            .shared
            .exports
            .iter()
            .filter(|export| !export.read_only)
        {
            let flushed = export.device.flush().map_err(|error| NbdError::Flush {
                name: export.name.clone(),
                error,
            });
            outcome = outcome.and(flushed);
        }
        outcome
    }

    fn end(&mut self) {
        self.stopper.stop();
        if let Some(acceptor) = self.acceptor.take() {
            // It does not panic; if it did, there is no thread left all the same.
            let _ = acceptor.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
