//! Names of exports, as others spell them.
//!
//! ```text
//!   nbd://HOST[:PORT]/NAME             nbd:HOST:PORT[:exportname=NAME]
//!   nbd+unix:///NAME?socket=PATH       nbd:unix:PATH[:exportname=NAME]
//! ```
//!
//! `nbds` instead of `nbd` is within TLS, and says by which certificates: `tls-certificates=DIR`, and perhaps
//! by which name the server is to be known: `tls-hostname=NAME`.
//!
//! Those on the left are URIs (the NBD project's `doc/uri.md`), those on the right QEMU's older ones, in
//! which every byte stands for itself.

use std::borrow::Cow;

use blockdev_core::{Error, ErrorKind, Result};

use crate::client_credentials::ClientCredentials;

/// The port that NBD has by custom.
const PORT: u16 = 10809;

/// What precedes the name in QEMU's older spelling.
const EXPORT_NAME: &str = ":exportname=";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(String, u16),
    Unix(Vec<u8>),
}

/// A server and an export of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uri {
    pub(crate) place: Place,
    pub(crate) name: String,
    /// TLS, if it is to be.
    tls: Option<Tls>,
}

/// How TLS is to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tls {
    certificates: String,
    server: String,
}

/// True of what is meant for the name of an export, sound or not.
pub(crate) fn is_export(text: &str) -> bool {
    scheme(text).is_some()
}

/// What precedes the first colon, and what follows it, where that is a scheme of NBD's.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let (first, way) = scheme.split_once('+').unwrap_or((scheme, ""));
    let plain = |c: char| c.is_ascii_alphanumeric();
    (matches!(first, "nbd" | "nbds") && way.chars().all(plain)).then_some((scheme, rest))
}

impl Uri {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] of what is none; [`ErrorKind::Unsupported`] with TLS, and by other ways
    /// than TCP and unix sockets.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let unsupported = |text: Cow<'static, str>| Err(Error::new(ErrorKind::Unsupported, text));
        let parsed = match scheme(text) {
            Some(("nbd" | "nbd+tcp" | "nbd+unix", rest)) if has_tls(rest) => {
                return unsupported("TLS is spoken where the name begins with nbds".into());
            }
            Some(("nbds" | "nbds+tcp" | "nbds+unix", rest)) if has_keys(rest) => {
                return unsupported("TLS by keys that both sides share is not spoken".into());
            }
            Some(("nbd", rest)) if !rest.starts_with("//") => older(rest),
            Some(("nbd" | "nbd+tcp", rest)) => by_tcp(rest, false),
            Some(("nbds" | "nbds+tcp", rest)) => by_tcp(rest, true),
            Some(("nbd+unix", rest)) => by_unix(rest, false),
            Some(("nbds+unix", rest)) => by_unix(rest, true),
            Some((other, _)) => {
                return unsupported(format!("{other} is no way to a server here").into());
            }
            None => None,
        };
        let wrong = || {
            let forms = match text.starts_with("nbds") {
                false => "nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH",
                true => {
                    "nbds://HOST[:PORT]/NAME?tls-certificates=DIR or \
                     nbds+unix://HOST/NAME?socket=PATH&tls-certificates=DIR"
                }
            };
            Error::new(ErrorKind::InvalidInput, format!("an export is {forms}"))
        };
        parsed
            .filter(|_| !text.chars().any(char::is_control))
            .ok_or_else(wrong)
    }

    /// What is needed for TLS, if that is to be spoken.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is not there, or of no use.
    #[cfg(feature = "tls")]
    pub(crate) fn credentials(&self) -> Result<Option<ClientCredentials>> {
        let found = self.tls.as_ref().map(|tls| {
            let dir = std::path::Path::new(&tls.certificates);
            ClientCredentials::x509(dir, &tls.server)
        });
        Ok(found.transpose()?)
    }

    /// What is needed for TLS, if that is to be spoken.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`].
    #[cfg(not(feature = "tls"))]
    pub(crate) fn credentials(&self) -> Result<Option<ClientCredentials>> {
        match &self.tls {
            None => Ok(None),
            Some(Tls {
                certificates,
                server,
            }) => {
                let text = format!(
                    "TLS with {server} by the certificates in {certificates}: not built in"
                );
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }
}

/// True of parameters that say how TLS is to be spoken: without it they would be passed over in silence.
fn has_tls(rest: &str) -> bool {
    let is_uri = rest.starts_with("//");
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    is_uri && query.split('&').any(|field| field.starts_with("tls-"))
}

/// True of parameters by which both sides would know each other by a secret.
fn has_keys(rest: &str) -> bool {
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let is_key = |field: &str| field.starts_with("tls-psk") || field.starts_with("tls-username=");
    query.split('&').any(is_key)
}

/// A URI after its scheme: where, which export, and what else.
struct Parts<'a> {
    host: &'a str,
    name: String,
    socket: Option<Vec<u8>>,
    certificates: Option<String>,
    server: Option<String>,
}

