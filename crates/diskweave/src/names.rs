//! The names by which a new image can name its parent.

use std::fs;
use std::path::{Component, Path, PathBuf};

use blockdev_core::Result;
use blockdev_core::locate::Opener;
#[cfg(feature = "qcow2")]
use blockdev_core::{Error, ErrorKind};

#[cfg(feature = "qcow2")]
use crate::Naming;

/// How an image is to call its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParentName<'a> {
    /// By an absolute path, or one from the image's directory.
    Path(&'a Path),
    /// By a name that is no path of the host, as it is.
    Remote(&'a str),
}

impl<'a> ParentName<'a> {
    /// What `name` is to who opens files.
    pub(crate) fn of(name: &'a Path, opener: &dyn Opener) -> Self {
        match name.to_str() {
            Some(text) if opener.is_remote(name) => Self::Remote(text),
            _ => Self::Path(name),
        }
    }
}

/// Two names of one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// From the directory of the image that names it; `None` where no such name leads there.
    pub(crate) relative: Option<PathBuf>,
    /// From the root of the file system.
    pub(crate) absolute: PathBuf,
}

/// The names of the file that is called `name` by an image at `image`: a relative name starts from the
/// image's directory and stays as it is.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io) when there is no such file, or no such directory.
pub(crate) fn of(name: &Path, image: &Path) -> Result<Names> {
    let directory = match image.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let absolute = fs::canonicalize(directory.join(name))?;
    let relative = if name.has_root() {
        between(&fs::canonicalize(directory)?, &absolute)
    } else {
        Some(name.to_path_buf())
    };
    Ok(Names { relative, absolute })
}

/// The one name by which an image at `image` is to name the file at `absolute`, a canonical path.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) where there is no such name, or it is no Unicode;
/// [`Io`](ErrorKind::Io).
#[cfg(feature = "qcow2")]
pub(crate) fn one(absolute: &Path, image: &Path, naming: Naming) -> Result<String> {
    let names = of(absolute, image)?;
    let goes_down = |name: &PathBuf| {
        let mut parts = name.components();
        parts.all(|part| matches!(part, Component::Normal(_)))
    };
    let relative = match naming {
        Naming::Fitting => names.relative.filter(goes_down),
        Naming::Relative => names.relative,
        Naming::Absolute => None,
    };
    let name = match (relative, naming) {
        (Some(name), _) => name,
        (None, Naming::Relative) => {
            let text = format!("no relative name leads from {image:?} to {absolute:?}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        (None, _) => names.absolute,
    };
    as_said(&name)
}

/// What a qcow2 says of a parent that is called `name`.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) when it is no Unicode.
#[cfg(feature = "qcow2")]
pub(crate) fn of_parent(name: ParentName<'_>) -> Result<String> {
    match name {
        ParentName::Path(path) => as_said(path),
        ParentName::Remote(name) => Ok(name.to_owned()),
    }
}

/// The path `name` as a qcow2 says it: what precedes a colon would be taken for a protocol, unless a slash
/// comes first.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) when it is no Unicode.
#[cfg(feature = "qcow2")]
fn as_said(name: &Path) -> Result<String> {
    let said = match first_part_has_a_colon(name) {
        true => Path::new(".").join(name),
        false => name.to_path_buf(),
    };
    said.into_os_string().into_string().map_err(|name| {
        let text = format!("an image cannot be named by {name:?}, which is no Unicode");
        Error::new(ErrorKind::InvalidInput, text)
    })
}

#[cfg(feature = "qcow2")]
fn first_part_has_a_colon(name: &Path) -> bool {
    let first = name.components().next();
    first.is_some_and(|part| part.as_os_str().to_string_lossy().contains(':'))
}

/// The way from the directory `from` to the file `to`, both of them canonical.
fn between(from: &Path, to: &Path) -> Option<PathBuf> {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    // Of two Windows drives neither leads to the other.
    let up = from.components().skip(shared);
    let up = up.map(|part| matches!(part, Component::Normal(_)).then_some(Component::ParentDir));
    let down = to.components().skip(shared).map(Some);
    up.chain(down).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_two_places_goes_up_and_down() {
        for (from, to, way) in [
            ("/srv/images", "/srv/images/base", "base"),
            ("/srv/images", "/srv/images/sub/base", "sub/base"),
            ("/srv/images", "/srv/base", "../base"),
            ("/srv/images", "/srv/images2/base", "../images2/base"),
            ("/a/b/c", "/d", "../../../d"),
            ("/", "/d", "d"),
        ] {
            assert_eq!(
                between(Path::new(from), Path::new(to)).unwrap(),
                Path::new(way)
            );
        }
    }

    #[test]
    fn a_relative_name_stays_and_an_absolute_one_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("base"), b"").unwrap();
        let image = dir.join("sub/child");
        for name in [
            PathBuf::from("../base"),
            PathBuf::from("./../sub/../base"),
            dir.join("base"),
        ] {
            let names = of(&name, &image).unwrap();
            assert_eq!(names.absolute, dir.join("base"));
            let relative = if name.has_root() {
                Path::new("../base")
            } else {
                &*name
            };
            assert_eq!(names.relative.as_deref(), Some(relative));
        }
        assert!(
            of(Path::new("base"), &image).is_err(),
            "there is none in sub"
        );
    }
}
