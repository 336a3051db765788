//! Which exports a server has.

use std::io;

use blockdev_core::{Error, ErrorKind};

use crate::session::agreement::Refusal;
use crate::uri::Uri;
use crate::{ClientOptions, ExportInfo};

/// Why a server's exports are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// What was asked for is no server, or asks for what there is not.
    #[error("{0}")]
    Unusable(#[source] Error),

    /// There is no server, or it lets nobody in.
    #[error("no connection to the server: {0}")]
    Connect(#[source] io::Error),

    /// It is older than lists are.
    #[error("the server does not list its exports")]
    NoLists,

    /// It does not want to.
    #[error("the server refuses ({code:#x}): {text}")]
    Refused {
        /// The number of what it was asked for: 3 for the list, 6 for what can be told of an export.
        option: u32,
        /// The protocol's number for why.
        code: u32,
        /// Its own words, which may be none, fit to be shown.
        text: String,
    },

    /// It makes no sense, takes too long, or is gone.
    #[error("{0}")]
    Failed(#[from] io::Error),
}

impl ListError {
    pub(crate) fn refused(option: u32, Refusal { code, text }: Refusal) -> Self {
        Self::Refused { option, code, text }
    }
}

impl From<ListError> for Error {
    fn from(error: ListError) -> Self {
        let kind = match &error {
            ListError::Unusable(error) => error.kind(),
            ListError::NoLists => ErrorKind::Unsupported,
            ListError::Connect(_) | ListError::Refused { .. } | ListError::Failed(_) => {
                ErrorKind::Io
            }
        };
        Self::new(kind, error.to_string()).caused_by(error)
    }
}

/// All exports of the server that `uri` names, as [`NbdStorage::connect`](crate::NbdStorage::connect) takes
/// it; which export it names is no matter. None of them is used.
///
/// The server is not trusted: all of it may take [`ClientOptions::patience`], and servers of more than 4096
/// exports or 4 MiB of names are left. Names are Unicode, and nothing else is known of them: they may move a
/// terminal's cursor.
///
/// # Errors
/// [`ListError`], of the first export that the server does not tell of.
pub fn list_exports(uri: &str, options: &ClientOptions) -> Result<Vec<ExportInfo>, ListError> {
    let uri = Uri::parse(uri).map_err(ListError::Unusable)?;
    options.check().map_err(ListError::Unusable)?;
    let within = uri.credentials().map_err(ListError::Unusable)?;
    let (dialogue, _) = uri.place.connect(options.patience)?;
    dialogue.list(within.as_ref())
}
