//! Linux: descriptors that pass the page cache by.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use crate::storage::direct::DirectRules;
use crate::{Error, ErrorKind, Result};

/// What is kept to where the kernel does not tell, as before Linux 6.1: no block of a disk is longer.
const CAREFUL: u32 = 4096;

/// The longest block that is put up with: no file system has longer ones.
const MOST_BLOCK: u32 = 64 << 10;

/// Opens the file that `file` is, which need not have a name any more, once more.
pub(crate) fn open_direct(file: &File, writable: bool) -> Result<(File, DirectRules)> {
    let rules = rules(file)?;
    let flags = OFlags::DIRECT | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match opened {
        Ok(file) => Ok((file, rules)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(refused()),
        Err(error) => Err(error.into()),
    }
}

fn rules(file: &File) -> Result<DirectRules> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN;
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted);
    let (memory, block, cached) = match stat {
        Ok(stat) if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 => {
            (CAREFUL, CAREFUL, stat.stx_blksize)
        }
        Ok(stat) => {
            let (memory, block) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
            (memory, block, stat.stx_blksize)
        }
        // A kernel before 4.11, or a sandbox that knows no statx.
        Err(_) => (CAREFUL, CAREFUL, CAREFUL),
    };
    let is_sound = |alignment: u32| alignment.is_power_of_two() && alignment <= MOST_BLOCK;
    // Both are 0 where there is no direct I/O to the file.
    if !is_sound(memory) || !is_sound(block) {
        return Err(refused());
    }
    // Network file systems tell how much they like to send at once, which is no block.
    let cached = if is_sound(cached) { cached } else { CAREFUL };
    Ok(DirectRules {
        memory: memory as usize,
        block: u64::from(block),
        unit: u64::from(block.max(cached).max(CAREFUL)),
    })
}

fn refused() -> Error {
    let text = "the file's file system has no direct I/O";
    Error::new(ErrorKind::Unsupported, text)
}
