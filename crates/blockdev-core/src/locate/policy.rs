//! Which of the names an image gives may be followed.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::Opener;
use crate::{
    DeviceInfo, Error, ErrorKind, FileName, FileOptions, FileRef, NameKind, Result, Storage,
};

/// What a child wants from whoever supplies its files.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The reference: role, names, declared format, fingerprints.
    pub reference: &'a FileRef,
    /// The disk of the image that refers: its size and sector sizes.
    pub child: &'a DeviceInfo,
}

/// Supplies files to images that name them, without any path being followed.
///
/// Closures do: `|wanted: &Wanted<'_>| Ok(Some(storage))`.
pub trait Resolve: Send + Sync {
    /// The file that `wanted` is to get; `None` when there is none for it.
    ///
    /// # Errors
    /// The resolver's own.
    fn resolve(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<dyn Storage>>>;
}

impl<F> Resolve for F
where
    F: Fn(&Wanted<'_>) -> Result<Option<Arc<dyn Storage>>> + Send + Sync,
{
    fn resolve(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<dyn Storage>>> {
        self(wanted)
    }
}

/// Files handed over by the caller, by the name under which images refer to them.
#[derive(Debug, Clone, Default)]
pub struct Handles(Vec<(String, Arc<dyn Storage>)>);

impl Handles {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `storage` for images that name it `name`, spelled as they store it.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, storage: Arc<dyn Storage>) -> Self {
        self.0.push((name.into(), storage));
        self
    }
}

impl Resolve for Handles {
    fn resolve(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<dyn Storage>>> {
        let found = wanted.reference.names.iter().find_map(|name| {
            self.0
                .iter()
                .find(|(handle, _)| *handle == name.stored)
                .map(|(_, storage)| storage)
        });
        Ok(found.cloned())
    }
}

/// Which files an image may make the library open.
#[derive(Clone, Default)]
pub enum ChainPolicy {
    /// None: an image with a parent is opened alone.
    #[default]
    Deny,
    /// Those the caller supplies.
    Handles(Arc<dyn Resolve>),
    /// Regular files below this directory, by relative names without `..`, through no symbolic
    /// link.
    Beneath(PathBuf),
    /// Any file the process can open: for images from people you trust. What `qemu-img` does.
    Any,
}

impl fmt::Debug for ChainPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny => f.write_str("Deny"),
            Self::Handles(_) => f.write_str("Handles(..)"),
            Self::Beneath(root) => f.debug_tuple("Beneath").field(root).finish(),
            Self::Any => f.write_str("Any"),
        }
    }
}

/// A file that a name led to.
#[derive(Debug)]
pub struct Found {
    /// The open file.
    pub storage: Arc<dyn Storage>,
    /// Its path, from which its own relative names are resolved.
    pub path: PathBuf,
}

impl ChainPolicy {
    /// Follows `name`, found in an image that lies in directory `dir`.
    ///
    /// # Errors
    /// [`ErrorKind::Policy`] when the policy forbids it or the name means nothing on this host;
    /// else the opener's.
    pub fn follow(
        &self,
        name: &FileName,
        dir: &Path,
        opener: &dyn Opener,
        options: FileOptions,
    ) -> Result<Found> {
        let Some(path) = &name.path else {
            return Err(Error::new(
                ErrorKind::Policy,
                "the name means nothing on this host",
            ));
        };
        match self {
            Self::Deny | Self::Handles(_) => Err(Error::new(
                ErrorKind::Policy,
                "no file may be opened by name",
            )),
            Self::Beneath(root) => {
                let within = below(root, dir)?.join(plain(path)?);
                let storage = opener.open_beneath(root, &within, options)?;
                Ok(Found {
                    storage,
                    path: root.join(within),
                })
            }
            Self::Any => {
                let mut path = dir.join(path);
                // A file's name stays one, whatever it looks like.
                if name.kind != NameKind::Protocol && opener.is_remote(&path) {
                    path = Path::new(".").join(path);
                }
                let storage = opener.open(&path, options)?;
                Ok(Found { storage, path })
            }
        }
    }
}