impl<'a> Parts<'a> {
    /// `None` also of a parameter that is there twice, or of which nobody knows what it would change.
    fn new(rest: &'a str) -> Option<Self> {
        let rest = rest.strip_prefix("//")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, name) = rest.split_once('/').unwrap_or((rest, ""));
        let mut parts = Self {
            host,
            name: text(name)?,
            socket: None,
            certificates: None,
            server: None,
        };
        for field in query.split('&').filter(|_| !query.is_empty()) {
            let is_new = match field.split_once('=')? {
                ("socket", value) => parts.socket.replace(decoded(value)?).is_none(),
                ("tls-certificates", value) => parts.certificates.replace(text(value)?).is_none(),
                ("tls-hostname", value) => parts.server.replace(text(value)?).is_none(),
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        Some(parts)
    }

    /// How TLS is to be spoken with a server that is called `host` unless something else is said.
    fn tls(self, wanted: bool, host: &str) -> Option<Option<Tls>> {
        if !wanted {
            return Some(None);
        }
        let server = self.server.unwrap_or_else(|| host.to_owned());
        let certificates = self.certificates?;
        let said = !server.is_empty() && !certificates.is_empty();
        said.then_some(Some(Tls {
            certificates,
            server,
        }))
    }
}

fn text(text: &str) -> Option<String> {
    String::from_utf8(decoded(text)?).ok()
}

fn by_tcp(rest: &str, within_tls: bool) -> Option<Uri> {
    let parts = Parts::new(rest)?;
    let place = tcp(parts.host, Some(PORT))?;
    let Place::Tcp(host, _) = &place else {
        return None;
    };
    let name = parts.name.clone();
    let is_plain = parts.socket.is_none();
    let tls = parts.tls(within_tls, host)?;
    is_plain.then_some(Uri { place, name, tls })
}

fn by_unix(rest: &str, within_tls: bool) -> Option<Uri> {
    /// Who is at a socket of this host.
    const HERE: &str = "localhost";

    let mut parts = Parts::new(rest)?;
    let place = Place::Unix(parts.socket.take()?).of_something()?;
    let host = match (parts.host, within_tls) {
        ("", _) => HERE,
        // By which the server is to be known.
        (host, true) => host,
        (_, false) => return None,
    };
    let name = parts.name.clone();
    let tls = parts.tls(within_tls, host)?;
    Some(Uri { place, name, tls })
}

fn older(rest: &str) -> Option<Uri> {
    let (place, name) = rest.split_once(EXPORT_NAME).unwrap_or((rest, ""));
    let place = match place.strip_prefix("unix:") {
        Some(path) => Place::Unix(path.into()).of_something()?,
        None => tcp(place, None)?,
    };
    Some(Uri {
        place,
        name: name.to_owned(),
        tls: None,
    })
}

impl Place {
    /// A place that is somewhere.
    fn of_something(self) -> Option<Self> {
        match &self {
            Self::Tcp(host, _) if host.is_empty() => None,
            Self::Unix(path) if path.is_empty() || path.contains(&0) => None,
            _ => Some(self),
        }
    }
}

/// The host and port that `text` says, the port being `usual` if it says none.
fn tcp(text: &str, usual: Option<u16>) -> Option<Place> {
    let (host, port) = match text.strip_prefix('[') {
        // An address of version 6 has colons of its own.
        Some(rest) => rest.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port {
        "" => usual?,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    Place::Tcp(host.to_owned(), port).of_something()
}

/// `text` without its percent signs.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push(u8::try_from(digit()? * 16 + digit()?).expect("two digits are a byte"));
    }
    (!out.contains(&0)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Place {
        Place::Tcp(host.into(), port)
    }

    fn unix(path: &str) -> Place {
        Place::Unix(path.into())
    }

    #[test]
    fn exports_are_named_as_others_name_them() {
        for (text, place, name) in [
            ("nbd://host", tcp("host", 10809), ""),
            ("nbd://host:1/a%20b/c", tcp("host", 1), "a b/c"),
            ("nbd://[::1]:2/", tcp("::1", 2), ""),
            ("nbd://[::1]/x", tcp("::1", 10809), "x"),
            ("nbd+tcp://host/x", tcp("host", 10809), "x"),
            ("nbd+unix:///x?socket=/tmp/a%3f", unix("/tmp/a?"), "x"),
            ("nbd+unix://?socket=s", unix("s"), ""),
            ("nbd:unix:/tmp/a%3f:b", unix("/tmp/a%3f:b"), ""),
            ("nbd:unix:s:exportname=a:b/c", unix("s"), "a:b/c"),
            ("nbd:host:1", tcp("host", 1), ""),
            ("nbd:[::1]:1:exportname=x", tcp("::1", 1), "x"),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!((uri.place, &uri.name[..]), (place, name), "{text}");
            assert!(is_export(text), "{text}");
        }
    }

    #[test]
    fn tls_is_with_the_server_of_the_name_that_was_said() {
        for (text, certificates, server) in [
            ("nbds://host/?tls-certificates=/x", "/x", "host"),
            ("nbds+tcp://[::1]:1/?tls-certificates=/x", "/x", "::1"),
            (
                "nbds://h/?tls-hostname=host&tls-certificates=%2Fx%20y",
                "/x y",
                "host",
            ),
            (
                "nbds+unix:///n?socket=s&tls-certificates=x",
                "x",
                "localhost",
            ),
            (
                "nbds+unix://host/n?tls-certificates=x&socket=s",
                "x",
                "host",
            ),
        ] {
            let tls = Uri::parse(text).unwrap().tls.unwrap();
            assert_eq!((&*tls.certificates, &*tls.server), (certificates, server));
        }
        assert_eq!(Uri::parse("nbd://host").unwrap().tls, None);
    }

    #[test]
    fn what_names_no_export_is_refused() {
        for text in [
            "",
            "nbd:",
            "nbd:host",
            "nbd:host:",
            "nbd:host:x",
            "nbd:unix:",
            "nbd:unix::exportname=x",
            "nbd::1",
            "nbd://",
            "nbd:///x",
            "nbd://host:x/",
            "nbd://host:70000/",
            "nbd://[::1",
            "nbd://host/%",
            "nbd://host/%f",
            "nbd://host/%ff",
            "nbd://host/a%00",
            "nbd://host/a\n",
            "nbd:unix:/tmp/a\0b",
            "nbd:unix:/tmp/a\u{1b}",
            "nbd://host/?socket=x",
            "nbd+unix:///x",
            "nbd+unix:///x?socket=",
            "nbd+unix:x?socket=y",
            "nbd+unix:///x?socket=y&z=1",
            "nbd+unix://host/x?socket=y",
            "nbds:host:1",
            "nbds://host/",
            "nbds://host/?tls-certificates=",
            "nbds://host/?tls-certificates=/x&tls-certificates=/y",
            "nbds://host/?tls-certificates=/x&tls-hostname=",
            "nbds://host/?tls-certificates=/x&tls-verify-peer=false",
            "nbds://host/?tls-certificates=/x&socket=y",
            "nbds+unix:///?socket=s",
            "nbds+unix:///?tls-certificates=/x",
            "http://host/",
        ] {
            let error = Uri::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
        }
    }

    /// Whoever asked for TLS was connected without.
    #[test]
    fn what_asks_for_tls_gets_no_connection_without() {
        for text in [
            "nbds://host/?tls-psk-file=/x",
            "nbds+unix:///?socket=s&tls-username=x",
            "nbds+vsock://2/",
            "nbd://host/?tls-certificates=/x",
            "nbd+unix:///?socket=s&tls-hostname=x",
            "nbd+vsock://2/",
        ] {
            let error = Uri::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
            assert!(is_export(text), "{text}");
        }
    }

    #[test]
    fn files_are_no_exports() {
        for text in [
            "nbd",
            "./nbd:host:1",
            "dir/nbd://host/",
            "/nbd:x",
            "nbdx:y",
            "C:\\nbd:x",
            "nbd.raw",
            "NBD:x",
            "nbd+a/b:c",
            "json:{}",
        ] {
            assert!(!is_export(text), "{text}");
        }
    }
}
