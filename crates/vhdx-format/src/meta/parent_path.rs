//! From the Windows paths of a parent locator to paths of this host, and back ([MS-VHDX] §2.6.2.6.3).

use std::path::{Path, PathBuf};

use blockdev_core::NameKind;

/// The prefix of extended-length Windows paths.
const EXTENDED: &str = r"\\?\";

/// `stored` in this host's syntax, or `None` when it can mean nothing here.
///
/// On Windows the text is a path as it stands. Elsewhere `\` separates as `/` does; a drive, a
/// volume or a share has no counterpart.
pub(crate) fn host_path(kind: NameKind, stored: &str) -> Option<PathBuf> {
    if stored.is_empty() || stored.chars().any(char::is_control) {
        return None;
    }
    if cfg!(windows) {
        return Some(PathBuf::from(stored));
    }
    match kind {
        NameKind::Relative => Some(PathBuf::from(stored.replace('\\', "/"))),
        NameKind::Volume | NameKind::Protocol => None,
        NameKind::Absolute => {
            let path = stored
                .strip_prefix(EXTENDED)
                .unwrap_or(stored)
                .replace('\\', "/");
            // `//server/share` is a Windows share, not a directory of this host.
            (path.starts_with('/') && !path.starts_with("//")).then(|| PathBuf::from(path))
        }
    }
}

/// How a locator says the path `host` of this host; `None` for what [`host_path`] would not read as the
/// same path.
pub(crate) fn locator_path(kind: NameKind, host: &Path) -> Option<String> {
    let text = host.to_str()?;
    let stored = match kind {
        NameKind::Relative => text.replace('/', r"\"),
        NameKind::Absolute => text.to_string(),
        NameKind::Volume | NameKind::Protocol => return None,
    };
    let is_of_kind = host.has_root() == (kind == NameKind::Absolute);
    let same = if cfg!(windows) {
        true
    } else {
        host_path(kind, &stored)?.as_os_str() == host.as_os_str()
    };
    (is_of_kind && same && !stored.chars().any(char::is_control)).then_some(stored)
}

#[cfg(all(test, not(windows)))]
mod tests {
    use super::*;

    fn path(kind: NameKind, stored: &str) -> Option<String> {
        host_path(kind, stored).map(|path| path.to_str().expect("from a str").to_string())
    }

    #[test]
    fn either_slash_separates() {
        for stored in [r"..\path2\sub3\parent.vhdx", "../path2/sub3/parent.vhdx"] {
            let found = path(NameKind::Relative, stored);
            assert_eq!(found.as_deref(), Some("../path2/sub3/parent.vhdx"));
        }
    }

    #[test]
    fn only_roots_of_this_host_are_absolute_here() {
        for (stored, expected) in [
            (r"\\?\/srv/base.vhdx", Some("/srv/base.vhdx")),
            ("/srv/base.vhdx", Some("/srv/base.vhdx")),
            (r"\srv\base.vhdx", Some("/srv/base.vhdx")),
            (r"\\?\d:\base.vhdx", None),
            (r"C:\base.vhdx", None),
            (r"\\server\share\base.vhdx", None),
            (r"\\?\UNC\server\share\base.vhdx", None),
            ("base.vhdx", None),
        ] {
            assert_eq!(
                path(NameKind::Absolute, stored).as_deref(),
                expected,
                "{stored}"
            );
        }
        assert_eq!(path(NameKind::Volume, r"\\?\Volume{1}\base.vhdx"), None);
    }

    #[test]
    fn what_a_locator_says_of_a_path_is_read_as_that_path() {
        use NameKind::{Absolute, Relative, Volume};
        for (kind, host, stored) in [
            (Relative, "base.vhdx", Some("base.vhdx")),
            (Relative, "./base.vhdx", Some(r".\base.vhdx")),
            (Relative, "../up/base.vhdx", Some(r"..\up\base.vhdx")),
            (Absolute, "/srv/base.vhdx", Some("/srv/base.vhdx")),
            (Relative, "/srv/base.vhdx", None),
            (Absolute, "base.vhdx", None),
            (Absolute, "//srv/base.vhdx", None),
            (Volume, "/srv/base.vhdx", None),
            // On this host it is part of a name, and in a locator it ends one.
            (Relative, r"a\b.vhdx", None),
            (Absolute, r"/a\b.vhdx", None),
            (Relative, "a\nb", None),
            (Relative, "", None),
        ] {
            let said = locator_path(kind, Path::new(host));
            assert_eq!(said.as_deref(), stored, "{host}");
            if let Some(said) = said {
                assert_eq!(path(kind, &said).as_deref(), Some(host));
            }
        }
    }

    #[test]
    fn control_characters_never_reach_the_host() {
        for stored in ["", "a\0b", "a\nb", "a\x1b[2Jb"] {
            assert_eq!(path(NameKind::Relative, stored), None);
        }
    }
}
