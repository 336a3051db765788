//! `-L`: the exports of another server, as QEMU's program prints them.

use std::fmt::Write;
use std::io;

use blockdev_nbd::{BlockSizes, ClientOptions, ExportInfo, ListError, list_exports};

use super::call::Place;
use super::credentials;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Parsed;
use crate::compat::wording;
use crate::output::plain::{plain, print};

/// Options that are about a disk of one's own.
const PER_DEVICE: &[&str] = &[
    "export-name",
    "description",
    "format",
    "bitmap",
    "allocation-depth",
    "connect",
    "disconnect",
    "cache",
    "nocache",
    "aio",
    "discard",
];

/// Names of the transmission flags, from the second bit on.
const FLAGS: &[&str] = &[
    "readonly",
    "flush",
    "fua",
    "rotational",
    "trim",
    "zeroes",
    "df",
    "multi",
    "resize",
    "cache",
    "fast-zero",
    "block-status-payload",
];

/// The protocol's numbers of what can be asked for, and why it can be refused.
mod number {
    pub(super) const LIST: u32 = 3;
    pub(super) const STARTTLS: u32 = 5;
    pub(super) const INFO: u32 = 6;
    pub(super) const UNSUPPORTED: u32 = (1 << 31) + 1;
    pub(super) const POLICY: u32 = (1 << 31) + 2;
    pub(super) const INVALID: u32 = (1 << 31) + 3;
    pub(super) const PLATFORM: u32 = (1 << 31) + 4;
    pub(super) const TLS_REQUIRED: u32 = (1 << 31) + 5;
    pub(super) const UNKNOWN: u32 = (1 << 31) + 6;
    pub(super) const SHUTDOWN: u32 = (1 << 31) + 7;
    pub(super) const BLOCK_SIZE_REQUIRED: u32 = (1 << 31) + 8;
}

/// Refuses what has no place beside a list. `offset` is that of the disk.
pub(super) fn check(said: &Parsed, offset: u64) -> Result<(), Complaint> {
    let text = match () {
        () if !said.operands.is_empty() => "a file name",
        () if offset != 0 || PER_DEVICE.iter().any(|option| said.has(option)) => {
            "per-device settings"
        }
        () if said
            .value("load-snapshot")
            .is_some_and(|said| !said.starts_with("snapshot.")) =>
        {
            "per-device settings"
        }
        () if said.has("fork") => "forking",
        () => return Ok(()),
    };
    Err(Complaint::new(format_args!(
        "List mode is incompatible with {text}"
    )))
}

/// Asks and prints.
pub(super) fn run(said: &Parsed) -> Result<(), Complaint> {
    let place = Place::of_another(said)?;
    let tls = credentials::find_clients(said)?;
    if said.has("tls-authz") {
        let text = "TLS authorization is incompatible with export list";
        return Err(Complaint::new(text));
    }
    let server = said.value("tls-hostname");
    if tls.is_some() && place.socket.is_some() && server.is_none() {
        return Err(Complaint::new("No hostname for certificate validation"));
    }
    let uri = place.uri(tls.as_deref(), server.as_deref());
    match list_exports(&uri, &ClientOptions::default()) {
        Ok(exports) => Ok(print(&text(&exports))?),
        Err(ListError::Refused {
            option: number::LIST,
            code: number::UNSUPPORTED,
            ..
        }) => Ok(print(&text(&[]))?),
        Err(error) => Err(not_listed(&place, &error)),
    }
}

impl Place {
    fn uri(&self, tls: Option<&str>, server: Option<&str>) -> String {
        let s = if tls.is_some() { "s" } else { "" };
        let mut query = Vec::new();
        let place = match &self.socket {
            Some(socket) => {
                query.push(format!("socket={}", percent(socket)));
                format!("nbd{s}+unix:///")
            }
            None if self.bind.contains(':') => format!("nbd{s}://[{}]:{}/", self.bind, self.port),
            None => format!("nbd{s}://{}:{}/", self.bind, self.port),
        };
        query.extend(tls.map(|dir| format!("tls-certificates={}", percent(dir))));
        query.extend(server.map(|name| format!("tls-hostname={}", percent(name))));
        match query.is_empty() {
            true => place,
            false => format!("{place}?{}", query.join("&")),
        }
    }
}

