//! `qemu-nbd`: a disk for NBD clients, as QEMU's server takes its arguments.
//!
//! What it does not do it refuses: the kernel's devices (`-c`, `-d`), bitmaps (`-B`), names of clients
//! (`--tls-authz`). Images are written to unless `-r` says otherwise, and whatever they name is opened.

mod call;
mod credentials;
mod help;
mod list;
mod overlay;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;

use blockdev_nbd::{Listener, NbdError};
use diskweave::chain::Chain;

use self::call::Call;
use super::complaint::Complaint;
use super::getopt;
use super::image::Named;
use super::wording;
use crate::output::plain::print;
use crate::serving::activation::Activation;
use crate::serving::background::{self, Turn};
use crate::serving::{Serving, Trouble, be_ready};

/// How long the path of a unix socket may be, in bytes.
const MAX_SOCKET_PATH: usize = 108;

/// Runs it with `arguments` as `name`, and gives the exit code.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> Result<u8, Complaint> {
    let help = format!("Try `{name} --help' for more information.");
    let said = getopt::parse(name, call::FLAGS, arguments)
        .map_err(|complaint| complaint.helped_by(format!("{}: {help}", super::name_of(name))))?;
    if said.has("help") {
        print(&help::text(name))?;
        return Ok(0);
    }
    if said.has("version") {
        print(&format!(
            "{name}: diskweave {}\n",
            env!("CARGO_PKG_VERSION")
        ))?;
        return Ok(0);
    }
    if said.has("list") {
        list::run(&said)?;
        return Ok(0);
    }
    let activation = Activation::find();
    let call = Call::new(&said)?;
    call.check_activation(activation.as_ref())?;
    let [image] = &said.operands[..] else {
        let complaint = Complaint::new("Invalid number of arguments");
        return Err(complaint.and_plain(help));
    };
    let background = match call.fork {
        false => None,
        true => match background::part(call.verbose).map_err(Complaint::new)? {
            Turn::Parent(code) => return Ok(code),
            Turn::Child(background) => Some(background),
        },
    };
    serve(&call, &image.to_string_lossy(), activation, background)?;
    Ok(0)
}

fn serve(
    call: &Call,
    image: &str,
    activation: Option<Activation>,
    background: Option<background::Background>,
) -> Result<(), Complaint> {
    let chain = open(call, image)
        .map_err(|complaint| complaint.begun_by("Could not open", "Failed to blk_new_open"))?;
    let serving = Serving {
        name: call.name.clone(),
        description: call.description.clone(),
        writable: !call.read_only,
        depth: call.depth,
        manner: call.manner,
        options: call.options,
        credentials: call.credentials.clone(),
        persistent: call.persistent,
    };
    let served = serving.run(
        chain,
        || match activation {
            Some(activation) => activation.listener(),
            None => listener(call),
        },
        || be_ready(call.pid_file.as_deref(), background),
    );
    served.map_err(|trouble| match trouble {
        Trouble::Server(error) => not_served(call, error),
        Trouble::Disk(error) => Complaint::new(error),
        Trouble::Ready(text) => Complaint::new(text),
    })
}

/// The image, which nobody else may use meanwhile unless it is only read.
fn open(call: &Call, image: &str) -> Result<Chain, Complaint> {
    let failed = |reason| {
        let text = format!("Failed to blk_new_open '{image}': {reason}");
        Err(Complaint::new(text))
    };
    if image.is_empty() {
        return failed("The 'file' block driver requires a file name".into());
    }
    if !call.read_only && Path::new(image).is_dir() {
        return failed(format!("Could not open '{image}': Is a directory"));
    }
    let named = match call.image_opts {
        true => Named::of_options(image, false)?,
        false => Named::new(image, call.format.clone(), false)?,
    };
    let named = named.with_snapshot(call.snapshot.clone());
    match (call.temporary, call.read_only) {
        (true, _) => overlay::open(&named),
        (false, true) => named.open(),
        (false, false) => named.open_writable(),
    }
}

fn listener(call: &Call) -> Result<Listener, NbdError> {
    #[cfg(unix)]
    if let Some(socket) = &call.socket {
        // What was left behind by whoever was there before is replaced, as is QEMU's habit; no file is.
        return Listener::unix(socket);
    }
    let refused = |error| NbdError::Host {
        what: "listening",
        error,
    };
    Listener::given_tcp(TcpListener::bind((&*call.bind, call.port)).map_err(refused)?)
}

fn not_served(call: &Call, error: NbdError) -> Complaint {
    match error {
        NbdError::Host { error, .. } => {
            let place = match &call.socket {
                Some(socket) => format!(" to {socket}"),
                None => String::new(),
            };
            let reason = wording::reason_of(&error);
            Complaint::new(format!("Failed to bind socket{place}: {reason}"))
        }
        other => Complaint::new(other),
    }
}

/// A path that a unix socket can have.
fn check_socket(path: &str) -> Result<(), Complaint> {
    if !path.starts_with('/') {
        return Err(Complaint::new("socket path must be absolute"));
    }
    if path.len() >= MAX_SOCKET_PATH {
        return Err(Complaint::new(format!(
            "UNIX socket path '{path}' is too long\nPath must be less than {MAX_SOCKET_PATH} bytes"
        )));
    }
    Ok(())
}

/// Whether there is a file at `path`, and which failure stands in the way.
fn accessible(path: &str) -> io::Result<()> {
    fs::metadata(path).map(drop)
}
