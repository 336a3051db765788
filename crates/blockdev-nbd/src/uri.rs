//! Names of exports, as others spell them.
//!
//! ```text
//!   nbd://HOST[:PORT]/NAME             nbd:HOST:PORT[:exportname=NAME]
//!   nbd+unix:///NAME?socket=PATH       nbd:unix:PATH[:exportname=NAME]
//! ```
//!
//! Those on the left are URIs (the NBD project's `doc/uri.md`), those on the right QEMU's older ones, in
//! which every byte stands for itself.

use std::borrow::Cow;

use blockdev_core::{Error, ErrorKind, Result};

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
            Some((scheme, _)) if scheme.starts_with("nbds") => {
                return unsupported("NBD over TLS is not spoken".into());
            }
            Some((_, rest)) if has_tls(rest) => {
                return unsupported("it asks for TLS, which is not spoken".into());
            }
            Some(("nbd", rest)) if !rest.starts_with("//") => older(rest),
            Some(("nbd" | "nbd+tcp", rest)) => by_tcp(rest),
            Some(("nbd+unix", rest)) => by_unix(rest),
            Some((other, _)) => {
                return unsupported(format!("{other} is no way to a server here").into());
            }
            None => None,
        };
        let wrong = || {
            let forms = "nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH";
            Error::new(ErrorKind::InvalidInput, format!("an export is {forms}"))
        };
        parsed
            .filter(|_| !text.chars().any(char::is_control))
            .ok_or_else(wrong)
    }
}

/// True of parameters that say how TLS is to be spoken: without it they would be passed over in silence.
fn has_tls(rest: &str) -> bool {
    let is_uri = rest.starts_with("//");
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    is_uri && query.split('&').any(|field| field.starts_with("tls-"))
}

/// The parts of a URI after its scheme: where, which export, and what else.
fn parts(rest: &str) -> Option<(&str, String, &str)> {
    let rest = rest.strip_prefix("//")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, name) = rest.split_once('/').unwrap_or((rest, ""));
    Some((host, String::from_utf8(decoded(name)?).ok()?, query))
}

fn by_tcp(rest: &str) -> Option<Uri> {
    let (host, name, query) = parts(rest)?;
    let place = tcp(host, Some(PORT))?;
    query.is_empty().then_some(Uri { place, name })
}

fn by_unix(rest: &str) -> Option<Uri> {
    let (host, name, query) = parts(rest)?;
    let path = query.strip_prefix("socket=")?;
    // One more parameter, of which nobody knows what it would change.
    let path = (!path.contains('&')).then(|| decoded(path))??;
    let place = Place::Unix(path).of_something()?;
    host.is_empty().then_some(Uri { place, name })
}

fn older(rest: &str) -> Option<Uri> {
    let (place, name) = rest.split_once(EXPORT_NAME).unwrap_or((rest, ""));
    let place = match place.strip_prefix("unix:") {
        Some(path) => Place::Unix(path.into()).of_something()?,
        None => tcp(place, None)?,
    };
    let name = name.to_owned();
    Some(Uri { place, name })
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
            "nbds://host/",
            "nbds+unix:///?socket=s",
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