/// `text` with nothing in it that means anything in a URI.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => out.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => out.push(byte.into()),
            byte => write!(out, "%{byte:02x}").expect("a string takes all"),
        }
    }
    out
}

fn text(exports: &[ExportInfo]) -> String {
    let mut out = format!("exports available: {}\n", exports.len());
    for export in exports {
        describe(&mut out, export).expect("a string takes all");
    }
    out
}

fn describe(out: &mut String, export: &ExportInfo) -> std::fmt::Result {
    writeln!(out, " export: '{}'", plain(&export.name))?;
    if !export.description.is_empty() {
        let lines: Vec<_> = export.description.split('\n').map(plain).collect();
        writeln!(out, "  description: {}", lines.join("\n"))?;
    }
    if let Some(size) = export.size {
        writeln!(out, "  size:  {size}")?;
        write!(out, "  flags: 0x{:x} (", export.flags)?;
        for (at, name) in FLAGS.iter().enumerate() {
            if export.flags >> (at + 1) & 1 == 1 {
                write!(out, " {name}")?;
            }
        }
        writeln!(out, " )")?;
    }
    if let Some(BlockSizes {
        minimum,
        preferred,
        maximum,
        ..
    }) = export.block_sizes
    {
        writeln!(out, "  min block: {minimum}")?;
        writeln!(out, "  opt block: {preferred}")?;
        writeln!(out, "  max block: {maximum}")?;
    }
    let bits = if export.extended_headers { 64 } else { 32 };
    writeln!(out, "  transaction size: {bits}-bit")?;
    if !export.contexts.is_empty() {
        let count = export.contexts.len();
        writeln!(out, "  available meta contexts: {count}")?;
        for context in &export.contexts {
            writeln!(out, "   {}", plain(context))?;
        }
    }
    Ok(())
}

fn not_listed(place: &Place, error: &ListError) -> Complaint {
    match error {
        ListError::Connect(error) => not_connected(place, error),
        ListError::NoLists => Complaint::new("Server does not support export lists"),
        ListError::Refused { option, code, text } => refused(*option, *code, text),
        other => Complaint::new(other),
    }
}

fn not_connected(place: &Place, error: &io::Error) -> Complaint {
    /// What precedes the resolver's own words.
    const LOOKUP: &str = "failed to lookup address information: ";
    let reason = wording::reason_of(error);
    let Place { bind, port, .. } = place;
    match (&place.socket, reason.strip_prefix(LOOKUP)) {
        (Some(socket), _) => Complaint::new(format!("Failed to connect to '{socket}': {reason}")),
        (None, Some(reason)) => Complaint::new(format!(
            "address resolution failed for {bind}:{port}: {reason}"
        )),
        (None, None) => Complaint::new(format!("Failed to connect to '{bind}:{port}': {reason}")),
    }
}

fn refused(option: u32, code: u32, words: &str) -> Complaint {
    let name = match option {
        number::LIST => "list",
        number::STARTTLS => "starttls",
        number::INFO => "info",
        _ => "<unknown>",
    };
    let what = format!("option {option} ({name})");
    let mut text = match code {
        number::UNSUPPORTED if option == number::STARTTLS => {
            return Complaint::new("Server don't support STARTTLS option");
        }
        number::POLICY => format!("Denied by server for {what}"),
        number::INVALID => format!("Invalid parameters for {what}"),
        number::PLATFORM => format!("Server lacks support for {what}"),
        number::TLS_REQUIRED => {
            format!("TLS negotiation required before {what}\nDid you forget a valid tls-creds?")
        }
        number::UNKNOWN => "Requested export not available".into(),
        number::SHUTDOWN => format!("Server shutting down before {what}"),
        number::BLOCK_SIZE_REQUIRED => format!("Server requires INFO_BLOCK_SIZE for {what}"),
        _ => format!("Unknown error code when asking for {what}"),
    };
    if !words.is_empty() {
        text = format!("{text}\nserver reported: {words}");
    }
    Complaint::new(text)
}
