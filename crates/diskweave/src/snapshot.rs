//! Which internal snapshot of an image is meant.

use std::fmt;

/// An internal snapshot, by what is known of it.
///
/// # Example
///
/// ```no_run
/// use diskweave::{OpenDisk, SnapshotName};
///
/// let name = SnapshotName::IdOrName("before-upgrade".into());
/// let disk = OpenDisk::new().snapshot(name).open("disk.qcow2")?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotName {
    /// The one with this id; if there is none, the first with this name.
    IdOrName(String),
    /// The first with this id.
    Id(String),
    /// The first with this name.
    Name(String),
    /// The first with both.
    Both {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
}

impl SnapshotName {
    /// The place of the snapshot among `all`, each an id and a name.
    #[cfg(feature = "qcow2")]
    pub(crate) fn find<'a>(
        &self,
        mut all: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Option<usize> {
        match self {
            Self::IdOrName(wanted) => {
                let by_id = all.clone().position(|(id, _)| id == wanted);
                by_id.or_else(|| all.position(|(_, name)| name == wanted))
            }
            Self::Id(wanted) => all.position(|(id, _)| id == wanted),
            Self::Name(wanted) => all.position(|(_, name)| name == wanted),
            Self::Both { id, name } => all.position(|found| found == (id.as_str(), name.as_str())),
        }
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdOrName(wanted) => write!(f, "{wanted:?}"),
            Self::Id(id) => write!(f, "with id {id:?}"),
            Self::Name(name) => write!(f, "named {name:?}"),
            Self::Both { id, name } => write!(f, "named {name:?} with id {id:?}"),
        }
    }
}
