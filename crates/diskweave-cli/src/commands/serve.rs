//! `serve`: a disk for NBD clients, until the last of them has gone or somebody asks the process to end.

use blockdev_nbd::{Credentials, Listener, NbdError, ServerOptions};

use super::shown;
use crate::args::Serve;
use crate::failure::Failure;
use crate::serving::activation::Activation;
use crate::serving::background::{self, Turn};
use crate::serving::view::Manner;
use crate::serving::{Serving, Trouble, be_ready};

/// Where clients look if they are told no port.
const NBD_PORT: u16 = 10809;

pub(crate) fn run(args: &Serve) -> Result<u8, Failure> {
    let activation = Activation::find();
    check(args, activation.as_ref()).map_err(Failure::new)?;
    let background = match args.fork {
        false => None,
        true => match background::part(false).map_err(in_background)? {
            Turn::Parent(code) => return Ok(code),
            Turn::Child(background) => Some(background),
        },
    };
    let credentials = args.tls.as_ref();
    let credentials = credentials.map(|dir| Credentials::x509(dir, !args.tls_any_client));
    let serving = |error: NbdError| Failure::new(format!("cannot serve: {error}"));
    let credentials = credentials.transpose().map_err(serving)?;
    let file = &args.image.file;
    let about = |e| Failure::about(shown(file), e);
    let disk = match args.writable {
        true => args.image.disk().writable(),
        false => args.image.disk(),
    };
    let chain = disk.open(file).map_err(about)?;
    let wanted = Serving {
        name: args.export_name.clone(),
        description: args.description.clone(),
        writable: args.writable,
        depth: true,
        manner: Manner {
            offset: args.offset,
            ..Manner::default()
        },
        options: ServerOptions::default().connections(args.connections.get()),
        credentials,
        persistent: args.persistent,
    };
    let served = wanted.run(
        chain,
        || match activation {
            Some(activation) => activation.listener(),
            None => listener(args),
        },
        || be_ready(args.pid_file.as_deref(), background),
    );
    match served {
        Ok(()) => Ok(0),
        Err(Trouble::Server(error)) => Err(serving(error)),
        Err(Trouble::Disk(error)) => Err(about(error)),
        Err(Trouble::Ready(text)) => Err(Failure::new(text)),
    }
}

fn in_background(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot go on in the background: {error}"))
}

/// Where clients come in has to be said in one way.
fn check(args: &Serve, activation: Option<&Activation>) -> Result<(), &'static str> {
    let said = args.socket.is_some() || args.port.is_some() || args.bind.is_some();
    match activation {
        None if !said => Err("where? by --socket PATH, --port or --bind"),
        Some(_) if said => Err("a socket was handed over (LISTEN_FDS): no other can be said"),
        Some(_) if args.fork => Err("a socket was handed over (LISTEN_FDS): --fork would lose it"),
        Some(sockets) if sockets.len() > 1 => Err("more than one socket was handed over"),
        _ => Ok(()),
    }
}

fn listener(args: &Serve) -> Result<Listener, NbdError> {
    #[cfg(unix)]
    if let Some(socket) = &args.socket {
        return Listener::unix(socket);
    }
    let address = args.bind.as_deref().unwrap_or("127.0.0.1");
    Listener::tcp((address, args.port.unwrap_or(NBD_PORT)))
}
