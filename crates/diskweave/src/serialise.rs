//! What is told of images and files, for serialisers.
//!
//! Keys are those of `qemu-img`'s JSON where it has them. Paths and names that are no Unicode are
//! shown as they print; what must be exact is in the values themselves.

use std::path::Path;

use blockdev_chain::FoundBy;
use blockdev_core::{Error, FileName, FileRef, FileRole};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::{Dependence, Dependents, Forked, ImageInfo};

fn shown(path: &Path) -> String {
    path.display().to_string()
}

impl Serialize for ImageInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("ImageInfo", 10)?;
        map.serialize_field("filename", &shown(&self.path))?;
        map.serialize_field("format", self.format)?;
        map.serialize_field("virtual-size", &self.virtual_size)?;
        map.serialize_field("file-length", &self.file_len)?;
        map.serialize_field("actual-size", &self.allocated_len)?;
        map.serialize_field("cluster-size", &self.block_size)?;
        map.serialize_field("parent", &self.parent.as_ref().map(Reference))?;
        let parent_path = self.parent_path.as_deref().map(shown);
        map.serialize_field("full-backing-filename", &parent_path)?;
        map.serialize_field("found-by", &Found(&self.found))?;
        map.serialize_field("dirty-flag", &self.dirty)?;
        map.end()
    }
}

/// A file as an image names it.
struct Reference<'a>(&'a FileRef);

impl Serialize for Reference<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let role = match self.0.role {
            FileRole::Parent => "parent",
            FileRole::Data => "data",
        };
        let names: Vec<_> = self.0.names.iter().map(Name).collect();
        let expected: Vec<_> = self.0.expected.iter().map(ToString::to_string).collect();
        let mut map = serializer.serialize_struct("FileRef", 4)?;
        map.serialize_field("role", role)?;
        map.serialize_field("names", &names)?;
        map.serialize_field("format", &self.0.format)?;
        map.serialize_field("expected", &expected)?;
        map.end()
    }
}

struct Name<'a>(&'a FileName);

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("FileName", 2)?;
        map.serialize_field("kind", self.0.kind.as_str())?;
        map.serialize_field("name", &self.0.stored)?;
        map.end()
    }
}

struct Found<'a>(&'a FoundBy);

impl Serialize for Found<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            FoundBy::Given => serializer.serialize_str("given"),
            FoundBy::Handle => serializer.serialize_str("handle"),
            FoundBy::Name(name) => Name(name).serialize(serializer),
        }
    }
}

struct Reason<'a>(&'a Error);

impl Serialize for Reason<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Error", 2)?;
        map.serialize_field("kind", self.0.kind().as_str())?;
        map.serialize_field("message", &self.0.to_string())?;
        map.end()
    }
}

impl Serialize for Dependence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (answer, reason) = match self {
            Self::Yes => ("yes", None),
            Self::No => ("no", None),
            Self::Unknown(error) => ("unknown", Some(Reason(error))),
        };
        let mut map = serializer.serialize_struct("Dependence", 2)?;
        map.serialize_field("depends", answer)?;
        map.serialize_field("reason", &reason)?;
        map.end()
    }
}

/// A file of which it could not be told whether it depends on another.
struct Unknown<'a>(&'a Path, &'a Error);

impl Serialize for Unknown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Unknown", 2)?;
        map.serialize_field("filename", &shown(self.0))?;
        map.serialize_field("reason", &Reason(self.1))?;
        map.end()
    }
}

impl Serialize for Dependents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let paths = |paths: &[_]| -> Vec<String> {
            let paths: &[std::path::PathBuf] = paths;
            paths.iter().map(|path| shown(path)).collect()
        };
        let unknown = self.unknown.iter();
        let unknown: Vec<_> = unknown.map(|(path, error)| Unknown(path, error)).collect();
        let mut map = serializer.serialize_struct("Dependents", 3)?;
        map.serialize_field("dependent", &paths(&self.dependent))?;
        map.serialize_field("independent", &paths(&self.independent))?;
        map.serialize_field("unknown", &unknown)?;
        map.end()
    }
}

impl Serialize for Forked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Now => "now",
            Self::Before => "before",
        })
    }
}
