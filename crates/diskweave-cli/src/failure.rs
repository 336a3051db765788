//! What went wrong, for the person at the terminal.

use std::fmt::Display;

use diskweave::core::{Error, ErrorKind};

/// A failure and the exit code it gives.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
    hint: Option<&'static str>,
}

impl Failure {
    pub(crate) fn new(message: impl Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
            hint: None,
        }
    }

    /// A failure of the library about the file called `name`.
    pub(crate) fn about(name: impl Display, error: Error) -> Self {
        Self {
            hint: hint(error.kind()),
            ..Self::new(error.context(name))
        }
    }

    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub(crate) fn show(&self) {
        eprintln!("diskweave: {}", self.message);
        if let Some(hint) = self.hint {
            eprintln!("hint: {hint}");
        }
    }
}

fn hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Policy => {
            Some("--parents any lets the image name any file; for images you trust")
        }
        ErrorKind::NeedsParent => Some(
            "parents are looked for below the image's directory; --parents any looks everywhere",
        ),
        ErrorKind::ParentMismatch => {
            Some("--any-parent accepts a parent that changed; the content is then a guess")
        }
        ErrorKind::Locked => Some("-U reads the image all the same; what it reads may be torn"),
        ErrorKind::NeedsRecovery => Some("without --recovery refuse the log is replayed in memory"),
        _ => None,
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error)
    }
}
