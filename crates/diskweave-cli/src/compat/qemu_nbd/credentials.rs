//! `--object tls-creds-x509,…` and `--tls-creds`.

use std::path::Path;

use blockdev_nbd::{Credentials, NbdError};

use super::accessible;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Parsed;
use crate::compat::image::key_values;
use crate::compat::wording;

/// A server's credentials that were chosen, if any were; every object is looked at.
pub(super) fn find(said: &Parsed) -> Result<Option<Credentials>, Complaint> {
    let Some(object) = chosen(said)? else {
        return Ok(None);
    };
    object.expect_endpoint(Endpoint::Server)?;
    let credentials = Credentials::x509(Path::new(&object.dir), object.verify);
    credentials
        .map(Some)
        .map_err(|error: NbdError| Complaint::new(error))
}

/// The directory of a client's credentials that were chosen, if any were.
pub(super) fn find_clients(said: &Parsed) -> Result<Option<String>, Complaint> {
    let Some(object) = chosen(said)? else {
        return Ok(None);
    };
    object.expect_endpoint(Endpoint::Client)?;
    if !object.verify {
        let text = "verify-peer=off is not supported: a server has to be who it says";
        return Err(Complaint::new(text));
    }
    Ok(Some(object.dir))
}

fn chosen(said: &Parsed) -> Result<Option<Object>, Complaint> {
    let wanted = said.value("tls-creds");
    let mut found = None;
    for object in said.values("object") {
        let object = Object::new(&object)?;
        object.check_files()?;
        if Some(&object.id) == wanted.as_ref() {
            found = Some(object);
        }
    }
    match (wanted, found) {
        (None, _) => Ok(None),
        (Some(id), None) => Err(Complaint::new(format!(
            "Failed to get TLS creds: No TLS credentials with id '{id}'"
        ))),
        (_, found) => Ok(found),
    }
}

/// Who uses certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Client,
    Server,
}

/// Certificates for TLS, as they were described.
#[derive(Debug)]
struct Object {
    id: String,
    dir: String,
    endpoint: Endpoint,
    verify: bool,
}

impl Object {
    fn new(text: &str) -> Result<Self, Complaint> {
        let bad = |text: String| Err(Complaint::new(text));
        let mut parts = key_values(text).into_iter();
        let (kind, kind_value) = parts.next().unwrap_or_default();
        let kind = if kind == "qom-type" { kind_value } else { kind };
        match &*kind {
            "tls-creds-x509" => {}
            "tls-creds-psk" => {
                return bad(
                    "TLS by keys that both sides share beforehand (tls-creds-psk) is not \
                            supported; certificates (tls-creds-x509) are"
                        .into(),
                );
            }
            "secret" | "tls-creds-anon" => {
                return bad(format!("objects of the type '{kind}' are not supported"));
            }
            _ => {
                return bad(format!(
                    "Parameter 'qom-type' does not accept value '{kind}'"
                ));
            }
        }
        let (mut id, mut dir) = (None, None);
        let (mut endpoint, mut verify) = (Endpoint::Client, true);
        for (key, value) in parts {
            match (&*key, &*value) {
                ("id", _) => id = Some(value),
                ("dir", _) => dir = Some(value),
                ("endpoint", "server") => endpoint = Endpoint::Server,
                ("endpoint", "client") => endpoint = Endpoint::Client,
                ("endpoint", _) => {
                    let text = format!("Parameter 'endpoint' does not accept value '{value}'");
                    return bad(text);
                }
                ("verify-peer", "on" | "yes" | "true" | "y") => verify = true,
                ("verify-peer", "off" | "no" | "false" | "n") => verify = false,
                ("verify-peer", _) => {
                    return bad("Parameter 'verify-peer' expects 'on' or 'off'".into());
                }
                ("sanity-check" | "priority", _) => {}
                _ => return bad(format!("Parameter '{key}' is unexpected")),
            }
        }
        match (id, dir) {
            (None, _) => bad("Parameter 'id' is missing".into()),
            (_, None) => bad("Missing 'dir' property value".into()),
            (Some(id), Some(dir)) => Ok(Self {
                id,
                dir,
                endpoint,
                verify,
            }),
        }
    }

    fn expect_endpoint(&self, expected: Endpoint) -> Result<(), Complaint> {
        let whose = match expected {
            _ if self.endpoint == expected => return Ok(()),
            Endpoint::Client => "client",
            Endpoint::Server => "server",
        };
        Err(Complaint::new(format!(
            "Failed to get TLS creds: Expected TLS credentials for a {whose} endpoint"
        )))
    }

    fn check_files(&self) -> Result<(), Complaint> {
        let needed: &[&str] = match self.endpoint {
            Endpoint::Client => &["ca-cert.pem"],
            Endpoint::Server => &["ca-cert.pem", "server-cert.pem", "server-key.pem"],
        };
        for file in needed {
            let path = format!("{}/{file}", self.dir);
            accessible(&path).map_err(|error| {
                let reason = wording::reason_of(&error);
                Complaint::new(format!("Unable to access credentials {path}: {reason}"))
            })?;
        }
        Ok(())
    }
}
