//! What a new child is to say of its parent.

use std::path::Path;

use blockdev_core::{Error, ErrorKind, NameKind, Result};
use uuid::Uuid;

use crate::meta::parent_path::locator_path;

/// The parent of a new differencing disk: which one it is, and where (§2.6.2.6).
///
/// [`CreateOptions::child_of`](crate::CreateOptions::child_of) fills one in from an open parent; by
/// hand it is made for parents that are not at hand, and whoever makes it answers for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentLink {
    /// What sort of file the parent is.
    pub format: ParentFormat,
    /// What the parent is known by again: the data-write GUID of a VHDX (§2.2.2), the
    /// [`file_fingerprint`](blockdev_core::file_fingerprint) of a file of another format.
    pub linkage: Uuid,
    /// Where it is. At least one path must be given.
    pub paths: ParentPaths,
    /// Logical and physical sector size of the parent in bytes, which the child must share; `None`
    /// where the parent's format has none of its own, or they are not known.
    pub sector_sizes: Option<(u32, u32)>,
}

impl ParentLink {
    /// A parent of `format`, known again by `linkage`, at `paths`; its sector sizes are not known.
    #[must_use]
    pub fn new(format: ParentFormat, linkage: Uuid, paths: ParentPaths) -> Self {
        Self {
            format,
            linkage,
            paths,
            sector_sizes: None,
        }
    }
}

/// What sort of file a parent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentFormat {
    /// A VHDX, as every reader of VHDX knows it.
    Vhdx,
    /// A file of the format with this name, such as `raw` or `qcow2`: this library's own extension,
    /// which other readers refuse; see
    /// [`known::OTHER_PARENT_LOCATOR`](crate::known::OTHER_PARENT_LOCATOR).
    Other(String),
}

/// By what a child knows its parent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linkage {
    /// The parent's content is this: what [`ParentLink::linkage`] says of a new child.
    Is(Uuid),
    /// The parent's content is `from`, or `to` already: it is being merged into, and gets its new
    /// identity with its first change. Only of parents that are VHDX.
    Becomes {
        /// The identity that the child records so far.
        from: Uuid,
        /// The one that the parent is about to get.
        to: Uuid,
    },
    /// The parent's content is changing, and by what it will be known nobody can tell before that has
    /// ended: meanwhile the child takes any. Only of parents that are no VHDX.
    Changing,
}

/// Where the parent of a new child is, as its locator says it: with `\` between names, and on other
/// systems than Windows an absolute path as it is there.
///
/// # Example
///
/// ```
/// use vhdx_format::ParentPaths;
///
/// let paths = ParentPaths::relative("../images/base.vhdx")?;
/// assert_eq!(paths.relative.as_deref(), Some(r"..\images\base.vhdx"));
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentPaths {
    /// From the child's directory: `relative_path`.
    pub relative: Option<String>,
    /// From the root of the file system: `absolute_win32_path`, or `absolute_path` in the locator of
    /// a parent of another format.
    pub absolute: Option<String>,
    /// From a volume named by its GUID: `volume_path`, which only Windows understands and only
    /// parents that are VHDX have.
    pub volume: Option<String>,
}

impl ParentPaths {
    /// The relative path `path` of this host, and no other.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what is no relative path, or has characters that
    /// a locator would not lead back to it by: `\` where that is no separator, control characters,
    /// and what is no Unicode.
    pub fn relative(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self {
            relative: Some(said(NameKind::Relative, path.as_ref())?),
            ..Self::default()
        })
    }

    /// The same with the absolute path `path` of this host.
    ///
    /// # Errors
    /// As [`relative`](Self::relative), for what is no absolute path.
    pub fn with_absolute(mut self, path: impl AsRef<Path>) -> Result<Self> {
        self.absolute = Some(said(NameKind::Absolute, path.as_ref())?);
        Ok(self)
    }

    /// The same with a Windows path that begins with the GUID of a volume.
    #[must_use]
    pub fn with_volume(mut self, path: impl Into<String>) -> Self {
        self.volume = Some(path.into());
        self
    }
}

fn said(kind: NameKind, path: &Path) -> Result<String> {
    locator_path(kind, path).ok_or_else(|| {
        let text = format!(
            "a VHDX cannot name its parent by the {} path {path:?}",
            kind.as_str()
        );
        Error::new(ErrorKind::InvalidInput, text)
    })
}

/// A metadata item that a child takes over from its parent byte for byte: one that describes the
/// virtual disk (IsVirtualDisk, §2.6.1.2) and that this library does not know. It is not marked as
/// required, as it could not be read here if it were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InheritedItem {
    /// What the item is.
    pub item_id: Uuid,
    /// The item is the user's, not the system's.
    pub is_user: bool,
    /// Its bytes, at most 1 MiB.
    pub bytes: Vec<u8>,
}
