//! From the Windows paths of a parent locator to paths of this host ([MS-VHDX] §2.6.2.6.3).

use std::path::PathBuf;

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
    fn control_characters_never_reach_the_host() {
        for stored in ["", "a\0b", "a\nb", "a\x1b[2Jb"] {
            assert_eq!(path(NameKind::Relative, stored), None);
        }
    }
}
