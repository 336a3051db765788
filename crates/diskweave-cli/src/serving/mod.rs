//! A disk for NBD clients, until the last of them has gone or somebody asks the process to end: what
//! `serve` and `qemu-nbd` have in common.

pub(crate) mod activation;
pub(crate) mod background;
pub(crate) mod pid_file;
pub(crate) mod view;

use std::sync::Arc;
use std::thread;

use blockdev_nbd::{Credentials, Export, Listener, NbdError, Server, ServerOptions};
use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, Error};

use crate::interrupt::asked_to_end;
use background::Background;
use view::{Manner, View};

/// What is served, and how; apart from the disk.
pub(crate) struct Serving {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) writable: bool,
    pub(crate) depth: bool,
    pub(crate) manner: Manner,
    pub(crate) options: ServerOptions,
    pub(crate) credentials: Option<Credentials>,
    /// Go on when the last client has gone.
    pub(crate) persistent: bool,
}

/// Why a disk is not served, or not any more.
pub(crate) enum Trouble {
    /// With the server.
    Server(NbdError),
    /// With the disk.
    Disk(Error),
    /// With what was to be done before clients are let in.
    Ready(String),
}

impl From<NbdError> for Trouble {
    fn from(error: NbdError) -> Self {
        Self::Server(error)
    }
}

impl Serving {
    /// Serves `chain`. The socket is made by `listen` once all else is there, and `ready` is called when
    /// clients are let in. In the end the disk is flushed and closed.
    pub(crate) fn run(
        self,
        chain: Chain,
        listen: impl FnOnce() -> Result<Listener, NbdError>,
        ready: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Trouble> {
        let chain = Arc::new(chain);
        let outcome = self.serve(&chain, listen, ready);
        let chain = Arc::into_inner(chain).expect("a server that has stopped holds no disk");
        // Also where it was never served: what was opened for writing is closed as such.
        let closed = chain.close().map_err(Trouble::Disk);
        outcome.and(closed)
    }

    fn serve(
        self,
        chain: &Arc<Chain>,
        listen: impl FnOnce() -> Result<Listener, NbdError>,
        ready: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Trouble> {
        let view = View::new(Arc::clone(chain), self.manner).map_err(Trouble::Disk)?;
        let device: Arc<dyn BlockDevice> = Arc::new(view);
        let export = Export::new(self.name, device)
            .description(self.description)
            .allocation_depth(self.depth);
        let export = match self.writable {
            true => export.writable(),
            false => export,
        };
        let server = Server::new(vec![export], self.options)?;
        let server = match self.credentials {
            Some(credentials) => server.tls(credentials),
            None => server,
        };
        // From before the socket appears: whoever sees it can also end what made it.
        let asked = asked_to_end();
        let running = server.start(listen()?)?;
        let stopper = running.stopper();
        thread::spawn(move || {
            if asked.recv().is_ok() {
                stopper.stop();
            }
        });
        let ready = ready().map_err(Trouble::Ready);
        match (&ready, self.persistent) {
            (Err(_), _) => {}
            (Ok(()), true) => running.wait(),
            (Ok(()), false) => running.wait_for_last(),
        }
        let stopped = running.stop().map_err(|error| Trouble::Disk(error.into()));
        ready.and(stopped)
    }
}

/// What is done when clients are let in: the process says which it is, and lets go of who began it.
pub(crate) fn be_ready(
    pid_file: Option<&str>,
    background: Option<Background>,
) -> Result<(), String> {
    if let Some(path) = pid_file {
        pid_file::write(path)?;
    }
    match background {
        Some(background) => background.tell(),
        None => Ok(()),
    }
}
