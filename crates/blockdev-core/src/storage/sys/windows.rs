//! Windows: positional I/O by `seek_read`; whole-file locks; no holes.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::FileExt;
use std::path::Path;

use crate::storage::{FileId, HostExtent, LockMode};

pub(crate) fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.seek_read(buf, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                buf = &mut buf[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// One call of the host's, which may read less.
pub(crate) fn read_once_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buf, offset)
}

pub(crate) fn write_all_at(file: &File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.seek_write(buf, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                buf = &buf[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

pub(crate) fn prepare_open(_: &mut OpenOptions) {}

pub(crate) fn can_hold_image(metadata: &Metadata) -> bool {
    metadata.is_file()
}

/// The volume's file index is not in stable Rust: the canonical path stands for the file.
pub(crate) fn identity(_: &Metadata, path: &Path) -> Option<FileId> {
    super::super::file::path_identity(path)
}

pub(crate) fn allocated_len(metadata: &Metadata) -> u64 {
    metadata.len()
}

pub(crate) fn next_extent(_: &File, offset: u64, len: u64) -> io::Result<HostExtent> {
    Ok(HostExtent {
        len: len - offset,
        allocated: true,
    })
}

pub(crate) fn lock(file: &File, mode: LockMode) -> io::Result<bool> {
    super::super::file::whole_file_lock(file, mode)
}

pub(crate) fn start_writeback(_: &File) {}

pub(crate) fn punch_hole(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn zero_range(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn copy_range(_: &File, _: u64, _: &File, _: u64, _: u64) -> io::Result<u64> {
    Ok(0)
}
