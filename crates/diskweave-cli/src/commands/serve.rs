//! `serve`: a disk for NBD clients, until the last of them has gone or somebody asks the process to end.

use std::sync::Arc;
use std::thread;

use blockdev_nbd::{Export, Listener, NbdError, Server, ServerOptions};

use super::shown;
use crate::args::Serve;
use crate::failure::Failure;
use crate::interrupt::asked_to_end;

/// Where clients look if they are told no port.
const NBD_PORT: u16 = 10809;

pub(crate) fn run(args: &Serve) -> Result<u8, Failure> {
    let file = &args.image.file;
    let about = |e| Failure::about(shown(file), e);
    let disk = match args.writable {
        true => args.image.disk().writable(),
        false => args.image.disk(),
    };
    let chain = Arc::new(disk.open(file).map_err(about)?);
    let serving = |error: NbdError| Failure::new(format!("cannot serve: {error}"));
    let export = Export::new(&args.export_name, chain.clone());
    let export = match args.writable {
        true => export.writable(),
        false => export,
    };
    let options = ServerOptions::default().connections(args.connections.get());
    let server = Server::new(vec![export], options).map_err(serving)?;
    // From before the socket appears: whoever sees it can also end what made it.
    let asked = asked_to_end();
    let running = server
        .start(listener(args).map_err(serving)?)
        .map_err(serving)?;
    let stopper = running.stopper();
    thread::spawn(move || {
        if asked.recv().is_ok() {
            stopper.stop();
        }
    });
    match args.persistent {
        true => running.wait(),
        false => running.wait_for_last(),
    }
    running.stop().map_err(|error| about(error.into()))?;
    let chain = Arc::into_inner(chain).expect("a server that has stopped holds no disk");
    chain.close().map_err(about)?;
    Ok(0)
}

fn listener(args: &Serve) -> Result<Listener, NbdError> {
    #[cfg(unix)]
    if let Some(socket) = &args.socket {
        return Listener::unix(socket);
    }
    let address = args.bind.as_deref().unwrap_or("127.0.0.1");
    Listener::tcp((address, args.port.unwrap_or(NBD_PORT)))
}
