//! Whose word a client takes for who a server is, and who the client is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;

use crate::NbdError;
use crate::credentials::{bad, certificates, key, revoked, roots};

/// What a client needs for TLS by certificates with one server.
#[derive(Clone)]
pub(crate) struct ClientCredentials {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ClientCredentials {
    /// Those in the directory `dir`, for a server that is called `name`: it has to show a certificate of that
    /// name that is signed by one in `ca-cert.pem` and that `ca-crl.pem`, if there is one, has not taken
    /// back. Where there is a `client-cert.pem`, with its `client-key.pem`, it is shown.
    pub(crate) fn x509(dir: &Path, name: &str) -> Result<Self, NbdError> {
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|error| bad(Path::new(name), error))?;
        let provider = Arc::new(ring::default_provider());
        let trusted = dir.join("ca-cert.pem");
        let verifier = WebPkiServerVerifier::builder_with_provider(
            roots(&trusted)?.into(),
            Arc::clone(&provider),
        )
        .with_crls(revoked(&dir.join("ca-crl.pem"))?)
        .build()
        .map_err(|error| bad(&trusted, error))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&trusted, error))?
            .with_webpki_verifier(verifier);
        let (own, secret) = (dir.join("client-cert.pem"), dir.join("client-key.pem"));
        let is_there = |path: &Path| path.try_exists().map_err(|error| bad(path, error));
        let mut config = match is_there(&own)? || is_there(&secret)? {
            false => builder.with_no_client_auth(),
            true => builder
                .with_client_auth_cert(certificates(&own)?, key(&secret)?)
                .map_err(|error| bad(&own, error))?,
        };
        // Each connection shows who it is anew.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name: server,
        })
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    pub(crate) fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}
