//! The names an image gives to its backing file and data file.
//!
//! QEMU gives meaning to prefixes (`json:`, `nbd:`, `file:` …). To whoever does not trust the image
//! they have none, and such a name is no path. A chain may give some a meaning where its caller
//! trusts the image.

use std::path::PathBuf;

use blockdev_core::{FileName, NameKind};

/// `stored` as a name to be followed.
pub(crate) fn file_name(stored: &str) -> FileName {
    let path =
        (!stored.is_empty() && !has_protocol(stored) && !stored.chars().any(char::is_control))
            .then(|| PathBuf::from(stored));
    let kind = match &path {
        Some(path) if path.has_root() => NameKind::Absolute,
        None if has_protocol(stored) => NameKind::Protocol,
        _ => NameKind::Relative,
    };
    FileName {
        kind,
        stored: stored.into(),
        path,
    }
}

/// True for names that QEMU takes for something else than a file: a colon before any slash.
fn has_protocol(name: &str) -> bool {
    let colon = name.find(':');
    let slash = name.find(['/', '\\']);
    // `C:\disk.img` is a file of a Windows host.
    let drive = cfg!(windows) && colon == Some(1);
    !drive && colon.is_some_and(|colon| slash.is_none_or(|slash| colon < slash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_data_and_never_paths() {
        let hostile = [
            "json:{\"driver\":\"file\"}",
            "nbd:localhost:10809",
            "nbd+unix:///x",
            "file:base.raw",
            "fd:3",
            "http://host/x",
            "",
            "a\0b",
            "a\nb",
        ];
        for name in hostile {
            let name = file_name(name);
            assert_eq!(name.path, None, "{:?}", name.stored);
            let protocol = name.stored.contains(':');
            assert_eq!(
                name.kind == NameKind::Protocol,
                protocol,
                "{:?}",
                name.stored
            );
        }
        for name in ["base.raw", "sub/base.raw", "./a:b", "/abs/a:b", "../base"] {
            assert_eq!(file_name(name).path, Some(PathBuf::from(name)));
        }
        assert_eq!(file_name("/abs").kind, NameKind::Absolute);
    }
}
