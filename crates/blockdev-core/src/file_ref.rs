//! How an image names the other files it needs. Names are data: nothing here opens them.

use std::fmt;
use std::path::PathBuf;

/// What the named file is to the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileRole {
    /// The layer below.
    Parent,
    /// The file that holds the image's guest data.
    Data,
}

/// What sort of name it is, in the order a VHDX child wants them tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// Against the directory of the image that names it.
    Relative,
    /// Against a volume known by its identifier.
    Volume,
    /// From the root of the host's file system.
    Absolute,
    /// With a prefix that says how to get at it, as `json:` and `nbd:` do. It is no path, unless
    /// whoever trusts the image makes one of it, which starts from the working directory then.
    Protocol,
}

impl NameKind {
    /// The kind as a lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relative => "relative",
            Self::Volume => "volume",
            Self::Absolute => "absolute",
            Self::Protocol => "protocol",
        }
    }
}

/// One name under which the file may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// What sort of name it is.
    pub kind: NameKind,
    /// The name as the image spells it.
    pub stored: String,
    /// The name in this host's syntax; `None` when it can mean nothing here (a Windows volume on
    /// another system, a protocol prefix, a name with NUL).
    pub path: Option<PathBuf>,
}

/// A fingerprint of a disk's content: for VHDX the data-write GUID, in the order its text shows it; for
/// formats that keep none, [`file_fingerprint`](crate::file_fingerprint).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 16]);

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

/// A file that an image refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// What the file is to the image.
    pub role: FileRole,
    /// Names to try, best first.
    pub names: Vec<FileName>,
    /// The format the image declares for it. A parent of unknown format is never probed for.
    pub format: Option<String>,
    /// Content fingerprints the file must have one of; empty when the image records none.
    pub expected: Vec<ContentId>,
    /// Logical sector size the file's disk must have, in bytes, where the format demands one.
    pub logical_sector_size: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ids_read_like_guids() {
        let id = ContentId([
            0x5e, 0x9b, 0x69, 0xe7, 0xd1, 0xa9, 0x4d, 0x4c, 0x98, 0x93, 0x97, 0x79, 0x56, 0x43,
            0x6a, 0x04,
        ]);
        assert_eq!(id.to_string(), "5e9b69e7-d1a9-4d4c-9893-977956436a04");
    }
}
