//! Names of exports: `nbd://HOST[:PORT]/NAME` and `nbd+unix:///NAME?socket=PATH`.

use blockdev_core::{Error, ErrorKind, Result};

/// The port that NBD has by custom.
const PORT: u16 = 10809;

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

impl Uri {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] of what is none; [`ErrorKind::Unsupported`] with TLS.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            let forms = "nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH";
            Error::new(ErrorKind::InvalidInput, format!("an export is {forms}"))
        };
        if text.starts_with("nbds") {
            let text = "NBD over TLS is not spoken";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Self::try_parse(text).ok_or_else(wrong)
    }

    fn try_parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, name) = rest.split_once('/').unwrap_or((rest, ""));
        let name = String::from_utf8(decoded(name)?).ok()?;
        let place = match scheme {
            "nbd" if query.is_empty() => tcp(host)?,
            "nbd+unix" if host.is_empty() => {
                let path = decoded(query.strip_prefix("socket=")?)?;
                (!path.is_empty()).then_some(Place::Unix(path))?
            }
            _ => return None,
        };
        Some(Self { place, name })
    }
}

fn tcp(host: &str) -> Option<Place> {
    let (name, port) = match host.strip_prefix('[') {
        // An address of version 6 has colons of its own.
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = match port {
        "" => PORT,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    (!name.is_empty()).then(|| Place::Tcp(name.to_owned(), port))
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

    #[test]
    fn exports_are_named_as_others_name_them() {
        for (text, place, name) in [
            ("nbd://host", tcp("host", 10809), ""),
            ("nbd://host:1/a%20b/c", tcp("host", 1), "a b/c"),
            ("nbd://[::1]:2/", tcp("::1", 2), ""),
            ("nbd://[::1]/x", tcp("::1", 10809), "x"),
            (
                "nbd+unix:///x?socket=/tmp/a%3f",
                Place::Unix(b"/tmp/a?".to_vec()),
                "x",
            ),
            ("nbd+unix://?socket=s", Place::Unix(b"s".to_vec()), ""),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!((uri.place, &uri.name[..]), (place, name), "{text}");
        }
    }

    #[test]
    fn what_names_no_export_is_refused() {
        for text in [
            "",
            "nbd:host:1",
            "nbd://",
            "nbd:///x",
            "nbd://host:x/",
            "nbd://host:70000/",
            "nbd://[::1",
            "nbd://host/%",
            "nbd://host/%f",
            "nbd://host/%ff",
            "nbd://host/a%00",
            "nbd://host/?socket=x",
            "nbd+unix:///x",
            "nbd+unix:///x?socket=",
            "nbd+unix://host/x?socket=y",
            "http://host/",
        ] {
            let error = Uri::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
        let error = Uri::parse("nbds://host/").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