/// `path` when it is relative and never goes up; else a refusal.
fn plain(path: &Path) -> Result<PathBuf> {
    let mut kept = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => kept.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                return Err(Error::new(
                    ErrorKind::Policy,
                    "the name leads out of its directory",
                ));
            }
            Component::RootDir | Component::Prefix(_) => {
                return Err(Error::new(ErrorKind::Policy, "the name is absolute"));
            }
        }
    }
    Ok(kept)
}

/// `dir` as a path below `root`.
fn below(root: &Path, dir: &Path) -> Result<PathBuf> {
    if let Ok(within) = dir.strip_prefix(root)
        && let Ok(within) = plain(within)
    {
        return Ok(within);
    }
    let canonical = |path: &Path| {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        std::fs::canonicalize(path)
    };
    let (root, dir) = (canonical(root)?, canonical(dir)?);
    dir.strip_prefix(&root).map(Path::to_path_buf).map_err(|_| {
        Error::new(
            ErrorKind::Policy,
            format!("the image is not below {}", root.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locate::HostOpener;

    fn name(path: &str) -> FileName {
        FileName {
            kind: NameKind::Relative,
            stored: path.into(),
            path: Some(path.into()),
        }
    }

    fn follow(policy: &ChainPolicy, path: &str, dir: &Path) -> Result<Found> {
        policy.follow(&name(path), dir, &HostOpener, FileOptions::read_only())
    }

    #[test]
    fn beneath_follows_down_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("images");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        for file in ["base", "sub/base"] {
            std::fs::write(root.join(file), [0; 512]).unwrap();
        }
        std::fs::write(dir.path().join("secret"), [0; 512]).unwrap();
        let policy = ChainPolicy::Beneath(root.clone());
        assert_eq!(
            follow(&policy, "base", &root).unwrap().path,
            root.join("base")
        );
        let sub = root.join("sub");
        assert_eq!(
            follow(&policy, "./base", &sub).unwrap().path,
            sub.join("base")
        );
        let absolute = root.join("base");
        for forbidden in ["../secret", "sub/../base", absolute.to_str().unwrap()] {
            assert_eq!(
                follow(&policy, forbidden, &root).unwrap_err().kind(),
                ErrorKind::Policy
            );
        }
        let outside = follow(&policy, "secret", dir.path()).unwrap_err();
        assert_eq!(
            outside.kind(),
            ErrorKind::Policy,
            "a child outside the directory"
        );
    }

    /// Opens what is on the host, and takes names of servers for what they are.
    struct Worldly;

    impl Opener for Worldly {
        fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
            assert!(!self.is_remote(path), "a server was asked");
            HostOpener.open(path, options)
        }

        fn open_beneath(
            &self,
            root: &Path,
            name: &Path,
            options: FileOptions,
        ) -> Result<Arc<dyn Storage>> {
            HostOpener.open_beneath(root, name, options)
        }

        fn is_remote(&self, name: &Path) -> bool {
            name.to_string_lossy().starts_with("nbd:")
        }
    }

    /// A parent locator's relative name was one of a server where the image was opened by its name alone.
    #[test]
    fn what_an_image_calls_a_file_is_no_server_whatever_it_looks_like() {
        let file = name("nbd:host:1");
        let read = FileOptions::read_only();
        let error = ChainPolicy::Any.follow(&file, Path::new(""), &Worldly, read);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Io, "no such file");
    }

    #[test]
    fn deny_opens_nothing_and_any_opens_by_the_childs_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("base"), [0; 512]).unwrap();
        let refused = follow(&ChainPolicy::Deny, "base", dir.path()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Policy);
        follow(&ChainPolicy::Any, "base", dir.path()).unwrap();
    }
}
