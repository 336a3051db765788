//! One layer of a chain, and how it came to be there.

use std::fmt;
use std::path::{Path, PathBuf};

use blockdev_core::{ContentId, Error, FileId, FileName, FileRef, FileRole, HostFile, Layer};

/// How a layer's file was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundBy {
    /// The caller gave the layer.
    Given,
    /// The caller's resolver supplied the file for the image above.
    Handle,
    /// The image above names it so, and the policy let the name be followed.
    Name(FileName),
}

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("given"),
            Self::Handle => f.write_str("handle"),
            Self::Name(name) => write!(f, "{} {}", name.kind.as_str(), Quoted(&name.stored)),
        }
    }
}

/// What there is to tell about one layer of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo<'a> {
    /// Place in the chain: 0 is the top.
    pub depth: u32,
    /// Path of the image file, where it has one.
    pub path: Option<&'a Path>,
    /// Path of the external data file, where the image has one that was found by name.
    pub data_path: Option<&'a Path>,
    /// How the file was found.
    pub found: &'a FoundBy,
    /// Name of the format.
    pub format: &'static str,
    /// Fingerprint of the content at this moment, where the format has one.
    pub content_id: Option<ContentId>,
    /// The layer's own virtual size in bytes.
    pub size: u64,
}

/// A layer in its place.
pub(crate) struct Link {
    pub(crate) layer: Box<dyn Layer>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) data_path: Option<PathBuf>,
    pub(crate) found: FoundBy,
    pub(crate) identity: Option<FileId>,
    /// It was opened here, so that it is what its file is as an image of its format; one that was given may be
    /// anything else, such as an internal snapshot.
    pub(crate) is_file: bool,
}

impl Link {
    /// A layer that the caller opened.
    pub(crate) fn given(layer: Box<dyn Layer>, path: Option<PathBuf>) -> Self {
        let identity = layer.host(HostFile::Image).and_then(|file| file.identity());
        Self {
            layer,
            path,
            data_path: None,
            found: FoundBy::Given,
            identity,
            is_file: false,
        }
    }

    /// True when both are the same file, opened as the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let formats = [self, other].map(|link| link.layer.info().format);
        let known = self.is_file && other.is_file && self.identity.is_some();
        known && self.identity == other.identity && formats[0] == formats[1]
    }

    /// The reference to the layer below.
    pub(crate) fn parent(&self) -> Option<&FileRef> {
        let mut refs = self.layer.file_refs().iter();
        refs.find(|reference| reference.role == FileRole::Parent)
    }

    /// `error`, said to be about this layer.
    pub(crate) fn blame(&self, error: Error) -> Error {
        error.context(format_args!("parent image {self}"))
    }
}

/// The name of the image in messages.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, &self.found) {
            (Some(path), _) => write!(f, "{}", Quoted(&path.to_string_lossy())),
            (None, FoundBy::Name(name)) => write!(f, "{}", Quoted(&name.stored)),
            (None, _) => write!(f, "({}, no path)", self.layer.info().format),
        }
    }
}

/// A name out of a file, fit to be shown: escaped, and of bounded length.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

/// Characters of a name that a message shows.
const SHOWN: usize = 256;

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "\"{}\"", self.0.escape_debug()),
            Some((end, _)) => write!(f, "\"{}\"…", self.0[..end].escape_debug()),
        }
    }
}
