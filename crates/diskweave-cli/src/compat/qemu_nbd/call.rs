//! What was asked for, checked as far as that goes without opening anything.

use std::time::Duration;

use blockdev_nbd::{Credentials, ServerOptions};
use diskweave::SnapshotName;

use super::{credentials, list};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::{Flag, Parsed};
use crate::serving::activation::Activation;
use crate::serving::view::Manner;
use crate::snapshot_name;

pub(super) const FLAGS: &[Flag] = &[
    Flag::switch('h', "help"),
    Flag::switch('V', "version"),
    Flag::value('b', "bind"),
    Flag::value('p', "port"),
    Flag::value('k', "socket"),
    Flag::value('o', "offset"),
    Flag::switch('r', "read-only"),
    Flag::switch('A', "allocation-depth"),
    Flag::value('B', "bitmap"),
    Flag::value('c', "connect"),
    Flag::switch('d', "disconnect"),
    Flag::switch('L', "list"),
    Flag::switch('s', "snapshot"),
    Flag::value('l', "load-snapshot"),
    Flag::switch('n', "nocache"),
    CACHE,
    Flag::value(' ', "aio").long_only(),
    Flag::value(' ', "discard").long_only(),
    Flag::value(' ', "detect-zeroes").long_only(),
    Flag::value('e', "shared"),
    Flag::value('f', "format"),
    Flag::switch('t', "persistent"),
    Flag::switch('v', "verbose"),
    Flag::value(' ', "object").long_only(),
    Flag::value('x', "export-name"),
    Flag::value('D', "description"),
    Flag::value(' ', "tls-creds").long_only(),
    Flag::value(' ', "tls-hostname").long_only(),
    Flag::value(' ', "tls-authz").long_only(),
    Flag::switch(' ', "image-opts").long_only(),
    Flag::value('T', "trace"),
    Flag::switch(' ', "fork").long_only(),
    Flag::value(' ', "pid-file").long_only(),
    Flag::value(' ', "selinux-label").long_only(),
    Flag::value(' ', "handshake-limit").long_only(),
];

const CACHE: Flag = Flag::value(' ', "cache").long_only();
/// Where clients look if they are told no port.
const NBD_PORT: &str = "10809";
/// Longest name or description of an export, in bytes.
const MAX_STRING: usize = 4096;
/// A handshake that may take for ever.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(super) struct Call {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) format: Option<String>,
    pub(super) image_opts: bool,
    pub(super) read_only: bool,
    pub(super) snapshot: Option<SnapshotName>,
    /// Changes are dropped in the end.
    pub(super) temporary: bool,
    pub(super) depth: bool,
    pub(super) manner: Manner,
    pub(super) socket: Option<String>,
    pub(super) bind: String,
    pub(super) port: u16,
    /// A port or an address was said.
    tcp: (bool, bool),
    pub(super) options: ServerOptions,
    pub(super) credentials: Option<Credentials>,
    pub(super) persistent: bool,
    pub(super) verbose: bool,
    pub(super) fork: bool,
    pub(super) pid_file: Option<String>,
}

fn bad<T>(text: impl std::fmt::Display) -> Result<T, Complaint> {
    Err(Complaint::new(text))
}

impl Call {
    pub(super) fn new(said: &Parsed) -> Result<Self, Complaint> {
        refuse(said)?;
        let mut manner = manner(said)?;
        manner.offset = offset(said)?;
        let socket = socket(said)?;
        let named = |option: &str, what| match said.value(option) {
            Some(text) if text.len() > MAX_STRING => {
                bad(format!("export {what} '{text}' too long"))
            }
            text => Ok(text.unwrap_or_default()),
        };
        let snapshot = match said.value("load-snapshot") {
            None => None,
            Some(text) => Some(snapshot_name::parse(&text).map_err(|_| {
                Complaint::new(format!("Failed in parsing snapshot param `{text}'"))
            })?),
        };
        let image_opts = said.has("image-opts");
        let format = said.value("format");
        if image_opts && format.is_some() {
            return bad("--image-opts and -f are mutually exclusive");
        }
        let Place { socket, bind, port } = Place::new(said, socket)?;
        Ok(Self {
            name: named("export-name", "name")?,
            description: named("description", "description")?,
            format,
            image_opts,
            // What it was is not to be changed.
            read_only: said.has("read-only") || snapshot.is_some(),
            snapshot,
            temporary: said.has("snapshot"),
            depth: said.has("allocation-depth"),
            manner,
            socket,
            bind,
            port,
            tcp: (said.has("port"), said.has("bind")),
            options: options(said)?,
            credentials: credentials::find(said)?,
            persistent: said.has("persistent"),
            verbose: said.has("verbose"),
            fork: said.has("fork"),
            pid_file: said.value("pid-file"),
        })
    }

    /// A socket that was handed over is the only one.
    pub(super) fn check_activation(&self, sockets: Option<&Activation>) -> Result<(), Complaint> {
        let Some(sockets) = sockets else {
            return Ok(());
        };
        let but = "can't be set when using socket activation";
        match self.tcp {
            _ if sockets.len() > 1 => {
                bad("qemu-nbd does not support socket activation with LISTEN_FDS > 1")
            }
            (true, _) => bad(format_args!("TCP port number {but}")),
            (_, true) => bad(format_args!("TCP bind address {but}")),
            _ if self.socket.is_some() => bad(format_args!("Unix socket {but}")),
            _ if self.fork => bad("--fork would lose the socket of socket activation"),
            _ => Ok(()),
        }
    }
}

