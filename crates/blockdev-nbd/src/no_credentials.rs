//! Without TLS there is nothing to show, and nobody who asks for it gets a connection.

/// What a client needs for TLS: nobody has it.
#[derive(Debug)]
pub(crate) enum ClientCredentials {}
