//! Who a server is, and whose word it takes for who its clients are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::NbdError;

/// The longest file that is read, in bytes: certificates are short.
const MAX_FILE: u64 = 1 << 20;

/// What a server needs for TLS, versions 1.2 and 1.3, by certificates (X.509).
///
/// The files are those of QEMU's `tls-creds-x509`: `server-cert.pem` and `server-key.pem`, and, where
/// clients have to show a certificate, `ca-cert.pem` with those whose signature counts, and perhaps
/// `ca-crl.pem` with what they have taken back.
#[derive(Clone)]
pub struct Credentials(Arc<ServerConfig>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those in the directory `dir`. With `verify_clients` nobody is served who has no certificate that is
    /// signed by one in `ca-cert.pem`; without, whoever knows how to speak TLS is.
    ///
    /// # Errors
    /// [`NbdError::Tls`] with the file that is missing or of no use.
    pub fn x509(dir: impl AsRef<Path>, verify_clients: bool) -> Result<Self, NbdError> {
        let dir = dir.as_ref();
        let provider = Arc::new(ring::default_provider());
        let certificate = dir.join("server-cert.pem");
        let chain = certificates(&certificate)?;
        let secret = key(&dir.join("server-key.pem"))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&certificate, error))?;
        let builder = match verify_clients {
            false => builder.with_no_client_auth(),
            true => {
                let trusted = dir.join("ca-cert.pem");
                let roots = roots(&trusted)?.into();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .with_crls(revoked(&dir.join("ca-crl.pem"))?)
                    .build()
                    .map_err(|error| bad(&trusted, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, secret)
            .map_err(|error| bad(&certificate, error))?;
        // Each connection shows who it is anew, and nothing is kept of those that are gone.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}

pub(crate) fn bad(path: &Path, why: impl fmt::Display) -> NbdError {
    NbdError::Tls {
        path: PathBuf::from(path),
        why: why.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, NbdError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| bad(path, error))?;
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
    match read.map_err(|error| bad(path, error))? as u64 > MAX_FILE {
        true => Err(bad(path, "longer than 1 MiB")),
        false => Ok(bytes),
    }
}

/// A key that nobody else has.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, NbdError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| bad(path, error))
}

/// Certificates whose signature counts.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, NbdError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        roots.add(root).map_err(|error| bad(path, error))?;
    }
    Ok(roots)
}

/// One certificate at least.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NbdError> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all.map_err(|error| bad(path, error))? {
        none if none.is_empty() => Err(bad(path, "no certificate in it")),
        all => Ok(all),
    }
}

/// The lists in the file, if there is one.
pub(crate) fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, NbdError> {
    if !path.try_exists().map_err(|error| bad(path, error))? {
        return Ok(Vec::new());
    }
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    all.map_err(|error| bad(path, error))
}
