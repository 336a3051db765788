//! What can be wrong with a VHDX file.

use std::borrow::Cow;

use blockdev_core::{Error, ErrorKind};
use uuid::Uuid;

/// A breach of [MS-VHDX], or something this library does not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VhdxError {
    /// The file does not begin with the VHDX signature (§2.2.1).
    #[error("not a VHDX file: it does not begin with \"vhdxfile\"")]
    NotVhdx,

    /// Both copies of a doubled structure are damaged (§2.2.2, §2.2.3).
    #[error("neither copy of the {structure} is valid")]
    NoValidCopy {
        /// Header or region table.
        structure: &'static str,
        /// Where the first copy lies.
        offset: u64,
    },

    /// A structure does not begin with its signature.
    #[error("signature is \"{}\"", .found.escape_ascii())]
    Signature {
        /// The structure.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// What is there instead.
        found: Vec<u8>,
    },

    /// A field has a value that the specification forbids.
    #[error("{field} is {found}, expected {expected}")]
    Field {
        /// The structure.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// The specification's name of the field.
        field: &'static str,
        /// The value found.
        found: String,
        /// What the specification allows.
        expected: Cow<'static, str>,
    },

    /// Two things lie in the same place.
    #[error("{what} overlaps {other}")]
    Overlap {
        /// The structure that places them.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// The one.
        what: String,
        /// The other.
        other: String,
    },

    /// Something that every VHDX file has is not there.
    #[error("{what} is missing")]
    Missing {
        /// The structure that should name it.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// What is missing.
        what: Cow<'static, str>,
    },

    /// Something is marked as required to understand, and is unknown (§2.2.3.2, §2.6.1.2).
    #[error("{{{guid}}} is marked required and is not known to this library")]
    UnknownRequired {
        /// Region table entry or metadata table entry.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// Its identifier.
        guid: Uuid,
    },

    /// Something unknown is there and the caller asked to be strict.
    #[error("{what} is not known to this library, and strict reading was asked for")]
    Strict {
        /// The structure.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// What is unknown.
        what: String,
    },

    /// Something that is not in the specification, which this library adds to it. Strict reading
    /// refuses it.
    #[error("{what} is an extension of this library's, which strict reading refuses")]
    Extension {
        /// The structure.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// What is added.
        what: &'static str,
    },

    /// A version other than the one this library follows.
    #[error("{field} is {found}, this library knows {known}")]
    Version {
        /// Where the header lies.
        offset: u64,
        /// Version or LogVersion.
        field: &'static str,
        /// The version found.
        found: u16,
        /// The version known.
        known: u16,
    },

    /// The header names a log, but no valid sequence is in it (§2.3.3).
    #[error("the header names log {{{guid}}}, but the log holds no valid sequence of entries")]
    NoActiveSequence {
        /// Where the log lies.
        offset: u64,
        /// The log's identifier.
        guid: Uuid,
    },

    /// The file is shorter than the log knows it to have been (§2.3.3).
    #[error(
        "the file is {file_len} bytes long, and had at least {flushed} when the log was written"
    )]
    Truncated {
        /// Where the log lies.
        offset: u64,
        /// Length found.
        file_len: u64,
        /// FlushedFileOffset of the head entry.
        flushed: u64,
    },

    /// The log is not empty and the caller asked not to replay it.
    #[error("the log holds {entries} entries that were not applied to the file")]
    LogNotEmpty {
        /// Where the log lies.
        offset: u64,
        /// Entries in the active sequence.
        entries: usize,
    },

    /// A cap of [`Limits`](blockdev_core::Limits) is met.
    #[error("{what} is {found}, more than the limit of {limit}")]
    Limit {
        /// The structure.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// What is limited.
        what: &'static str,
        /// What the file asks for.
        found: u64,
        /// What is allowed.
        limit: u64,
    },

    /// A block lies where it cannot.
    #[error("{what} at {place:#x} {problem}")]
    Block {
        /// Where the BAT entry lies.
        offset: u64,
        /// Payload block or sector bitmap block, with its number.
        what: String,
        /// Where the entry says it lies.
        place: u64,
        /// What is wrong with that.
        problem: Cow<'static, str>,
    },
}

impl VhdxError {
    /// The stable kind this failure has for users of any format.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotVhdx => ErrorKind::NotRecognised,
            Self::UnknownRequired { .. }
            | Self::Strict { .. }
            | Self::Extension { .. }
            | Self::Version { .. } => ErrorKind::Unsupported,
            Self::LogNotEmpty { .. } => ErrorKind::NeedsRecovery,
            Self::Limit { .. } => ErrorKind::LimitExceeded,
            Self::NoValidCopy { .. }
            | Self::Signature { .. }
            | Self::Field { .. }
            | Self::Overlap { .. }
            | Self::Missing { .. }
            | Self::NoActiveSequence { .. }
            | Self::Truncated { .. }
            | Self::Block { .. } => ErrorKind::Corrupt,
        }
    }

    /// The structure it is about and where that lies in the file.
    #[must_use]
    pub fn place(&self) -> (&'static str, u64) {
        match *self {
            Self::NotVhdx => ("file type identifier", 0),
            Self::NoValidCopy { structure, offset }
            | Self::Signature {
                structure, offset, ..
            }
            | Self::Field {
                structure, offset, ..
            }
            | Self::Overlap {
                structure, offset, ..
            }
            | Self::Missing {
                structure, offset, ..
            }
            | Self::UnknownRequired {
                structure, offset, ..
            }
            | Self::Strict {
                structure, offset, ..
            }
            | Self::Extension {
                structure, offset, ..
            }
            | Self::Limit {
                structure, offset, ..
            } => (structure, offset),
            Self::Version { offset, .. } => ("header", offset),
            Self::NoActiveSequence { offset, .. }
            | Self::Truncated { offset, .. }
            | Self::LogNotEmpty { offset, .. } => ("log", offset),
            Self::Block { offset, .. } => ("BAT entry", offset),
        }
    }
}

impl From<VhdxError> for Error {
    fn from(error: VhdxError) -> Self {
        let (structure, offset) = error.place();
        Self::new(error.kind(), error.to_string())
            .at(structure, offset)
            .caused_by(error)
    }
}
