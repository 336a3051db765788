//! Opening a name so that it cannot lead out of a directory.

use std::fs::File;
use std::path::Path;

use crate::{Error, ErrorKind, FileOptions, Result};

fn leads_out(name: &Path) -> Error {
    Error::new(
        ErrorKind::Policy,
        format!(
            "{:?} leads through a symbolic link or out of the directory allowed",
            name
        ),
    )
}

fn regular(file: File, name: &Path) -> Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(Error::new(
        ErrorKind::Policy,
        format!("{name:?} is not a regular file"),
    ))
}

#[cfg(unix)]
pub(super) fn open(root: &Path, name: &Path, options: FileOptions) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    // Never waits for the other end of a FIFO, never becomes the controlling terminal.
    let access = if options.writable {
        OFlags::RDWR
    } else {
        OFlags::RDONLY
    };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let directory = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty()).map_err(std::io::Error::from)?;

    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        use rustix::io::Errno;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
            Ok(fd) => return regular(File::from(fd), name),
            Err(Errno::LOOP | Errno::XDEV) => return Err(leads_out(name)),
            // A kernel before 5.6, or a sandbox that knows no openat2: walk by hand.
            Err(Errno::NOSYS | Errno::PERM) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
    walk(root, name, flags, directory)
}

/// One component at a time, following no link.
#[cfg(unix)]
fn walk(
    root: std::os::fd::OwnedFd,
    name: &Path,
    flags: rustix::fs::OFlags,
    directory: rustix::fs::OFlags,
) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    use std::path::Component;
    let mut parts = Vec::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return Err(leads_out(name)),
        }
    }
    let (last, directories) = parts.split_last().ok_or_else(|| leads_out(name))?;
    let step = |at: &std::os::fd::OwnedFd, part: &std::ffi::OsStr, flags| {
        rustix::fs::openat(at, part, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| {
            match error {
                rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => leads_out(name),
                other => std::io::Error::from(other).into(),
            }
        })
    };
    let mut at = root;
    for part in directories {
        at = step(&at, part, directory)?;
    }
    regular(File::from(step(&at, last, flags)?), name)
}

/// Elsewhere: resolve both and compare, which a hostile change in between can defeat; the file
/// systems of such hosts hold no links made by whoever made the image.
#[cfg(not(unix))]
pub(super) fn open(root: &Path, name: &Path, options: FileOptions) -> Result<File> {
    let root = std::fs::canonicalize(root)?;
    let path = std::fs::canonicalize(root.join(name))?;
    if path.strip_prefix(&root).is_err() {
        return Err(leads_out(name));
    }
    let file = File::options()
        .read(true)
        .write(options.writable)
        .open(path)?;
    regular(file, name)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    fn by_hand(root: &Path, name: &Path) -> Result<File> {
        let directory = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, directory, Mode::empty()).unwrap();
        walk(fd, name, OFlags::RDONLY | OFlags::NONBLOCK, directory)
    }

    #[test]
    fn nothing_leads_out_by_either_way_of_walking() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/inside"), b"x").unwrap();
        std::fs::write(dir.path().join("outside"), b"x").unwrap();
        symlink("../outside", root.join("link")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let whole = |root: &Path, name: &Path| open(root, name, FileOptions::read_only());
        for open in [whole as fn(&Path, &Path) -> Result<File>, by_hand] {
            open(&root, Path::new("./sub/inside")).unwrap();
            for name in [
                "link",
                "up/outside",
                "../outside",
                "sub/../../outside",
                "sub",
            ] {
                let refused = open(&root, Path::new(name)).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Policy, "{name}");
            }
            assert_eq!(
                open(&root, Path::new("gone")).unwrap_err().kind(),
                ErrorKind::Io
            );
        }
    }
}
