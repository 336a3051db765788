//! What went wrong, for the person at the terminal.

use std::fmt::Display;
use std::io;

use diskweave::core::{Error, ErrorKind};

use crate::output::plain::{complain, plain};

/// A failure and the exit code it gives.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// Nothing where there is nobody left to tell.
    message: Option<String>,
    hint: Option<&'static str>,
}

/// What a shell reports of a command that the closing of its output has ended.
const OUTPUT_CLOSED: u8 = 128 + 13;

impl Failure {
    pub(crate) fn new(message: impl Display) -> Self {
        Self {
            code: 1,
            message: Some(message.to_string()),
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

    /// The same with another exit code, unless the output was closed, which says nothing.
    pub(crate) fn or_code(self, code: u8) -> Self {
        if self.message.is_none() {
            return self;
        }
        self.with_code(code)
    }

    pub(crate) fn without_hint(mut self) -> Self {
        self.hint = None;
        self
    }

    /// What there is to say, without a hint; nothing where there is nobody left to tell.
    pub(crate) fn into_message(self) -> Option<String> {
        self.message.map(|message| plain(&message))
    }

    pub(crate) fn show(&self) {
        let Some(message) = &self.message else {
            return;
        };
        complain(&format!("diskweave: {}", plain(message)));
        if let Some(hint) = self.hint {
            complain(&format!("hint: {hint}"));
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

impl From<io::Error> for Failure {
    /// A failure to write the answer: like `qemu-img`, whose output is cut off, this ends quietly.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                code: OUTPUT_CLOSED,
                message: None,
                hint: None,
            };
        }
        Self::new(format_args!("standard output: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}
