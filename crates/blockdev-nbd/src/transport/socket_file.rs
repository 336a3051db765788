//! A unix socket in the file system: there only while it answers, and its owner's alone.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;

use crate::NbdError;

/// A socket that listens, and its name, which goes with it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// What the name stood for when it was given.
    identity: (u64, u64),
}

impl SocketFile {
    pub(crate) fn listen(path: PathBuf) -> Result<Self, NbdError> {
        refuse_what_is_there(&path)?;
        let hidden = Hidden(path.with_file_name(format!(".nbd{}", process::id())));
        let bind = || {
            let listener = UnixListener::bind(&hidden.0)?;
            listener.set_nonblocking(true)?;
            // Nobody knows this name yet, so that nobody was let in before.
            fs::set_permissions(&hidden.0, Permissions::from_mode(0o600))?;
            let identity = identity(&fs::symlink_metadata(&hidden.0)?);
            fs::rename(&hidden.0, &path)?;
            Ok((listener, identity))
        };
        let (listener, identity) = bind().map_err(NbdError::host("listening"))?;
        Ok(Self {
            listener,
            path,
            identity,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept()?.0)
    }
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Unless somebody else has taken the name meanwhile.
        let ours = |found: Metadata| identity(&found) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A name that is not to stay.
struct Hidden(PathBuf);

impl Drop for Hidden {
    fn drop(&mut self) {
        // It is gone where all went well.
        let _ = fs::remove_file(&self.0);
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A socket that nobody listens at is left of a server that was killed, and may be replaced.
fn refuse_what_is_there(path: &Path) -> Result<(), NbdError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(NbdError::NotASocket(path.into())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            _ => Err(NbdError::InUse(path.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(NbdError::host("listening")(error)),
    }
}
