//! What can be wrong with a qcow2 file.

use std::borrow::Cow;

use blockdev_core::{Error, ErrorKind};

/// A breach of the qcow2 specification, or something this library does not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Qcow2Error {
    /// The file does not begin with the qcow2 magic.
    #[error("not a qcow2 image: it does not begin with \"QFI\\xfb\"")]
    NotQcow2,

    /// A version other than 2 and 3.
    #[error("version is {found}, this library knows 2 and 3")]
    Version {
        /// The version found.
        found: u32,
    },

    /// Incompatible feature bits that this library does not know.
    #[error("incompatible features are in use that this library does not know: {names}")]
    UnknownFeatures {
        /// Their names where the image tells them, else their numbers.
        names: String,
    },

    /// The image is encrypted.
    #[error("the image is encrypted ({method}), which is not supported yet")]
    Encrypted {
        /// The method's name.
        method: Cow<'static, str>,
    },

    /// A compression type that this library does not know.
    #[error("compression type {found} is not known; known are 0 (zlib) and 1 (zstd)")]
    CompressionType {
        /// The type found.
        found: u8,
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

    /// A cap is met.
    #[error("{field} is {found}, more than the limit of {limit}")]
    Limit {
        /// The structure.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// What is limited.
        field: &'static str,
        /// What the file asks for.
        found: u64,
        /// What is allowed.
        limit: u64,
    },

    /// A table entry makes no sense.
    #[error("{problem}")]
    Entry {
        /// L1 entry or L2 entry.
        structure: &'static str,
        /// Where it lies.
        offset: u64,
        /// What is wrong with it.
        problem: Cow<'static, str>,
    },

    /// A compressed cluster cannot be unpacked.
    #[error("the compressed cluster for guest offset {guest:#x} cannot be unpacked: {problem}")]
    Compressed {
        /// Where its bytes lie.
        offset: u64,
        /// Guest offset of the cluster.
        guest: u64,
        /// What the decoder says.
        problem: Cow<'static, str>,
    },

    /// There is no such snapshot.
    #[error("no snapshot has the id or name {name:?}")]
    NoSnapshot {
        /// What was asked for.
        name: String,
    },
}

impl Qcow2Error {
    /// The stable kind this failure has for users of any format.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotQcow2 => ErrorKind::NotRecognised,
            Self::Version { .. }
            | Self::UnknownFeatures { .. }
            | Self::Encrypted { .. }
            | Self::CompressionType { .. } => ErrorKind::Unsupported,
            Self::Limit { .. } => ErrorKind::LimitExceeded,
            Self::NoSnapshot { .. } => ErrorKind::InvalidInput,
            Self::Field { .. } | Self::Entry { .. } | Self::Compressed { .. } => ErrorKind::Corrupt,
        }
    }

    /// The structure it is about and where that lies in the file.
    #[must_use]
    pub fn place(&self) -> (&'static str, u64) {
        match *self {
            Self::NotQcow2
            | Self::Version { .. }
            | Self::UnknownFeatures { .. }
            | Self::Encrypted { .. }
            | Self::CompressionType { .. } => ("header", 0),
            Self::NoSnapshot { .. } => ("snapshot table", 0),
            Self::Field {
                structure, offset, ..
            }
            | Self::Limit {
                structure, offset, ..
            }
            | Self::Entry {
                structure, offset, ..
            } => (structure, offset),
            Self::Compressed { offset, .. } => ("compressed cluster", offset),
        }
    }
}

impl From<Qcow2Error> for Error {
    fn from(error: Qcow2Error) -> Self {
        let (structure, offset) = error.place();
        Self::new(error.kind(), error.to_string())
            .at(structure, offset)
            .caused_by(error)
    }
}
