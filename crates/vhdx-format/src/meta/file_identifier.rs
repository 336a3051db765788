//! File type identifier: the signature, and who wrote the file.

use crate::VhdxError;
use crate::ondisk::file_identifier::{RawFileIdentifier, SIGNATURE};
use crate::ondisk::read;

/// File type identifier ([MS-VHDX] §2.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileIdentifier {
    /// `vhdxfile` in every VHDX file.
    pub signature: [u8; 8],
    /// Name of the program that wrote the file; for information only.
    pub creator: String,
}

impl FileIdentifier {
    /// Bytes that [`decode`](Self::decode) needs.
    pub(crate) const BYTES: usize = size_of::<RawFileIdentifier>();

    /// Takes the identifier from the first bytes of a file.
    ///
    /// # Errors
    /// [`VhdxError::NotVhdx`] when they are too few or do not carry the signature.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, VhdxError> {
        let raw: RawFileIdentifier = read(bytes, 0).ok_or(VhdxError::NotVhdx)?;
        if raw.signature != SIGNATURE {
            return Err(VhdxError::NotVhdx);
        }
        let units = raw
            .creator
            .iter()
            .map(|unit| unit.get())
            .take_while(|unit| *unit != 0);
        // Nothing depends on it: what is not UTF-16 shows as replacement characters.
        let creator = char::decode_utf16(units)
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        Ok(Self {
            signature: raw.signature,
            creator,
        })
    }
}

/// True when a file that begins with `head` claims to be VHDX.
pub(crate) fn is_vhdx(head: &[u8]) -> bool {
    head.starts_with(&SIGNATURE)
}
