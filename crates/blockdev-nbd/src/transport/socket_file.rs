//! A unix socket in the file system: there only while it answers, and its owner's alone.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;

use rustix::io::{Errno, FdFlags};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};

use crate::NbdError;

/// Clients that may wait to be let in.
const BACKLOG: i32 = 128;
/// Names that are tried for a socket which has not got its own yet.
const MOST_TAKEN: u32 = 100;

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
        // Under a name that an address has no room for nobody would find it.
        SocketAddr::from_pathname(&path).map_err(NbdError::host("listening"))?;
        refuse_what_is_there(&path)?;
        let listen = || {
            let (socket, hidden) = bind_beside(&path)?;
            // Nobody connects to a socket that does not listen: until here nobody was let in.
            fs::set_permissions(&hidden.0, Permissions::from_mode(0o600))?;
            net::listen(&socket, BACKLOG)?;
            let listener = UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            let identity = identity(&fs::symlink_metadata(&hidden.0)?);
            fs::rename(&hidden.0, &path)?;
            Ok((listener, identity))
        };
        let (listener, identity) = listen().map_err(NbdError::host("listening"))?;
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

/// A socket that does not listen yet, bound to a name beside `path` that was free.
fn bind_beside(path: &Path) -> io::Result<(OwnedFd, Hidden)> {
    let mut taken = 0;
    loop {
        let name = format!(".nbd{}-{taken}", process::id());
        let hidden = path.with_file_name(name);
        let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        match bind(&socket, &hidden) {
            Ok(()) => return Ok((socket, Hidden(hidden))),
            // Another thread's, or left behind by a process that had this number.
            Err(Errno::ADDRINUSE) if taken < MOST_TAKEN => taken += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Binds `socket` to `hidden`, which may be longer than the name that it is to get.
fn bind(socket: &OwnedFd, hidden: &Path) -> Result<(), Errno> {
    match SocketAddrUnix::new(hidden) {
        Ok(address) => net::bind(socket, &address),
        Err(_) => bind_longer(socket, hidden),
    }
}

/// By way of its directory's descriptor every name of ours has room in an address.
#[cfg(target_os = "linux")]
fn bind_longer(socket: &OwnedFd, hidden: &Path) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags, open};
    use std::os::fd::AsRawFd;

    let (Some(directory), Some(name)) = (hidden.parent(), hidden.file_name()) else {
        return Err(Errno::NAMETOOLONG);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    let shorter = format!("/proc/self/fd/{}", directory.as_raw_fd());
    net::bind(
        socket,
        &SocketAddrUnix::new(Path::new(&shorter).join(name))?,
    )
}

#[cfg(not(target_os = "linux"))]
fn bind_longer(_socket: &OwnedFd, _hidden: &Path) -> Result<(), Errno> {
    Err(Errno::NAMETOOLONG)
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
