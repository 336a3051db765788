//! `--object tls-creds-x509,…` and `--tls-creds`.

use std::path::Path;

use blockdev_nbd::{Credentials, NbdError};

use super::accessible;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Parsed;
use crate::compat::image::key_values;
use crate::compat::wording;

/// The credentials that were chosen, if any were; every object is looked at.
pub(super) fn find(said: &Parsed) -> Result<Option<Credentials>, Complaint> {
    let wanted = said.value("tls-creds");
    let mut found = None;
    for object in said.values("object") {
        let object = Object::new(&object)?;
        let credentials = object.credentials()?;
        if Some(&object.id) == wanted.as_ref() {
            found = Some(credentials);
        }
    }
    match (wanted, found) {
        (None, _) => Ok(None),
        (Some(_), Some(found)) => Ok(Some(found)),
        (Some(id), None) => Err(Complaint::new(format!(
            "Failed to get TLS creds: No TLS credentials with id '{id}'"
        ))),
    }
}

/// Certificates for TLS, as they were described.
#[derive(Debug)]
struct Object {
    id: String,
    dir: String,
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
        let (mut id, mut dir, mut verify) = (None, None, true);
        for (key, value) in parts {
            match (&*key, &*value) {
                ("id", _) => id = Some(value),
                ("dir", _) => dir = Some(value),
                ("endpoint", "server") => {}
                ("endpoint", "client") => {
                    return bad("Expecting TLS credentials with a server endpoint".into());
                }
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
            (Some(id), Some(dir)) => Ok(Self { id, dir, verify }),
        }
    }

    fn credentials(&self) -> Result<Credentials, Complaint> {
        for file in ["ca-cert.pem", "server-cert.pem", "server-key.pem"] {
            let path = format!("{}/{file}", self.dir);
            accessible(&path).map_err(|error| {
                let reason = wording::reason_of(&error);
                Complaint::new(format!("Unable to access credentials {path}: {reason}"))
            })?;
        }
        let credentials = Credentials::x509(Path::new(&self.dir), self.verify);
        credentials.map_err(|error: NbdError| Complaint::new(error))
    }
}
