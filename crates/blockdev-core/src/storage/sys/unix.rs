//! Unix: positional I/O, holes, identity; Linux adds what only it has.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::SeekFrom;

use crate::storage::{FileId, HostExtent, LockMode};

pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

/// One call of the host's, which may read less.
pub(crate) fn read_once_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buf, offset)
}

pub(crate) fn write_all_at(file: &File, buf: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(buf, offset)
}

/// Never waits: the open of a FIFO with no other end would.
pub(crate) fn prepare_open(options: &mut OpenOptions) {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
    options.custom_flags(nonblock.cast_signed());
}

/// True for what can hold a disk image: regular files and block devices.
pub(crate) fn can_hold_image(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.is_file() || metadata.file_type().is_block_device()
}

pub(crate) fn identity(metadata: &Metadata, _path: &Path) -> Option<FileId> {
    Some(FileId {
        space: metadata.dev(),
        file: metadata.ino(),
    })
}

pub(crate) fn allocated_len(metadata: &Metadata) -> u64 {
    metadata.blocks().saturating_mul(512)
}

/// The run at `offset` of a file that is `len` bytes long.
pub(crate) fn next_extent(file: &File, offset: u64, len: u64) -> io::Result<HostExtent> {
    let all = HostExtent {
        len: len - offset,
        allocated: true,
    };
    let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(at) => at.clamp(offset, len),
        Err(rustix::io::Errno::NXIO) => len,
        // The file system cannot tell.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok(all),
        Err(error) => return Err(error.into()),
    };
    if data > offset {
        return Ok(HostExtent {
            len: data - offset,
            allocated: false,
        });
    }
    let hole = rustix::fs::seek(file, SeekFrom::Hole(offset))?;
    if hole <= offset {
        // The file changed between the two questions.
        return Ok(all);
    }
    Ok(HostExtent {
        len: hole.min(len) - offset,
        allocated: true,
    })
}

/// Has the host begin to make stable what was written, and does not wait for it.
#[cfg(target_os = "linux")]
pub(crate) fn start_writeback(file: &File) {
    use std::os::fd::AsRawFd;
    // SAFETY: a system call on a descriptor that `file` keeps open, without pointers.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    // What fails is tried again, and reported, by the sync that comes in the end.
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn start_writeback(_: &File) {}

#[cfg(target_os = "linux")]
pub(crate) fn lock(file: &File, mode: LockMode) -> io::Result<bool> {
    match super::ofd_lock::lock(file, mode) {
        // File systems without locks are used without, as QEMU does.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(true)
        }
        other => other,
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn lock(file: &File, mode: LockMode) -> io::Result<bool> {
    super::super::file::whole_file_lock(file, mode)
}

#[cfg(target_os = "linux")]
pub(crate) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags as F;
    Ok(rustix::fs::fallocate(
        file,
        F::PUNCH_HOLE | F::KEEP_SIZE,
        offset,
        len,
    )?)
}

#[cfg(target_os = "linux")]
pub(crate) fn zero_range(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags as F;
    Ok(rustix::fs::fallocate(file, F::ZERO_RANGE, offset, len)?)
}

#[cfg(target_os = "linux")]
pub(crate) fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = rustix::fs::FallocateFlags::empty();
    Ok(rustix::fs::fallocate(file, flags, offset, len)?)
}

#[cfg(target_os = "linux")]
pub(crate) fn copy_range(
    from: &File,
    offset: u64,
    to: &File,
    to_offset: u64,
    len: u64,
) -> io::Result<u64> {
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::Errno;
    // What is copied into a file takes no part in how direct writers keep out of each other's blocks.
    if fcntl_getfl(to)?.contains(OFlags::DIRECT) {
        return Ok(0);
    }
    let (mut at, mut to_at) = (offset, to_offset);
    let want = usize::try_from(len).unwrap_or(1 << 30);
    match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), want) {
        Ok(copied) => Ok(copied as u64),
        Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn punch_hole(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn zero_range(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn copy_range(_: &File, _: u64, _: &File, _: u64, _: u64) -> io::Result<u64> {
    Ok(0)
}
