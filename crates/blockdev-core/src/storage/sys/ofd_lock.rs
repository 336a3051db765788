//! Advisory byte-range locks that belong to the open file, in the layout QEMU 2.10 and later use.
//!
//! ```text
//!   byte 100 + p   held by whoever uses permission p
//!   byte 200 + p   held by whoever does not let others use permission p
//!
//!   p = 0 consistent read   1 write   2 write unchanged   3 resize
//! ```
//!
//! Every holder takes shared locks only; a conflict is seen by asking who holds the opposite byte.
//! What each kind of open holds was read off `qemu-io` and `qemu-img` 10.0.2.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::storage::LockMode;

const USED: libc::off_t = 100;
const DENIED: libc::off_t = 200;

const CONSISTENT_READ: libc::off_t = 0;
const WRITE: libc::off_t = 1;
const RESIZE: libc::off_t = 3;

/// What a mode uses, and what it denies to others.
fn permissions(mode: LockMode) -> (&'static [libc::off_t], &'static [libc::off_t]) {
    match mode {
        LockMode::None => (&[], &[]),
        LockMode::Unprotected => (&[CONSISTENT_READ], &[]),
        LockMode::Shared => (&[CONSISTENT_READ], &[WRITE, RESIZE]),
        LockMode::Exclusive => (&[CONSISTENT_READ, WRITE, RESIZE], &[WRITE, RESIZE]),
    }
}

/// Takes the locks of `mode` and gives up all others; false when another open file forbids it, and
/// then none is held.
pub(super) fn lock(file: &File, mode: LockMode) -> io::Result<bool> {
    set(file, libc::F_UNLCK, USED, DENIED + RESIZE + 1 - USED)?;
    let (used, denied) = permissions(mode);
    // Take first and ask then: of two that start at once, at least one sees the other.
    for p in used {
        set(file, libc::F_RDLCK, USED + p, 1)?;
    }
    for p in denied {
        set(file, libc::F_RDLCK, DENIED + p, 1)?;
    }
    for byte in used
        .iter()
        .map(|p| DENIED + p)
        .chain(denied.iter().map(|p| USED + p))
    {
        if held_by_another(file, byte)? {
            set(file, libc::F_UNLCK, USED, DENIED + RESIZE + 1 - USED)?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn flock(kind: libc::c_int, start: libc::off_t, len: libc::off_t) -> libc::flock {
    // SAFETY: `flock` is a plain C structure of integers, for which all zeros is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).expect("lock types are small");
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).expect("SEEK_SET is small");
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn set(file: &File, kind: libc::c_int, start: libc::off_t, len: libc::off_t) -> io::Result<()> {
    let lock = flock(kind, start, len);
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and F_OFD_SETLK only reads
    // the structure it is pointed at, which lives until the call returns.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if rc == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn held_by_another(file: &File, byte: libc::off_t) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, byte, 1);
    // SAFETY: as above; F_OFD_GETLK writes the answer into the structure, borrowed mutably.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if rc == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}
