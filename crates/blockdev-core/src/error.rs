//! The one error type of the library: a stable kind, where it was met, and the cause beneath.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// The result of every fallible call in the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. Stable: match on this, show the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The host refused or failed a read, write or sync.
    Io,
    /// The image contradicts its format's rules.
    Corrupt,
    /// The image is well formed but needs something this library does not do.
    Unsupported,
    /// A limit in [`Limits`](crate::Limits) would be passed.
    LimitExceeded,
    /// The caller's arguments make no sense together.
    InvalidInput,
    /// An offset or length lies outside the disk.
    OutOfRange,
    /// A change was asked of something opened for reading.
    ReadOnly,
    /// The bytes are in a parent that was not opened.
    NeedsParent,
    /// A parent was found, but it is not the one the child was made from.
    ParentMismatch,
    /// The policy on naming other files forbids it.
    Policy,
    /// Another process holds the image.
    Locked,
    /// The image was not closed cleanly and the caller asked not to recover it.
    NeedsRecovery,
    /// An earlier failure left this handle unable to go on; reopen the image.
    Poisoned,
    /// No known format, or not the one that was declared.
    NotRecognised,
    /// The host has no room left.
    NoSpace,
}

impl ErrorKind {
    /// The kind as a lower-case phrase for messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "input/output error",
            Self::Corrupt => "image is corrupt",
            Self::Unsupported => "not supported",
            Self::LimitExceeded => "limit exceeded",
            Self::InvalidInput => "invalid argument",
            Self::OutOfRange => "outside the disk",
            Self::ReadOnly => "opened read-only",
            Self::NeedsParent => "parent image needed",
            Self::ParentMismatch => "parent does not match",
            Self::Policy => "forbidden by policy",
            Self::Locked => "image is in use",
            Self::NeedsRecovery => "recovery needed",
            Self::Poisoned => "handle unusable after an earlier failure",
            Self::NotRecognised => "format not recognised",
            Self::NoSpace => "no space left",
        }
    }
}

/// Which structure of the image an error is about, and where it lies in the host file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The structure, in the words of the format's specification.
    pub structure: Cow<'static, str>,
    /// Byte offset in the host file.
    pub offset: u64,
}

/// Any failure of the library.
///
/// Displays as `STRUCTURE at 0xOFFSET: MESSAGE`, or just the message where no structure is
/// involved. The cause, where there is one, is in [`source`](std::error::Error::source).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    at: Option<Location>,
    message: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            at: None,
            message: message.into(),
            source: None,
        }))
    }

    /// A breach of the format's rules found in `structure` at byte `offset` of the host file.
    #[must_use]
    pub fn corrupt(
        structure: impl Into<Cow<'static, str>>,
        offset: u64,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(ErrorKind::Corrupt, message).at(structure, offset)
    }

    /// The same error, said to be about `structure` at byte `offset` of the host file.
    #[must_use]
    pub fn at(mut self, structure: impl Into<Cow<'static, str>>, offset: u64) -> Self {
        self.0.at = Some(Location {
            structure: structure.into(),
            offset,
        });
        self
    }

    /// The same error with the failure that led to it.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, its message led by `context` and a colon: for naming the file at hand.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        let text = self.to_string();
        self.0.message = format!("{context}: {text}").into();
        // The place is now part of the text and must not be said twice.
        self.0.at = None;
        self
    }

    /// The same for somebody else whom it concerns, without the failure that led to it.
    pub(crate) fn again(&self) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            at: self.0.at.clone(),
            message: self.0.message.clone(),
            source: None,
        }))
    }

    /// The stable kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The structure and host offset, where the failure is about one.
    #[must_use]
    pub fn location(&self) -> Option<&Location> {
        self.0.at.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.0.at {
            write!(f, "{} at {:#x}: ", at.structure, at.offset)?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if let Some(at) = &self.0.at {
            s.field("at", at);
        }
        if let Some(source) = &self.0.source {
            s.field("source", source);
        }
        s.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, kind.as_str())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        Self::new(kind, error.to_string()).caused_by(error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NotRecognised => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::InvalidInput | ErrorKind::OutOfRange => io::ErrorKind::InvalidInput,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::Policy => io::ErrorKind::PermissionDenied,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::NeedsParent => io::ErrorKind::NotFound,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_structure_and_offset() {
        let error = Error::corrupt("BAT entry", 0x30_0008, "state 5 is reserved");
        assert_eq!(
            error.to_string(),
            "BAT entry at 0x300008: state 5 is reserved"
        );
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let named = error.context("disk.vhdx");
        assert_eq!(
            named.to_string(),
            "disk.vhdx: BAT entry at 0x300008: state 5 is reserved"
        );
        assert!(named.location().is_none());
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_io_errors() {
        let full = Error::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), ErrorKind::NoSpace);
        let other = Error::from(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!(other.kind(), ErrorKind::Io);
    }
}