/// Where a server is, or is to be.
pub(super) struct Place {
    pub(super) socket: Option<String>,
    pub(super) bind: String,
    pub(super) port: u16,
}

impl Place {
    fn new(said: &Parsed, socket: Option<String>) -> Result<Self, Complaint> {
        let bind = said.value("bind").unwrap_or_else(|| "0.0.0.0".into());
        let port = said.value("port").unwrap_or_else(|| NBD_PORT.into());
        let port = match port.parse() {
            Ok(port) => port,
            Err(_) if socket.is_some() => 0,
            Err(_) => {
                return bad(format!(
                    "address resolution failed for {bind}:{port}: Servname not supported for \
                     ai_socktype"
                ));
            }
        };
        Ok(Self { socket, bind, port })
    }

    /// The one whose exports are to be listed; nothing else may be asked for.
    pub(super) fn of_another(said: &Parsed) -> Result<Self, Complaint> {
        refuse(said)?;
        manner(said)?;
        let offset = offset(said)?;
        let socket = socket(said)?;
        options(said)?;
        list::check(said, offset)?;
        Self::new(said, socket)
    }
}

fn offset(said: &Parsed) -> Result<u64, Complaint> {
    match said.value("offset") {
        None => Ok(0),
        Some(text) if text.starts_with('-') && text[1..].parse::<u64>().is_ok() => {
            let text = format!("Value '{text}' is out of range for parameter 'offset'");
            bad(text)
        }
        Some(text) => {
            number(&text).ok_or_else(|| Complaint::new(format!("Invalid offset '{text}'")))
        }
    }
}

fn socket(said: &Parsed) -> Result<Option<String>, Complaint> {
    let socket = said.value("socket");
    if let Some(socket) = &socket {
        super::check_socket(socket)?;
    }
    Ok(socket)
}

/// What this server does not do is not passed over.
fn refuse(said: &Parsed) -> Result<(), Complaint> {
    for (option, text) in [
        (
            "connect",
            "-c: NBD devices of the kernel are not served; 'nbd-client' connects one",
        ),
        ("disconnect", "-d: NBD devices of the kernel are not served"),
        ("bitmap", "-B: bitmaps are not served"),
        ("selinux-label", "--selinux-label is not supported"),
    ] {
        // A list says of them what QEMU's does.
        if said.has(option) && !said.has("list") {
            return bad(text);
        }
    }
    for option in ["tls-authz", "tls-hostname"] {
        if said.has(option) && !said.has("tls-creds") {
            return bad(format!("--{option} is not permitted without --tls-creds"));
        }
    }
    if said.has("list") {
        return Ok(());
    }
    if said.has("tls-authz") {
        return bad(
            "--tls-authz is not supported: every client whose certificate counts is served",
        );
    }
    if said.has("tls-hostname") {
        return bad("TLS hostname is only supported with export list mode");
    }
    Ok(())
}

fn manner(said: &Parsed) -> Result<Manner, Complaint> {
    let mut manner = Manner::default();
    let caches = said.values("cache");
    if caches.len() + usize::from(said.has("nocache")) > 1 {
        return bad("-n and --cache can only be specified once");
    }
    match caches.first().map(|mode| &**mode) {
        // The host's cache is always used, and flushed when clients ask for it.
        None | Some("none" | "off" | "writeback" | "unsafe") => {}
        Some("writethrough" | "directsync") => manner.through = true,
        Some(mode) => return bad(format!("Invalid cache mode `{mode}'")),
    }
    match said.value("aio").as_deref() {
        None | Some("threads" | "native" | "io_uring") => {}
        Some(mode) => return bad(format!("Invalid aio mode '{mode}'")),
    }
    let unmaps = match said.value("discard").as_deref() {
        Some("unmap" | "on") => true,
        None | Some("ignore" | "off") => false,
        Some(mode) => return bad(format!("Invalid discard mode `{mode}'")),
    };
    manner.keep = !unmaps;
    manner.detect = match said.value("detect-zeroes").as_deref() {
        None | Some("off") => None,
        Some("on") => Some(false),
        Some("unmap") if unmaps => Some(true),
        Some("unmap") => {
            return bad(
                "setting detect-zeroes to unmap is not allowed without setting discard operation to \
                 unmap",
            );
        }
        Some(mode) => {
            return bad(format!(
                "Failed to parse detect_zeroes mode: invalid parameter value: {mode}"
            ));
        }
    };
    Ok(manner)
}

fn options(said: &Parsed) -> Result<ServerOptions, Complaint> {
    let shared = said.value("shared").unwrap_or_else(|| "1".into());
    let connections = match number(&shared).filter(|n| i32::try_from(*n).is_ok()) {
        None => return bad(format!("Invalid shared device number '{shared}'")),
        Some(0) => usize::MAX,
        Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let limit = said.value("handshake-limit").unwrap_or_else(|| "10".into());
    let limit = match number(&limit).map(u32::try_from) {
        Some(Ok(0)) => FOR_EVER,
        Some(Ok(seconds)) => Duration::from_secs(seconds.into()).min(FOR_EVER),
        _ => return bad(format!("Invalid handshake limit '{limit}'")),
    };
    Ok(ServerOptions::default()
        .connections(connections)
        .handshake_timeout(limit))
}

/// As C has it: decimal, `0x` hexadecimal, `0` octal.
fn number(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    let plain = digits.chars().all(|digit| digit.is_digit(radix));
    plain.then(|| u64::from_str_radix(digits, radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_c() {
        for (text, expected) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("+12", Some(12)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("08", None),
            ("2M", None),
            ("-1", None),
            ("", None),
            ("++1", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
